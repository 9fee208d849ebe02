package state

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of linux/btrfs.h about quota groups. Full ones are used, as simple ones forget whom data belongs to once a
// volume is exchanged with its snapshot.
const (
	btrfsInoLookup       = 0xd0009412 // BTRFS_IOC_INO_LOOKUP
	btrfsFSInfo          = 0x8400941f // BTRFS_IOC_FS_INFO
	btrfsQuotaCtl        = 0xc0109428 // BTRFS_IOC_QUOTA_CTL
	btrfsQgroupAssign    = 0x40189429 // BTRFS_IOC_QGROUP_ASSIGN
	btrfsQgroupCreate    = 0x4010942a // BTRFS_IOC_QGROUP_CREATE
	btrfsQgroupLimit     = 0x8030942b // BTRFS_IOC_QGROUP_LIMIT
	btrfsQuotaRescan     = 0x4040942c // BTRFS_IOC_QUOTA_RESCAN
	btrfsQuotaRescanWait = 0x942e     // BTRFS_IOC_QUOTA_RESCAN_WAIT
)

// qgroupID is the id of a quota group: that of a subvolume is the subvolume's; others have a level in the upper 16 bits.
type qgroupID uint64

// allVolumes is the group of all volumes together.
const allVolumes qgroupID = 1<<48 | 1

// String is the id as the kernel's /sys/fs/btrfs names it.
func (q qgroupID) String() string { return fmt.Sprintf("%d_%d", uint64(q)>>48, uint64(q)&(1<<48-1)) }

// enableQuota makes btrfs count what each subvolume takes, and have a group for all volumes. What was there before is
// counted first; where a cut has left the counts doubtful, they are counted again, while the box goes on.
func enableQuota(root string) error {
	enable := struct{ cmd, status uint64 }{cmd: 1} // BTRFS_QUOTA_CTL_ENABLE; nothing happens if it was done before
	if err := ioctl(root, "enable quota", btrfsQuotaCtl, unsafe.Pointer(&enable)); err != nil {
		return err
	}
	doubtful, err := readQgroups(root, "inconsistent")
	if err != nil {
		return err
	}
	if doubtful != 0 {
		var rescan [8]uint64
		err := ioctl(root, "count quota again", btrfsQuotaRescan, unsafe.Pointer(&rescan))
		if err != nil && !errors.Is(err, unix.EINPROGRESS) {
			return err
		}
	}
	create := struct{ create, id uint64 }{1, uint64(allVolumes)}
	err = ioctl(root, "create quota group", btrfsQgroupCreate, unsafe.Pointer(&create))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// assign puts the subvolume's group below that of all volumes. What the subvolume holds must be its own alone.
func assign(root string, id qgroupID) error {
	arg := struct{ assign, src, dst uint64 }{1, uint64(id), uint64(allVolumes)}
	err := ioctl(root, "assign quota group", btrfsQgroupAssign, unsafe.Pointer(&arg))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// setLimit bounds what the group's subvolumes may refer to, in bytes as they lie on the disk, so compressed.
func setLimit(root string, id qgroupID, bytes int64) error {
	arg := struct {
		id, flags, maxReferenced, maxExclusive, reservedReferenced, reservedExclusive uint64
	}{id: uint64(id), flags: 1, maxReferenced: uint64(bytes)} // BTRFS_QGROUP_LIMIT_MAX_RFER
	return ioctl(root, "limit quota group", btrfsQgroupLimit, unsafe.Pointer(&arg))
}

// subvolumeID is the id of the subvolume that path is the root of.
func subvolumeID(path string) (qgroupID, error) {
	arg := struct {
		tree, object uint64
		name         [4080]byte
	}{object: 256} // BTRFS_FIRST_FREE_OBJECTID
	err := ioctl(path, "find subvolume", btrfsInoLookup, unsafe.Pointer(&arg))
	return qgroupID(arg.tree), err
}

// readQgroups reads a number of /sys/fs/btrfs/UUID/qgroups/, for the file system that root is in. Counts are those of
// the last transaction, which is 30 s ago at most.
func readQgroups(root string, name ...string) (int64, error) {
	var info struct {
		devices, count uint64
		uuid           [16]byte
		rest           [1024 - 32]byte
	}
	if err := ioctl(root, "get file system", btrfsFSInfo, unsafe.Pointer(&info)); err != nil {
		return 0, err
	}
	u := hex.EncodeToString(info.uuid[:])
	uuid := strings.Join([]string{u[:8], u[8:12], u[12:16], u[16:20], u[20:]}, "-")
	return readNumber(filepath.Join(append([]string{"/sys/fs/btrfs", uuid, "qgroups"}, name...)...))
}

// Usage is what a volume takes of what it may, in bytes as they lie on the disk, so compressed.
type Usage struct{ Used, Limit int64 }

// Near tells whether the volume will be full soon: nine tenths are used. When it is full, writing to it fails with EDQUOT
// ("disk quota exceeded"); deleting still works.
func (u Usage) Near() bool { return u.Limit > 0 && u.Used >= u.Limit/10*9 }

// Usage returns what a module's volume takes. It is cheap, and what was written in the last 30 s may be missing.
func (s *Store) Usage(module, volume string) (Usage, error) {
	id, err := subvolumeID(s.volumePath(module, volume))
	if err != nil {
		return Usage{}, err
	}
	return s.usage(id)
}

func (s *Store) usage(id qgroupID) (u Usage, err error) {
	if u.Used, err = readQgroups(s.Root, id.String(), "referenced"); err != nil {
		return Usage{}, err
	}
	u.Limit, err = readQgroups(s.Root, id.String(), "max_referenced")
	return u, err
}

// Disk is the state partition's file system, in bytes. Free is what new files can take.
type Disk struct{ Total, Free int64 }

// Disk returns how full the state partition is.
func (s *Store) Disk() (Disk, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.Root, &st); err != nil {
		return Disk{}, &os.PathError{Op: "statfs", Path: s.Root, Err: err}
	}
	return Disk{Total: int64(st.Blocks) * st.Bsize, Free: int64(st.Bavail) * st.Bsize}, nil
}

// minReserve is the least that the volumes together leave to the system, in bytes: for its settings, secrets and logs,
// and for what btrfs needs to delete anything.
const minReserve = 256 << 20

// limitVolumes bounds all volumes together, whose own limits may add up to more than there is, so that the system can
// still write when modules have filled what they may.
func (s *Store) limitVolumes() error {
	disk, err := s.Disk()
	if err != nil {
		return err
	}
	volumes, err := s.usage(allVolumes)
	if err != nil {
		return err
	}
	return setLimit(s.Root, allVolumes, volumeShare(disk, volumes.Used))
}

// volumeShare is what volumes may take that take used now.
func volumeShare(d Disk, used int64) int64 {
	others := d.Total - d.Free - used
	return max(d.Total-others-max(d.Total/10, minReserve), d.Total/10)
}
