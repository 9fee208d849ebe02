package qemutests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"allotment/image"
	"allotment/qemu-tests/vm"
)

var started = regexp.MustCompile(`^boot sector started, time (\d)$`)

func TestBootsAndKeepsStateInTheFolderOnly(t *testing.T) {
	tools := toolRoot(t)
	disk, dir := bootDisk(t), t.TempDir()
	before, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1", "2"} {
		m := start(t, vm.Options{Tools: tools, Dir: dir, Firmware: vm.BIOS, Memory: 64, Disk: disk})
		line, err := m.WaitLine(t.Context(), started)
		if err != nil {
			t.Fatal(err)
		}
		if got := started.FindStringSubmatch(line.Text)[1]; got != want {
			t.Errorf("boot %s calls itself boot %s", want, got)
		}
		if line.CPU <= 0 || line.Wall <= 0 {
			t.Errorf("line came at %v, CPU %v: want both above zero", line.Wall, line.CPU)
		}
		if err := m.PowerDown(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	after, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Error("the image was written to")
	}
}

func TestResetBootsAgain(t *testing.T) {
	m := start(t, vm.Options{Firmware: vm.BIOS, Memory: 64, Disk: bootDisk(t)})
	if _, err := m.WaitLine(t.Context(), started); err != nil {
		t.Fatal(err)
	}
	if err := m.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.WaitEvent(t.Context(), "RESET"); err != nil {
		t.Fatal(err)
	}
	line, err := m.WaitLine(t.Context(), started)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(line.Text, "2") {
		t.Errorf("after a reset: %q", line.Text)
	}
	shot := filepath.Join(t.TempDir(), "screen.png")
	if err := m.Screenshot(t.Context(), shot); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(shot); err != nil || info.Size() == 0 {
		t.Errorf("no screenshot: %v", err)
	}
}

func TestEveryBus(t *testing.T) {
	for _, bus := range []vm.Bus{vm.VirtioBlk, vm.VirtioSCSI, vm.NVMe, vm.AHCI, vm.USB} {
		t.Run(string(bus), func(t *testing.T) {
			m := start(t, vm.Options{Firmware: vm.BIOS, Memory: 64, Disk: bootDisk(t), Bus: bus})
			if _, err := m.WaitLine(t.Context(), started); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestLimitEndsTheMachineAndShowsTheConsole(t *testing.T) {
	m := start(t, vm.Options{Firmware: vm.BIOS, Memory: 64, Disk: bootDisk(t), Limit: 3 * time.Second})
	_, err := m.WaitLine(t.Context(), regexp.MustCompile("never"))
	if !errors.Is(err, vm.ErrLimit) {
		t.Fatalf("error %v: want the limit", err)
	}
	for _, want := range []string{`"never"`, "boot sector started", m.Log()} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
}

func TestPowerDownOfASystemThatDoesNotListen(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "empty.raw")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	m := start(t, vm.Options{Firmware: vm.BIOS, Memory: 64, Disk: disk})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := m.PowerDown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v: want that the time is over", err)
	}
	if _, err := m.Execute(t.Context(), "quit", nil); err != nil {
		t.Fatal(err)
	}
	<-m.Ended()
	if err := m.PowerDown(t.Context()); err == nil {
		t.Fatal("a machine that has ended was powered down")
	}
}

func TestWrongArgumentIsReported(t *testing.T) {
	_, err := vm.Start(t.Context(), vm.Options{Tools: toolRoot(t), Dir: t.TempDir(), Firmware: vm.BIOS, Disk: bootDisk(t),
		Args: []string{"-device", "no-such-device"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-device") {
		t.Fatalf("error %v: want QEMU's own words", err)
	}
}

func TestForwardsAFreePort(t *testing.T) {
	m := start(t, vm.Options{Firmware: vm.BIOS, Memory: 64, Disk: bootDisk(t), Forward: []int{80, 443}})
	if a, b := m.Address(80), m.Address(443); a == b || !strings.HasPrefix(a, "127.0.0.1:") {
		t.Errorf("addresses %q and %q", a, b)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := m.Get(ctx, 80, "/"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v: want that nobody answers", err)
	}
}

func TestFirmwareSpeaksOnTheConsole(t *testing.T) {
	disk := bootDisk(t)
	for _, c := range []struct {
		arch     image.Arch
		firmware vm.Firmware
	}{{image.AMD64, vm.UEFI}, {image.AMD64, vm.UEFISecure}, {image.ARM64, vm.UEFISecure}} {
		t.Run(fmt.Sprintf("%s %s", c.arch, c.firmware), func(t *testing.T) {
			m := start(t, vm.Options{Arch: c.arch, Firmware: c.firmware, Memory: 256, Disk: disk})
			if _, err := m.WaitLine(t.Context(), regexp.MustCompile("BdsDxe")); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestLogOfWritesRebuildsTheDisk(t *testing.T) {
	disk, file := bootDisk(t), filepath.Join(t.TempDir(), "writes.log")
	m := start(t, vm.Options{Firmware: vm.BIOS, Memory: 64, Disk: disk, LogWrites: file})
	if _, err := m.WaitLine(t.Context(), started); err != nil {
		t.Fatal(err)
	}
	if err := m.PowerDown(t.Context()); err != nil {
		t.Fatal(err)
	}
	log, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	l, err := vm.ReadWriteLog(log)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	rebuilt := filepath.Join(t.TempDir(), "rebuilt.raw")
	if err := os.WriteFile(rebuilt, before, 0o644); err != nil {
		t.Fatal(err)
	}
	target, err := os.OpenFile(rebuilt, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if err := l.Replay(target, 0, l.Flushes()); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(rebuilt)
	if err != nil {
		t.Fatal(err)
	}
	before[512] = 1 // all that the boot sector writes
	if !bytes.Equal(before, after) {
		t.Error("the log does not give the disk that the machine left")
	}
}

func TestDiskGrowsAndFlattens(t *testing.T) {
	tools, dir := toolRoot(t), t.TempDir()
	m := start(t, vm.Options{Tools: tools, Dir: dir, Firmware: vm.BIOS, Memory: 64, Disk: bootDisk(t), DiskSize: 3 << 20})
	if _, err := m.WaitLine(t.Context(), started); err != nil {
		t.Fatal(err)
	}
	if err := m.PowerDown(t.Context()); err != nil {
		t.Fatal(err)
	}
	raw := filepath.Join(t.TempDir(), "now.raw")
	if err := vm.Flatten(t.Context(), tools, dir, raw); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(raw)
	if err != nil || len(b) != 3<<20 || b[512] != 1 {
		t.Errorf("%d bytes, boot count %v, error %v", len(b), b[512:513], err)
	}
}
