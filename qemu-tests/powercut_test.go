package qemutests

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"allotment/qemu-tests/vm"
)

// TestPowerCutsInTheFirstBoot rebuilds the disk as power cuts at different times of the first boot leave it, with writes
// after the last flush that are missing, torn or out of order. The next boot must come up on each.
func TestPowerCutsInTheFirstBoot(t *testing.T) {
	powerCuts(t, 3)
}

func TestManyPowerCutsInTheFirstBoot(t *testing.T) {
	full(t)
	powerCuts(t, 24)
}

func powerCuts(t *testing.T, count int) {
	b, first := firstBoot(t)
	f, err := os.Open(first.log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	log, err := vm.ReadWriteLog(f)
	if err != nil {
		t.Fatal(err)
	}
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
	if err := log.Cut(disk, flush, rand.New(rand.NewPCG(1, uint64(flush)))); err != nil {
		return err
	}
	return disk.Close()
}
