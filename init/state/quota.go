package state

import (
	"os"

	"golang.org/x/sys/unix"

	"allotment/init/state/btrfs"
)

// Usage is what a volume takes of what it may, in bytes as they lie on the disk, so compressed.
type Usage struct{ Used, Limit int64 }

// Near tells whether the volume will be full soon: nine tenths are used. When it is full, writing to it fails with EDQUOT
// ("disk quota exceeded"); deleting still works.
func (u Usage) Near() bool { return u.Limit > 0 && u.Used >= u.Limit/10*9 }

// Usage returns what a module's volume takes. It is cheap, and what was written in the last 30 s may be missing.
func (s *Store) Usage(module, volume string) (Usage, error) {
	id, err := btrfs.SubvolumeID(s.volumePath(module, volume))
	if err != nil {
		return Usage{}, err
	}
	return s.usage(id)
}

func (s *Store) usage(id btrfs.QgroupID) (u Usage, err error) {
	u.Used, u.Limit, err = btrfs.Usage(s.Root, id)
	return u, err
}

// Disk is the state partition's file system, in bytes.
type Disk struct {
	Total, Free int64 // Free is what new files can take
	Volumes     Usage // of all volumes together, which leave a rest to the system
}

// Disk returns how full the state partition is. What was written to volumes in the last 30 s may be missing in theirs.
func (s *Store) Disk() (Disk, error) {
	volumes, err := s.usage(btrfs.AllVolumes)
	if err != nil {
		return Disk{}, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.Root, &st); err != nil {
		return Disk{}, &os.PathError{Op: "statfs", Path: s.Root, Err: err}
	}
	return Disk{Total: int64(st.Blocks) * st.Bsize, Free: int64(st.Bavail) * st.Bsize, Volumes: volumes}, nil
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
	return btrfs.SetLimit(s.Root, btrfs.AllVolumes, volumeShare(disk))
}

// volumeShare is what all volumes together may take.
func volumeShare(d Disk) int64 {
	others := d.Total - d.Free - d.Volumes.Used
	return max(d.Total-others-max(d.Total/10, minReserve), d.Total/10)
}
