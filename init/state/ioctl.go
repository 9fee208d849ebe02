package state

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"allotment/image"
)

// Requests of linux/btrfs.h; their argument is struct btrfs_ioctl_vol_args.
const (
	btrfsResize          = 0x50009403 // BTRFS_IOC_RESIZE
	btrfsCreateSubvolume = 0x5000940e // BTRFS_IOC_SUBVOL_CREATE
)

// Flags of linux/fs.h: FS_IMMUTABLE_FL, FS_NOCOW_FL, and FS_VERITY_FL, which can be read but not set.
const (
	immutableFlag = 0x10
	verityFlag    = 0x100000
	noCOWFlag     = 0x800000
)

// btrfsArgs is struct btrfs_ioctl_vol_args.
type btrfsArgs struct {
	fd   int64
	name [4088]byte
}

// ioctl opens path for reading and makes one request of it.
func ioctl(path string, name string, request uint, arg unsafe.Pointer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), uintptr(arg))
	if errno != 0 {
		return &fs.PathError{Op: name, Path: path, Err: errno}
	}
	return nil
}

// resizeMax grows a mounted btrfs to its device. It does nothing if there is nothing to grow.
func resizeMax(root string) error {
	var args btrfsArgs
	copy(args.name[:], "max")
	return ioctl(root, "resize", btrfsResize, unsafe.Pointer(&args))
}

func createSubvolume(path string) error {
	var args btrfsArgs
	if copy(args.name[:len(args.name)-1], filepath.Base(path)) < len(filepath.Base(path)) {
		return &fs.PathError{Op: "create subvolume", Path: path, Err: unix.ENAMETOOLONG}
	}
	return ioctl(filepath.Dir(path), "create subvolume", btrfsCreateSubvolume, unsafe.Pointer(&args))
}

// enableVerity gives a file a Merkle tree: SHA-256, blocks of 4 KiB, no salt. Nobody may have it open for writing.
func enableVerity(path string) error {
	arg := unix.FsverityEnableArg{Version: 1, Hash_algorithm: unix.FS_VERITY_HASH_ALG_SHA256, Block_size: 4096}
	return ioctl(path, "enable fs-verity", unix.FS_IOC_ENABLE_VERITY, unsafe.Pointer(&arg))
}

// measureVerity asks the kernel for a file's fs-verity digest; from then on every byte read of it is checked.
func measureVerity(path string) (image.Digest, error) {
	var arg struct {
		unix.FsverityDigest
		sum [sha256.Size]byte
	}
	arg.Size = sha256.Size
	if err := ioctl(path, "measure fs-verity", unix.FS_IOC_MEASURE_VERITY, unsafe.Pointer(&arg)); err != nil {
		return "", err
	}
	if arg.Algorithm != unix.FS_VERITY_HASH_ALG_SHA256 || arg.Size != sha256.Size {
		return "", fmt.Errorf("cannot use fs-verity of %q: algorithm %d", path, arg.Algorithm)
	}
	return image.NewDigest(arg.sum), nil
}

// setImmutable sets or clears the flag by which the kernel refuses every change of a file. Btrfs would let truncate(2)
// spoil a file with fs-verity without it.
func setImmutable(path string, on bool) error { return setFlag(path, immutableFlag, on) }

// setNoCOW sets or clears the flag by which new files of a folder are written in place: without compression, checksums and
// copies. Files that are there already stay as they are.
func setNoCOW(path string, on bool) error { return setFlag(path, noCOWFlag, on) }

func setFlag(path string, flag int32, on bool) error {
	var flags int32
	if err := ioctl(path, "get flags", unix.FS_IOC_GETFLAGS, unsafe.Pointer(&flags)); err != nil {
		return err
	}
	want := flags &^ flag
	if on {
		want = flags | flag
	}
	if want == flags {
		return nil
	}
	want &^= verityFlag
	return ioctl(path, "set flags", unix.FS_IOC_SETFLAGS, unsafe.Pointer(&want))
}

// syncFS writes everything of the file system that path lies on.
func syncFS(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return &fs.PathError{Op: "syncfs", Path: path, Err: err}
	}
	return nil
}
