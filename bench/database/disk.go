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
	quota := [2]uint64{1} // BTRFS_QUOTA_CTL_ENABLE: volumes have quotas
	return d, ioctl(root, 0xc0109428, unsafe.Pointer(&quota))
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

// volume makes a subvolume.
func (d *disk) volume(name string, noCOW bool) (string, error) {
	var args volumeArgs
	copy(args.name[:], name)
	path := filepath.Join(d.root, name)
	if err := ioctl(d.root, 0x5000940e, unsafe.Pointer(&args)); err != nil || !noCOW { // BTRFS_IOC_SUBVOL_CREATE
		return path, err
	}
	flags := int32(0x800000) // FS_NOCOW_FL
	return path, ioctl(path, unix.FS_IOC_SETFLAGS, unsafe.Pointer(&flags))
}

// snapshot takes one of a volume, which shares all of its data from then on.
func (d *disk) snapshot(volume string) error {
	f, err := os.Open(volume)
	if err != nil {
		return err
	}
	defer f.Close()
	args := volumeArgs{fd: int64(f.Fd())}
	copy(args.name[:], filepath.Base(volume)+".snapshot")
	return ioctl(d.root, 0x50009401, unsafe.Pointer(&args)) // BTRFS_IOC_SNAP_CREATE
}

// volumeArgs is struct btrfs_ioctl_vol_args.
type volumeArgs struct {
	fd   int64
	name [4088]byte
}

func ioctl(path string, request uint, arg unsafe.Pointer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), uintptr(arg)); errno != 0 {
		return fmt.Errorf("cannot make request %#x of %q: %w", request, path, errno)
	}
	return nil
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

// extents counts the pieces that the files below dir are in, by FIEMAP.
func extents(dir string) (int, error) {
	total := 0
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		m := struct {
			start, length                  uint64
			flags, mapped, count, reserved uint32
		}{length: ^uint64(0), flags: 1} // FIEMAP_FLAG_SYNC
		err = ioctl(path, 0xc020660b, unsafe.Pointer(&m)) // FS_IOC_FIEMAP
		total += int(m.mapped)
		return err
	})
	return total, err
}
