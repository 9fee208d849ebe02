package state

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"allotment/init/plan"
	"allotment/init/state/btrfs"
	"allotment/init/state/btrfs/btrfstest"
)

// onBtrfs runs the body with a store on a btrfs of 512 MiB of its own. It skips the test where the machine cannot do that.
func onBtrfs(t *testing.T, body func(s *Store)) {
	t.Helper()
	s := store(t, nil)
	btrfstest.Run(t, btrfstest.Make(t), s.Root, func() { body(s) })
}

// fillUp writes bytes that cannot be compressed, and returns how many were taken.
func fillUp(path string, most int) (int, error) {
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	source := rand.NewChaCha8([32]byte{})
	block := make([]byte, 256<<10)
	for n := 0; n < most; n += len(block) {
		source.Read(block)
		if _, err := f.Write(block); err != nil {
			return n, err
		}
	}
	return most, f.Sync()
}

func TestVolumeIsLimited(t *testing.T) {
	onBtrfs(t, func(s *Store) {
		if err := errors.Join(btrfs.EnableQuota(s.Root), btrfs.EnableQuota(s.Root), s.limitVolumes()); err != nil {
			t.Error(err)
			return
		}
		v := plan.Volume{Name: "db", UID: 33, GID: 34, Quota: 16 << 20}
		path, err := s.Volume("web", v)
		if err != nil {
			t.Error(err)
			return
		}
		n, err := fillUp(filepath.Join(path, "a"), 20<<20)
		if !errors.Is(err, unix.EDQUOT) || n < 15<<20 {
			t.Errorf("wrote %d bytes: %v", n, err)
		}
		if err := btrfs.Sync(s.Root); err != nil {
			t.Error(err)
		}
		u, err := s.Usage("web", "db")
		if err != nil || u.Limit != 16<<20 || u.Used < 15<<20 || !u.Near() {
			t.Errorf("usage is %+v, %v", u, err)
		}
		// The next release grants more, to what is there.
		v.Quota = 32 << 20
		if _, err := s.Volume("web", v); err != nil {
			t.Error(err)
		}
		if n, err := fillUp(filepath.Join(path, "b"), 8<<20); err != nil {
			t.Errorf("with more granted, wrote %d bytes: %v", n, err)
		}
		// Deleting works in a full volume, and gives its room back.
		v.Quota = 16 << 20
		if _, err := s.Volume("web", v); err != nil {
			t.Error(err)
		}
		if err := errors.Join(os.Remove(filepath.Join(path, "a")), btrfs.Sync(s.Root)); err != nil {
			t.Error(err)
		}
		if u, err := s.Usage("web", "db"); err != nil || u.Used > 9<<20 || u.Near() {
			t.Errorf("usage is %+v, %v", u, err)
		}
	})
}

// Without quota nothing holds a volume back: what the test above sees is the limit.
func TestVolumeWithoutQuotaIsNotLimited(t *testing.T) {
	onBtrfs(t, func(s *Store) {
		path := filepath.Join(s.Root, "db")
		if err := btrfs.CreateSubvolume(path); err != nil {
			t.Error(err)
			return
		}
		if n, err := fillUp(filepath.Join(path, "a"), 20<<20); err != nil {
			t.Errorf("wrote %d bytes: %v", n, err)
		}
	})
}

func TestVolumesLeaveRoomForTheSystem(t *testing.T) {
	onBtrfs(t, func(s *Store) {
		if err := errors.Join(btrfs.EnableQuota(s.Root), s.limitVolumes()); err != nil {
			t.Error(err)
			return
		}
		var total int
		for i := range 3 { // each may take all of the disk
			path, err := s.Volume("m", plan.Volume{Name: fmt.Sprint("v", i), Quota: 1 << 30})
			if err != nil {
				t.Error(err)
				return
			}
			n, err := fillUp(filepath.Join(path, "a"), 200<<20)
			if total += n; err == nil {
				continue
			}
			if !errors.Is(err, unix.EDQUOT) {
				t.Errorf("after %d bytes: %v", total, err)
			}
		}
		if total > 300<<20 || total < 150<<20 {
			t.Errorf("volumes took %d bytes of 512 MiB", total)
		}
		if n, err := fillUp(filepath.Join(s.Root, "system"), 32<<20); err != nil {
			t.Errorf("the system wrote %d bytes: %v", n, err)
		}
		// The next boot must not take what volumes hold for the system's.
		before, err := s.usage(btrfs.AllVolumes)
		if err := errors.Join(err, s.limitVolumes()); err != nil {
			t.Error(err)
		}
		if after, err := s.usage(btrfs.AllVolumes); err != nil || max(after.Limit-before.Limit, before.Limit-after.Limit) > 48<<20 {
			t.Errorf("the limit went from %d to %d, %v", before.Limit, after.Limit, err)
		}
	})
}

func TestVolumeLooks(t *testing.T) {
	onBtrfs(t, func(s *Store) {
		if err := btrfs.EnableQuota(s.Root); err != nil {
			t.Error(err)
			return
		}
		v := plan.Volume{Name: "db", UID: 33, GID: 34, Quota: 16 << 20, NoCOW: true}
		for range 2 { // the second time it is there
			path, err := s.Volume("web", v)
			if err != nil {
				t.Error(err)
				return
			}
			var st unix.Stat_t
			if err := unix.Stat(path, &st); err != nil || st.Uid != 33 || st.Gid != 34 || st.Mode != unix.S_IFDIR|0o750 {
				t.Errorf("it is %o of %d and %d, %v", st.Mode, st.Uid, st.Gid, err)
			}
			file := filepath.Join(path, "ibdata1")
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Error(err)
			}
			if got, err := btrfs.NoCOW(file); err != nil || got != v.NoCOW {
				t.Errorf("no-cow of a file is %t, %v, want %t", got, err, v.NoCOW)
			}
			v.NoCOW = false // by the next release
			if err := os.Remove(file); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestVolumeFormat(t *testing.T) {
	onBtrfs(t, func(s *Store) {
		if err := btrfs.EnableQuota(s.Root); err != nil {
			t.Error(err)
			return
		}
		if _, err := s.Format("web", "db"); !errors.Is(err, unix.ENOENT) {
			t.Errorf("format of no volume: %v", err)
		}
		path, err := s.Volume("web", plan.Volume{Name: "db", Quota: 16 << 20})
		if err != nil {
			t.Error(err)
			return
		}
		for want := range 3 {
			if got, err := s.Format("web", "db"); err != nil || got != want {
				t.Errorf("got %d, %v, want %d", got, err, want)
			}
			if err := s.SetFormat("web", "db", want+1); err != nil {
				t.Error(err)
			}
		}
		if err := unix.Setxattr(path, formatAttribute, []byte("x"), 0); err != nil {
			t.Error(err)
		}
		if got, err := s.Format("web", "db"); err == nil {
			t.Errorf("read a damaged format as %d", got)
		}
	})
}

func TestDisk(t *testing.T) {
	onBtrfs(t, func(s *Store) {
		if err := errors.Join(btrfs.EnableQuota(s.Root), s.limitVolumes()); err != nil {
			t.Fatal(err)
		}
		d, err := s.Disk()
		if err != nil || d.Total != 512<<20 || d.Free <= 0 || d.Free > d.Total || d.Volumes.Limit <= 0 {
			t.Errorf("got %+v, %v", d, err)
		}
	})
}

func TestVolumeShare(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		disk Disk
		want int64
	}{
		{Disk{20 * gib, 18 * gib, Usage{}}, 16 * gib},
		{Disk{20 * gib, 8 * gib, Usage{Used: 10 * gib}}, 16 * gib},
		{Disk{2 * gib, 1 * gib, Usage{}}, gib - minReserve},
		{Disk{1 * gib, 0, Usage{}}, gib / 10}, // full of something else: still some
	} {
		if got := volumeShare(c.disk); got != c.want {
			t.Errorf("%+v: got %d, want %d", c.disk, got, c.want)
		}
	}
}

// What a module could do if its containers might use btrfs' own requests: this is why init/container forbids them.
func TestSubvolumesEscapeTheLimit(t *testing.T) {
	onBtrfs(t, func(s *Store) {
		if err := btrfs.EnableQuota(s.Root); err != nil {
			t.Error(err)
			return
		}
		path, err := s.Volume("web", plan.Volume{Name: "db", Quota: 16 << 20})
		if err == nil {
			err = btrfs.CreateSubvolume(filepath.Join(path, "mine"))
		}
		if err != nil {
			t.Error(err)
			return
		}
		if n, err := fillUp(filepath.Join(path, "mine", "a"), 20<<20); err != nil {
			t.Errorf("after %d bytes: %v; if btrfs counts nested subvolumes now, init/container can allow them", n, err)
		}
	})
}
