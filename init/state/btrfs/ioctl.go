// Package btrfs makes the requests of the kernel that the state partition needs: of btrfs its subvolumes and quota groups,
// and of its files fs-verity, flags and shared ranges.
package btrfs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"allotment/image"
)

// Requests of linux/btrfs.h; their argument is struct btrfs_ioctl_vol_args, or struct btrfs_ioctl_vol_args_v2.
const (
	resize            = 0x50009403 // BTRFS_IOC_RESIZE
	subvolumeCreate   = 0x5000940e // BTRFS_IOC_SUBVOL_CREATE
	snapshotDestroy   = 0x5000940f // BTRFS_IOC_SNAP_DESTROY
	snapshotCreate    = 0x50009417 // BTRFS_IOC_SNAP_CREATE_V2
	snapshotReadOnly  = 1 << 1     // BTRFS_SUBVOL_RDONLY
	snapshotInherits  = 1 << 2     // BTRFS_SUBVOL_QGROUP_INHERIT
	firstFreeObjectID = 256        // BTRFS_FIRST_FREE_OBJECTID: the inode of every subvolume's root
)

// Flags of linux/fs.h: FS_IMMUTABLE_FL, FS_NOCOW_FL, and FS_VERITY_FL, which can be read but not set.
const (
	immutableFlag = 0x10
	verityFlag    = 0x100000
	noCOWFlag     = 0x800000
)

// volumeArgs is struct btrfs_ioctl_vol_args.
type volumeArgs struct {
	fd   int64
	name [4088]byte
}

// snapshotArgs is struct btrfs_ioctl_vol_args_v2.
type snapshotArgs struct {
	fd            int64
	transaction   uint64
	flags         uint64
	inheritLength uint64
	inherit       *inherit
	_             [2]uint64
	name          [4040]byte
}

// inherit is struct btrfs_qgroup_inherit with one group that the new subvolume's is put below.
type inherit struct {
	_, groups, _, _ uint64
	_               [5]uint64 // limits
	group           QgroupID
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

// ResizeMax grows a mounted btrfs to its device. It does nothing if there is nothing to grow.
func ResizeMax(root string) error {
	var args volumeArgs
	copy(args.name[:], "max")
	return ioctl(root, "resize", resize, unsafe.Pointer(&args))
}

// CreateSubvolume makes an empty subvolume.
func CreateSubvolume(path string) error {
	var args volumeArgs
	if err := setName(args.name[:], path); err != nil {
		return err
	}
	return ioctl(filepath.Dir(path), "create subvolume", subvolumeCreate, unsafe.Pointer(&args))
}

// Snapshot makes subvolume to of what subvolume from holds now, also of what was written but not synced. Its quota group has
// no limit and is put below AllVolumes, where from's must be too: then what both share is still counted right.
func Snapshot(from, to string, readOnly bool) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	in := &inherit{groups: 1, group: AllVolumes}
	args := snapshotArgs{fd: int64(f.Fd()), flags: snapshotInherits, inherit: in, inheritLength: uint64(unsafe.Sizeof(*in))}
	if readOnly {
		args.flags |= snapshotReadOnly
	}
	if err := setName(args.name[:], to); err != nil {
		return err
	}
	return ioctl(filepath.Dir(to), "make snapshot", snapshotCreate, unsafe.Pointer(&args))
}

// Delete deletes a subvolume, though it may be in use: the caller must know that it is not. Its room becomes free later. It
// does nothing if there is none.
func Delete(path string) error {
	var args volumeArgs
	if err := setName(args.name[:], path); err != nil {
		return err
	}
	err := ioctl(filepath.Dir(path), "delete subvolume", snapshotDestroy, unsafe.Pointer(&args))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// setName copies the last part of a path into a zero-terminated name.
func setName(to []byte, path string) error {
	if name := filepath.Base(path); copy(to[:len(to)-1], name) < len(name) || len(name) > 255 {
		return &fs.PathError{Op: "name subvolume", Path: path, Err: unix.ENAMETOOLONG}
	}
	return nil
}

// IsSubvolume tells whether path is the root of a subvolume.
func IsSubvolume(path string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return false, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Ino == firstFreeObjectID, nil
}

// Exchange swaps two names of one file system in one step.
func Exchange(a, b string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
		return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
	}
	return nil
}

// Clone makes n bytes of a file share storage with those of another file of the file system. All numbers are multiples of
// 4096.
func Clone(to *os.File, offset int64, from *os.File, fromOffset, n int64) error {
	arg := unix.FileCloneRange{Src_fd: int64(from.Fd()), Src_offset: uint64(fromOffset), Src_length: uint64(n),
		Dest_offset: uint64(offset)}
	if err := unix.IoctlFileCloneRange(int(to.Fd()), &arg); err != nil {
		return &os.LinkError{Op: "clone", Old: from.Name(), New: to.Name(), Err: err}
	}
	return nil
}

// EnableVerity gives a file a Merkle tree: SHA-256, blocks of 4 KiB, no salt. Nobody may have it open for writing. It is
// durable after Sync only: fsync does not do, and a cut before leaves a file that cannot be read.
func EnableVerity(path string) error {
	arg := unix.FsverityEnableArg{Version: 1, Hash_algorithm: unix.FS_VERITY_HASH_ALG_SHA256, Block_size: 4096}
	return ioctl(path, "enable fs-verity", unix.FS_IOC_ENABLE_VERITY, unsafe.Pointer(&arg))
}

// MeasureVerity asks the kernel for a file's fs-verity digest; from then on every byte read of it is checked. The error is
// ENODATA for a file without fs-verity.
func MeasureVerity(path string) (image.Digest, error) {
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

// CheckVerity is an error if the file's fs-verity digest is not d. It enables fs-verity if the file has none.
func CheckVerity(path string, d image.Digest) error {
	got, err := MeasureVerity(path)
	if errors.Is(err, unix.ENODATA) {
		// A new file, or a whole one whose fs-verity a cut has undone.
		if err := EnableVerity(path); err != nil {
			return err
		}
		got, err = MeasureVerity(path)
	}
	if err != nil {
		return err
	}
	if got != d {
		return fmt.Errorf("fs-verity digest is %s, want %s", got.Short(), d.Short())
	}
	return nil
}

// SetImmutable sets or clears the flag by which the kernel refuses every change of a file. Btrfs would let truncate(2)
// spoil a file with fs-verity without it.
func SetImmutable(path string, on bool) error { return setFlag(path, immutableFlag, on) }

// SetNoCOW sets or clears the flag by which new files of a folder are written in place: without compression, checksums and
// copies. Files that are there already stay as they are.
func SetNoCOW(path string, on bool) error { return setFlag(path, noCOWFlag, on) }

// NoCOW tells whether a file or folder has the flag that SetNoCOW sets.
func NoCOW(path string) (bool, error) {
	flags, err := getFlags(path)
	return flags&noCOWFlag != 0, err
}

func getFlags(path string) (flags int32, err error) {
	err = ioctl(path, "get flags", unix.FS_IOC_GETFLAGS, unsafe.Pointer(&flags))
	return flags, err
}

func setFlag(path string, flag int32, on bool) error {
	flags, err := getFlags(path)
	if err != nil {
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

// Sync writes everything of the file system that path lies on.
func Sync(path string) error {
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
