package boot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"allotment/image"
	"allotment/image/verity"
)

func TestFactsRoundTrip(t *testing.T) {
	want := Facts{Slot: image.SlotB, RootHash: verity.RootHash{1, 2, 31: 3}, Disk: "/dev/nvme0n1", Trial: true}
	env := map[string]string{}
	for _, entry := range want.Environ() {
		k, v, _ := strings.Cut(entry, "=")
		env[k] = v
	}
	got, err := ParseFacts(func(k string) string { return env[k] })
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if _, err := ParseFacts(func(string) string { return "" }); err == nil {
		t.Error("took an empty environment")
	}
}

func TestParameter(t *testing.T) {
	const line = "BOOT_IMAGE=/vmlinuz roothash=ab roothash=cd quiet console=tty0 -- allotment.trial=yes\n"
	for name, want := range map[string]string{"roothash": "ab", "console": "tty0", "quiet": "", "allotment.trial": "", "hash": ""} {
		if got, _ := parameter(line, name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestFailLine(t *testing.T) {
	err := at("root", fmt.Errorf("cannot read:\nline two\r\x1b[2J %w", io.EOF))
	if got, want := failLine(err), "BOOT-FAIL stage=root reason=cannot read: line two  [2J EOF"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := failLine(io.EOF); got != "BOOT-FAIL stage=unknown reason=EOF" {
		t.Errorf("got %q", got)
	}
	if !errors.Is(err, io.EOF) || at("root", nil) != nil {
		t.Error("at loses what it wraps")
	}
}

// fakeDisks is /sys/class/block and /dev with disks of named partitions. Contents are the devices' first bytes.
func fakeDisks(t *testing.T, disks map[string]map[string][]byte) (class, devices string) {
	t.Helper()
	root := t.TempDir()
	class, devices = filepath.Join(root, "class"), filepath.Join(root, "dev")
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(class, 0o755))
	must(os.Mkdir(devices, 0o755))
	for disk, parts := range disks {
		n := 0
		for name, content := range parts {
			n++
			device := fmt.Sprintf("%sp%d", disk, n)
			real := filepath.Join(root, "devices", disk, device)
			must(os.MkdirAll(real, 0o755))
			must(os.WriteFile(filepath.Join(real, "uevent"), []byte("DEVTYPE=partition\nPARTNAME="+name+"\n"), 0o644))
			must(os.Symlink("../devices/"+disk+"/"+device, filepath.Join(class, device)))
			must(os.WriteFile(filepath.Join(devices, device), content, 0o644))
		}
		must(os.Symlink("../devices/"+disk, filepath.Join(class, disk)))
	}
	return class, devices
}

// hashDevice is the verity device for some data, and its root hash.
func hashDevice(t *testing.T, data string) ([]byte, verity.RootHash) {
	t.Helper()
	data += strings.Repeat("\x00", 8192-len(data))
	var b strings.Builder
	hash, err := verity.Format(strings.NewReader(data), 8192, &b)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(b.String()), hash
}

func TestFindRoot(t *testing.T) {
	old, oldHash := hashDevice(t, "old")
	fresh, freshHash := hashDevice(t, "fresh")
	_, otherHash := hashDevice(t, "other")
	class, devices := fakeDisks(t, map[string]map[string][]byte{
		"vda": {"root-a": nil, "verity-a": old, "root-b": nil, "verity-b": fresh, "state": nil},
		"vdb": {"root-a": nil, "verity-a": make([]byte, 4096)}, // an empty slot of another disk
		"vdc": {"verity-c": fresh, "data": nil},
	})
	for hash, slot := range map[verity.RootHash]image.Slot{oldHash: image.SlotA, freshHash: image.SlotB} {
		r, err := findRoot(class, devices, hash)
		if err != nil || r == nil {
			t.Fatalf("slot %s: got %v, %v", slot, r, err)
		}
		if r.slot != slot || r.disk != filepath.Join(devices, "vda") || r.super.UUID != hash.HashUUID() {
			t.Errorf("got %+v, want slot %s on vda", r, slot)
		}
		for device, name := range map[string]string{r.data: "root-" + string(slot), r.hash: "verity-" + string(slot)} {
			b, err := os.ReadFile(filepath.Join(class, filepath.Base(device), "uevent"))
			if err != nil || !strings.Contains(string(b), "PARTNAME="+name+"\n") {
				t.Errorf("%s is not %s: %s, %v", device, name, b, err)
			}
		}
	}
	if r, err := findRoot(class, devices, otherHash); r != nil || err != nil {
		t.Errorf("found %+v, %v for a hash that is nowhere", r, err)
	}
	// The data partition has to be on the same disk.
	class, devices = fakeDisks(t, map[string]map[string][]byte{"vda": {"verity-a": old}, "vdb": {"root-a": nil}})
	if r, err := findRoot(class, devices, oldHash); r != nil || err != nil {
		t.Errorf("paired partitions of two disks: %+v, %v", r, err)
	}
}

func TestKeeper(t *testing.T) {
	boot := time.Now()
	after := func(seconds int) time.Time { return boot.Add(time.Duration(seconds) * time.Second) }
	k := keeper{lastBeat: boot}
	k.started(after(0))
	if !k.feeds(after(29)) || k.feeds(after(30)) || k.silent(after(29)) || !k.silent(after(30)) {
		t.Error("a supervisor that never answers is not told from one that will")
	}
	k.beat(1, after(20))
	if !k.feeds(after(49)) || k.silent(after(49)) || !k.silent(after(50)) {
		t.Error("an answer does not count for 30 s")
	}
	// A second one gets its time, but feeds the watchdog only once it answers.
	k.started(after(60))
	if k.feeds(after(61)) || k.silent(after(61)) || !k.silent(after(90)) {
		t.Error("starting counts as answering")
	}
}

func TestKeeperCountsCrashes(t *testing.T) {
	var k keeper
	now := time.Now()
	for i, want := range []int{1, 2, 4, 8, 16, 30, 30, 30, 30} {
		wait, ok := k.crashed(now)
		if !ok || wait != time.Duration(want)*time.Second {
			t.Errorf("crash %d: got %v, %v, want %d s", i+1, wait, ok, want)
		}
	}
	if _, ok := k.crashed(now.Add(crashWindow - 1)); ok {
		t.Error("ten crashes in ten minutes are no reason to give up")
	}
	if wait, ok := k.crashed(now.Add(crashWindow + time.Second)); !ok || wait != 2*time.Second {
		t.Errorf("old crashes are not forgotten: %v, %v", wait, ok)
	}
}

func TestMountPoints(t *testing.T) {
	const mountinfo = `21 1 254:0 / / ro,relatime - erofs /dev/dm-0 ro
22 21 0:20 / /proc rw - proc proc rw
23 21 0:21 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
24 21 0:22 / /run rw - tmpfs tmpfs rw
25 21 0:30 / /state rw - btrfs /dev/vda7 rw
26 24 0:31 / /run/with\040space\134 rw - overlay overlay rw
27 21 0:5 / /dev/shm rw - tmpfs tmpfs rw
short line
`
	want := []string{"/run", "/state", `/run/with space\`}
	if got := mountPoints(strings.NewReader(mountinfo)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEnableControllers(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"cgroup.controllers": "cpuset cpu io memory hugetlb pids\n", "cgroup.subtree_control": "",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := enableControllers(root); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(root, "cgroup.controllers"), []byte("cpu cpuset io pids\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := enableControllers(root); err == nil || !strings.Contains(err.Error(), `"memory"`) {
		t.Errorf("got %v", err)
	}
}

func FuzzMountPoints(f *testing.F) {
	f.Add(`26 24 0:31 / /run/with\040space\134 rw - overlay overlay rw`)
	f.Fuzz(func(_ *testing.T, s string) { mountPoints(strings.NewReader(s)) })
}

// A supervisor that dies while it ends the box has said before what was asked for.
func TestKeeperKnowsTheEnd(t *testing.T) {
	for said, want := range map[string]int{
		"\x01\x01": 0, "\x01o": unix.LINUX_REBOOT_CMD_POWER_OFF, "\x01r": unix.LINUX_REBOOT_CMD_RESTART,
		"o\x01": unix.LINUX_REBOOT_CMD_POWER_OFF, // nobody takes it back
	} {
		var k keeper
		for _, b := range []byte(said) {
			k.beat(b, time.Now())
		}
		if k.end != want {
			t.Errorf("after %q: %#x", said, k.end)
		}
	}
}
