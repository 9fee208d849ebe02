// Package btrfstest mounts a btrfs for a test.
package btrfstest

import (
	"bytes"
	"compress/bzip2"
	_ "embed"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// empty is what
//
//	truncate -s 512M x; mkfs.btrfs -L state -U 00000000-0000-4000-8000-000000000001 x; bzip2 -9 x
//
// makes.
//
//go:embed testdata/empty.btrfs.bz2
var empty []byte

const blockSize = 64 << 10

// blocks are the image's blocks that are not zero, by their places, and its size. Unpacking takes a second, so it is done
// once.
var blocks = sync.OnceValues(func() (map[int64][]byte, int64) {
	all, zero := map[int64][]byte{}, make([]byte, blockSize)
	r := bzip2.NewReader(bytes.NewReader(empty))
	for at := int64(0); ; at += blockSize {
		block := make([]byte, blockSize)
		if _, err := io.ReadFull(r, block); err == io.EOF {
			return all, at
		} else if err != nil {
			panic(err)
		}
		if !bytes.Equal(block, zero) {
			all[at] = block
		}
	}
})

// Make writes an empty btrfs of 512 MiB to a new file and returns its path.
func Make(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "btrfs")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	all, size := blocks()
	for at, b := range all {
		if _, err := out.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return path
}

// Run mounts the file at root for the body, which runs in a thread of its own: only that thread sees the mount. It skips the
// test where the machine cannot do that.
func Run(t *testing.T, file, root string, body func()) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	done := make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends and its mounts with it
		if err := mount(file, root); err != nil {
			done <- err
			return
		}
		body()
		if err := unix.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	}()
	if err := <-done; errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
		t.Skipf("this machine cannot mount btrfs: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
}

// mount mounts the image through a loop device that goes away with the mount.
func mount(file, root string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	loop, err := Attach(file)
	if err != nil {
		return err
	}
	return errors.Join(unix.Mount(loop.Name(), root, "btrfs", unix.MS_NOATIME, "compress=zstd:3"), loop.Close())
}

// Attach makes a block device of a file, which goes away with the last use of it. Its path is the name of what is returned.
func Attach(file string) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	image, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	config := unix.LoopConfig{Fd: uint32(image.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, err
		}
		loop, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		if err == nil {
			return loop, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) { // if it is, somebody else took it
			return nil, err
		}
	}
}

// Copy copies a file with its holes. Of a file that is a block device's, it is what the medium would hold after a cut of the
// power: what was written, and not what is in memory.
func Copy(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	for at := int64(0); ; {
		start, err := in.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return out.Truncate(info.Size())
		}
		end, e := in.Seek(start, unix.SEEK_HOLE)
		if err = errors.Join(err, e); err != nil {
			return err
		}
		if _, err = out.Seek(start, io.SeekStart); err == nil {
			_, err = io.Copy(out, io.NewSectionReader(in, start, end-start))
		}
		if err != nil {
			return err
		}
		at = end
	}
}
