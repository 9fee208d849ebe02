package qemutests

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"allotment/qemu-tests/vm"
)

// physicalSector is what today's disks write as a whole, in bytes, and what btrfs counts on for its superblocks.
const physicalSector = 4096

// TestPowerCutsInTheFirstBoot rebuilds the disk as power cuts at different times of the first boot leave it, with writes
// after the last flush that are missing, torn or out of order. The next boot must come up on each.
func TestPowerCutsInTheFirstBoot(t *testing.T) {
	powerCuts(t, 2)
}

func TestManyPowerCutsInTheFirstBoot(t *testing.T) {
	full(t)
	powerCuts(t, 24)
}

// writes is the recording of the first boot.
func (r *recording) writes(t *testing.T) *vm.WriteLog {
	t.Helper()
	f, err := os.Open(r.log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	log, err := vm.ReadWriteLog(f)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func powerCuts(t *testing.T, count int) {
	b, first := firstBoot(t)
	log := first.writes(t)
	flushes := log.Flushes()
	t.Logf("the first boot flushed %d times", flushes)
	if flushes < 10 {
		t.Fatalf("%d flushes: too few for a first boot that syncs what it copies", flushes)
	}
	for i := range count {
		after := flushes * (i + 1) / (count + 1)
		t.Run(fmt.Sprintf("after flush %d", after), func(t *testing.T) {
			disk := filepath.Join(t.TempDir(), "cut.raw")
			if err := cutDisk(b.raw, disk, log, after); err != nil {
				t.Fatal(err)
			}
			m := b.boot(t, vm.Options{Firmware: vm.UEFI, Disk: disk})
			b.mustServe(t, m)
			b.mustShutDown(t, m)
		})
	}
}

// cutDisk makes the disk that a power cut after a flush leaves. The same flush gives the same disk.
func cutDisk(raw, to string, log *vm.WriteLog, flush int) error {
	if err := vm.CopySparse(raw, to); err != nil {
		return err
	}
	disk, err := os.OpenFile(to, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer disk.Close()
	if err := disk.Truncate(diskSize); err != nil {
		return err
	}
	if err := log.Replay(disk, 0, flush); err != nil {
		return err
	}
	if err := log.Cut(disk, flush, physicalSector, rand.New(rand.NewPCG(1, uint64(flush)))); err != nil {
		return err
	}
	return disk.Close()
}

// TestStateIsSoundAfterEveryCut has btrfs judge the state file system as it was at each flush of the first boot, and as a
// cut before the next flush may leave it. A disk that tears in units of 512 bytes may tear a superblock of 4096, and even
// all that are written between two flushes, which btrfs does not promise to survive; everything else must be sound there too.
func TestStateIsSoundAfterEveryCut(t *testing.T) {
	b, first := firstBoot(t)
	log := first.writes(t)
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole")
	place := b.parts["state"]
	if err := copyPart(b.raw, place, whole); err != nil {
		t.Fatal(err)
	}
	place.size = diskSize - place.start
	if err := os.Truncate(whole, place.size); err != nil {
		t.Fatal(err)
	}
	judged, torn := 0, 0
	for n := 1; n <= log.Flushes(); n++ {
		if err := onPart(whole, place, func(w partWriter) error { return log.Replay(w, n-1, n) }); err != nil {
			t.Fatal(err)
		}
		magic := make([]byte, 8)
		readAt(t, whole, magic, 0x10040) // of the first superblock
		if string(magic) != "_BHRfS_M" {
			continue // before mkfs has finished there is nothing to judge
		}
		judged++
		if said := b.unsound(t, whole, "0"); said != "" {
			t.Errorf("flush %d %s", n, said)
		}
		for _, atomic := range []int64{512, physicalSector} {
			cut := filepath.Join(dir, "cut")
			if err := vm.CopySparse(whole, cut); err != nil {
				t.Fatal(err)
			}
			random := rand.New(rand.NewPCG(2, uint64(n)))
			if err := onPart(cut, place, func(w partWriter) error { return log.Cut(w, n, atomic, random) }); err != nil {
				t.Fatal(err)
			}
			supers := []string{"0"}
			if atomic < physicalSector {
				supers = append(supers, "1")
			}
			said := b.unsound(t, cut, supers...)
			if atomic < physicalSector && strings.Contains(said, tornSuperblock) {
				torn++
				continue
			}
			if said != "" {
				t.Errorf("cut after flush %d, %d bytes atomic, %s", n, atomic, said)
			}
		}
	}
	t.Logf("judged %d of %d flushes; at %d a cut tore all superblocks", judged, log.Flushes(), torn)
	if judged-torn < 5 {
		t.Errorf("the file system could be judged at %d flushes only", judged-torn)
	}
	if err := vm.FlipByte(whole, 0x10050); err != nil { // in the first superblock
		t.Fatal(err)
	}
	if b.unsound(t, whole, "0") == "" || b.unsound(t, whole, "0", "1") != "" {
		t.Error("btrfs check does not notice a damaged superblock, or not that the second is good")
	}
}

// tornSuperblock is what btrfs check says of a superblock that is there in part.
const tornSuperblock = "superblock checksum mismatch"

// unsound is what btrfs check says against a state file system, going by these superblocks; "" where one is good.
func (b *built) unsound(t *testing.T, file string, supers ...string) string {
	t.Helper()
	var said []byte
	for _, super := range supers {
		var err error
		if said, err = b.tools.Command(t.Context(), "btrfs", "check", "--readonly", "-s", super, file).CombinedOutput(); err == nil {
			return ""
		}
	}
	return fmt.Sprintf("by superblocks %v: %s", supers, said)
}

// partWriter takes the writes of a disk and keeps those of one partition.
type partWriter struct {
	file  *os.File
	place partition
}

func (w partWriter) WriteAt(p []byte, at int64) (int, error) {
	if at < w.place.start || at+int64(len(p)) > w.place.start+w.place.size {
		return len(p), nil
	}
	return w.file.WriteAt(p, at-w.place.start)
}

// onPart opens a partition's file for do.
func onPart(file string, place partition, do func(partWriter) error) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := do(partWriter{f, place}); err != nil {
		return err
	}
	return f.Close()
}
