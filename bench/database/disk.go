package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"allotment/builder/tools"
	"allotment/init/state/btrfs"
	"allotment/internal/run"
)

// disk is a btrfs in a file, mounted as the state partition is.
type disk struct {
	root string // mount point
	loop string // name of the device, such as loop0
}

// diskSize is in bytes, as on a small box.
const diskSize = 2 << 30

func makeDisk(ctx context.Context, t *tools.Root, dir string) (*disk, error) {
	file, root := filepath.Join(dir, "disk"), filepath.Join(dir, "state")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, diskSize)); err != nil {
		return nil, err
	}
	if err := t.Run(ctx, run.Command{Name: "mkfs.btrfs", Args: []string{"--quiet", "--force", file}}); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, err
	}
	loop, err := attach(file)
	if err != nil {
		return nil, fmt.Errorf("cannot attach %q: %w", file, err)
	}
	defer loop.Close()
	if err := unix.Mount(loop.Name(), root, "btrfs", unix.MS_NOATIME, "compress=zstd:3"); err != nil {
		return nil, fmt.Errorf("cannot mount btrfs: %w", err)
	}
	d := &disk{root: root, loop: filepath.Base(loop.Name())}
	return d, btrfs.EnableQuota(root)
}

// attach gives the file a loop device that goes away with its last user, and writes to the disk below without a cache.
func attach(file string) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, err
	}
	loop, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Fd: uint32(f.Fd()), Size: 4096}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
	if err := unix.IoctlLoopConfigure(int(loop.Fd()), &config); err != nil {
		return nil, errors.Join(err, loop.Close())
	}
	return loop, nil
}

// close unmounts the disk, and passes on the error of its use.
func (d *disk) close(err error) error { return errors.Join(err, unix.Unmount(d.root, 0)) }

// volume makes a subvolume, which counts as the state partition's do.
func (d *disk) volume(name string, noCOW bool) (string, error) {
	path := filepath.Join(d.root, name)
	if err := btrfs.CreateSubvolume(path); err != nil {
		return path, err
	}
	id, err := btrfs.SubvolumeID(path)
	if err == nil {
		err = btrfs.Assign(d.root, id)
	}
	if err == nil && noCOW {
		err = btrfs.SetNoCOW(path, true)
	}
	return path, err
}

// snapshot takes one of a volume, which shares all of its data from then on.
func (d *disk) snapshot(volume string) error {
	return btrfs.Snapshot(volume, filepath.Join(d.root, filepath.Base(volume)+".snapshot"), false)
}

// written is how many bytes the device was given, once everything is.
func (d *disk) written() (int64, error) {
	f, err := os.Open(d.root)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return 0, err
	}
	b, err := os.ReadFile("/sys/class/block/" + d.loop + "/stat")
	if err != nil {
		return 0, err
	}
	sectors, err := strconv.ParseInt(strings.Fields(string(b))[6], 10, 64)
	return sectors * 512, err
}

// extents counts the pieces that the files below dir are in.
func extents(dir string) (int, error) {
	total := 0
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		n, err := pieces(path)
		total += n
		return err
	})
	return total, err
}

// pieces asks for a file's by FIEMAP (linux/fiemap.h).
func pieces(path string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	m := struct {
		start, length                  uint64
		flags, mapped, count, reserved uint32
	}{length: ^uint64(0), flags: 1} // FIEMAP_FLAG_SYNC
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), 0xc020660b, uintptr(unsafe.Pointer(&m))); errno != 0 {
		return 0, fmt.Errorf("cannot count the extents of %q: %w", path, errno)
	}
	return int(m.mapped), nil
}
