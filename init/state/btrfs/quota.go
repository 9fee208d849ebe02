package btrfs

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of linux/btrfs.h about quota groups. Full ones are used, as simple ones forget whom data belongs to once a
// volume is exchanged with its snapshot.
const (
	inoLookup    = 0xd0009412 // BTRFS_IOC_INO_LOOKUP
	fsInfo       = 0x8400941f // BTRFS_IOC_FS_INFO
	quotaCtl     = 0xc0109428 // BTRFS_IOC_QUOTA_CTL
	qgroupAssign = 0x40189429 // BTRFS_IOC_QGROUP_ASSIGN
	qgroupCreate = 0x4010942a // BTRFS_IOC_QGROUP_CREATE
	qgroupLimit  = 0x8030942b // BTRFS_IOC_QGROUP_LIMIT
	quotaRescan  = 0x4040942c // BTRFS_IOC_QUOTA_RESCAN
)

// QgroupID is the id of a quota group: that of a subvolume is the subvolume's; others have a level in the upper 16 bits.
type QgroupID uint64

// AllVolumes is the group of all volumes together.
const AllVolumes QgroupID = 1<<48 | 1

// String is the id as the kernel's /sys/fs/btrfs names it.
func (q QgroupID) String() string { return fmt.Sprintf("%d_%d", uint64(q)>>48, uint64(q)&(1<<48-1)) }

// EnableQuota makes btrfs count what each subvolume takes, and have a group for all volumes. What was there before is
// counted first; where a cut has left the counts doubtful, they are counted again, while the box goes on.
func EnableQuota(root string) error {
	enable := struct{ cmd, status uint64 }{cmd: 1} // BTRFS_QUOTA_CTL_ENABLE; nothing happens if it was done before
	if err := ioctl(root, "enable quota", quotaCtl, unsafe.Pointer(&enable)); err != nil {
		return err
	}
	doubtful, err := readQgroup(root, "inconsistent")
	if err != nil {
		return err
	}
	if doubtful != 0 {
		var rescan [8]uint64
		err := ioctl(root, "count quota again", quotaRescan, unsafe.Pointer(&rescan))
		if err != nil && !errors.Is(err, unix.EINPROGRESS) {
			return err
		}
	}
	create := struct{ create, id uint64 }{1, uint64(AllVolumes)}
	err = ioctl(root, "create quota group", qgroupCreate, unsafe.Pointer(&create))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// Assign puts the subvolume's group below that of all volumes. What the subvolume holds must be its own alone.
func Assign(root string, id QgroupID) error {
	arg := struct{ assign, src, dst uint64 }{1, uint64(id), uint64(AllVolumes)}
	err := ioctl(root, "assign quota group", qgroupAssign, unsafe.Pointer(&arg))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// SetLimit bounds what the group's subvolumes may refer to, in bytes as they lie on the disk, so compressed.
func SetLimit(root string, id QgroupID, bytes int64) error {
	arg := struct {
		id, flags, maxReferenced, maxExclusive, reservedReferenced, reservedExclusive uint64
	}{id: uint64(id), flags: 1, maxReferenced: uint64(bytes)} // BTRFS_QGROUP_LIMIT_MAX_RFER
	return ioctl(root, "limit quota group", qgroupLimit, unsafe.Pointer(&arg))
}

// SubvolumeID is the id of the subvolume that path is the root of.
func SubvolumeID(path string) (QgroupID, error) {
	arg := struct {
		tree, object uint64
		name         [4080]byte
	}{object: firstFreeObjectID}
	err := ioctl(path, "find subvolume", inoLookup, unsafe.Pointer(&arg))
	return QgroupID(arg.tree), err
}

// Usage returns what a group's subvolumes refer to, and how much they may, 0 for no limit. Counts are those of the last
// transaction, which is 30 s ago at most.
func Usage(root string, id QgroupID) (used, limit int64, err error) {
	if used, err = readQgroup(root, id.String(), "referenced"); err != nil {
		return 0, 0, err
	}
	limit, err = readQgroup(root, id.String(), "max_referenced")
	return used, limit, err
}

// readQgroup reads a number of /sys/fs/btrfs/UUID/qgroups/, for the file system that root is in.
func readQgroup(root string, name ...string) (int64, error) {
	var info struct {
		devices, count uint64
		uuid           [16]byte
		rest           [1024 - 32]byte
	}
	if err := ioctl(root, "get file system", fsInfo, unsafe.Pointer(&info)); err != nil {
		return 0, err
	}
	u := hex.EncodeToString(info.uuid[:])
	uuid := strings.Join([]string{u[:8], u[8:12], u[12:16], u[16:20], u[20:]}, "-")
	b, err := os.ReadFile(filepath.Join(append([]string{"/sys/fs/btrfs", uuid, "qgroups"}, name...)...))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}
