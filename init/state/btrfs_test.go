package state

import (
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"allotment/init/plan"
)

// onBtrfs runs the body with a store on a btrfs of 512 MiB of its own, mounted in a thread of its own. It skips the test
// where the machine cannot do that. testdata/empty.btrfs.bz2 is what
//
//	truncate -s 512M x; mkfs.btrfs -L state -U 00000000-0000-4000-8000-000000000001 x; bzip2 -9 x
//
// makes.
func onBtrfs(t *testing.T, body func(s *Store)) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	file := filepath.Join(t.TempDir(), "btrfs")
	if err := unpack(file); err != nil {
		t.Fatal(err)
	}
	s := store(t, nil)
	done := make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends and its mounts with it
		if err := mountFile(file, s.Root); err != nil {
			done <- err
			return
		}
		body(s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := <-done; errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
		t.Skipf("this machine cannot mount btrfs: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
}

// blocks are the image's blocks of 64 KiB that are not zero, by their places, and its size.
var blocks = sync.OnceValues(func() (map[int64][]byte, int64) {
	in, err := os.Open("testdata/empty.btrfs.bz2")
	if err != nil {
		panic(err)
	}
	defer in.Close()
	all, zero := map[int64][]byte{}, make([]byte, 64<<10)
	r := bzip2.NewReader(in)
	for at := int64(0); ; at += int64(len(zero)) {
		block := make([]byte, len(zero))
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

func unpack(file string) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	all, size := blocks()
	for at, b := range all {
		if _, err := out.WriteAt(b, at); err != nil {
			return err
		}
	}
	return out.Truncate(size)
}

// mountFile mounts the image through a loop device that goes away with the mount.
func mountFile(file, root string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	image, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer image.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return err
		}
		name := "/dev/loop" + strconv.Itoa(n)
		loop, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		config := unix.LoopConfig{Fd: uint32(image.Fd())}
		config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		if errors.Is(err, unix.EBUSY) { // somebody else took it
			loop.Close()
			continue
		}
		if err == nil {
			err = unix.Mount(name, root, "btrfs", unix.MS_NOATIME, "compress=zstd:3")
		}
		return errors.Join(err, loop.Close())
	}
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
		if err := errors.Join(enableQuota(s.Root), enableQuota(s.Root), s.limitVolumes()); err != nil {
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
		if err := syncFS(s.Root); err != nil {
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
		if err := errors.Join(os.Remove(filepath.Join(path, "a")), syncFS(s.Root)); err != nil {
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
		if err := createSubvolume(path); err != nil {
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
		if err := errors.Join(enableQuota(s.Root), s.limitVolumes()); err != nil {
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
		before, err := s.usage(allVolumes)
		if err := errors.Join(err, s.limitVolumes()); err != nil {
			t.Error(err)
		}
		if after, err := s.usage(allVolumes); err != nil || max(after.Limit-before.Limit, before.Limit-after.Limit) > 48<<20 {
			t.Errorf("the limit went from %d to %d, %v", before.Limit, after.Limit, err)
		}
	})
}

func TestVolumeLooks(t *testing.T) {
	onBtrfs(t, func(s *Store) {
		if err := enableQuota(s.Root); err != nil {
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
			var flags int32
			err = ioctl(file, "get flags", unix.FS_IOC_GETFLAGS, unsafe.Pointer(&flags))
			if err != nil || (flags&noCOWFlag != 0) != v.NoCOW {
				t.Errorf("flags of a file are %x, %v, want no-cow %t", flags, err, v.NoCOW)
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
		if err := enableQuota(s.Root); err != nil {
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
		d, err := s.Disk()
		if err != nil || d.Total != 512<<20 || d.Free <= 0 || d.Free > d.Total {
			t.Errorf("got %+v, %v", d, err)
		}
	})
}

func TestVolumeShare(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		disk Disk
		used int64
		want int64
	}{
		{Disk{20 * gib, 18 * gib}, 0, 16 * gib},
		{Disk{20 * gib, 8 * gib}, 10 * gib, 16 * gib},
		{Disk{2 * gib, 1 * gib}, 0, gib - minReserve},
		{Disk{1 * gib, 0}, 0, gib / 10}, // full of something else: still some
	} {
		if got := volumeShare(c.disk, c.used); got != c.want {
			t.Errorf("%+v with %d used: got %d, want %d", c.disk, c.used, got, c.want)
		}
	}
}

// What a module could do if its containers might use btrfs' own requests: this is why init/container forbids them.
func TestSubvolumesEscapeTheLimit(t *testing.T) {
	onBtrfs(t, func(s *Store) {
		if err := enableQuota(s.Root); err != nil {
			t.Error(err)
			return
		}
		path, err := s.Volume("web", plan.Volume{Name: "db", Quota: 16 << 20})
		if err == nil {
			err = createSubvolume(filepath.Join(path, "mine"))
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
