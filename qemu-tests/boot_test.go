package qemutests

import (
	"bytes"
	"fmt"
	"regexp"
	"testing"

	"allotment/image"
	"allotment/image/secureboot"
	"allotment/image/secureboot/varstore"
	"allotment/qemu-tests/vm"
)

// diskSize is larger than the image, so that the state partition has to grow.
const diskSize = 4 << 30

var (
	anyOK      = regexp.MustCompile(`BOOT-OK `)
	anyOutcome = regexp.MustCompile(`BOOT-OK |BOOT-FAIL |Kernel panic`)
	secureBoot = regexp.MustCompile(`(?i)secure ?boot:? (is )?enabled`)
)

// boot starts the image.
func (b *built) boot(t *testing.T, o vm.Options) *vm.VM {
	t.Helper()
	o.Tools, o.Arch, o.Forward, o.DiskSize = b.tools, b.arch, []int{80}, diskSize
	if o.Disk == "" {
		o.Disk = b.raw
	}
	if o.Firmware == vm.UEFISecure && o.Vars == "" {
		o.Vars = enrolled(t, b, b.keys)
	}
	return start(t, o)
}

// enrolled makes an EFI variable store whose Secure Boot keys are those of a folder.
func enrolled(t *testing.T, b *built, folder string) string {
	t.Helper()
	keys, err := secureboot.LoadKeys(folder)
	if err != nil {
		t.Fatal(err)
	}
	vars := t.TempDir() + "/enrolled.fd"
	if err := varstore.Enrol(vm.EmptyVars(b.tools, b.arch), vars, keys); err != nil {
		t.Fatal(err)
	}
	return vars
}

// mustServe waits for the line that says that all is well, and for the page.
func (b *built) mustServe(t *testing.T, m *vm.VM) {
	t.Helper()
	line, err := m.WaitLine(t.Context(), anyOutcome)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`BOOT-OK slot=a version=%s trial=no secs=\d+`, regexp.QuoteMeta(string(b.manifest.Version)))
	if !regexp.MustCompile(want).MatchString(line.Text) {
		t.Fatalf("the boot ended with %q, want %s", line.Text, want)
	}
	page, err := m.Get(t.Context(), 80, "/")
	if err != nil {
		t.Fatal(err)
	}
	if !b.page.Match(page.Body) {
		t.Errorf("the page is not the module's file: %s", page.Body)
	}
	style, err := m.Get(t.Context(), 80, "/style.css")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(style.Body, b.style) {
		t.Errorf("the style sheet is not the module's file: %s", style.Body)
	}
	t.Logf("BOOT-OK after %.1f s and %.1f CPU seconds, page after %.1f s and %.1f CPU seconds",
		line.Wall.Seconds(), line.CPU.Seconds(), page.Wall.Seconds(), page.CPU.Seconds())
}

// mustShutDown presses the power button, and looks that the boot ended well just once.
func (b *built) mustShutDown(t *testing.T, m *vm.VM) {
	t.Helper()
	if err := m.PowerDown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(m.Lines(anyOK)); n != 1 {
		t.Errorf("%d BOOT-OK lines, want one", n)
	}
}

func TestBootSecure(t *testing.T) {
	b := minimal(t, image.AMD64)
	m := b.boot(t, vm.Options{Firmware: vm.UEFISecure})
	b.mustServe(t, m)
	if len(m.Lines(secureBoot)) == 0 {
		t.Error("the kernel does not say that Secure Boot is enabled")
	}
	logMemory(t, m)
	b.mustShutDown(t, m)
}

func TestBootUEFI(t *testing.T) {
	full(t)
	b := minimal(t, image.AMD64)
	m := b.boot(t, vm.Options{Firmware: vm.UEFI})
	b.mustServe(t, m)
	if l := m.Lines(secureBoot); len(l) != 0 {
		t.Errorf("without keys the kernel says %q", l[0].Text)
	}
	b.mustShutDown(t, m)
}

func TestBootARM64(t *testing.T) {
	b := minimal(t, image.ARM64)
	m := b.boot(t, vm.Options{Firmware: vm.UEFISecure})
	b.mustServe(t, m)
	if len(m.Lines(secureBoot)) == 0 {
		t.Error("the kernel does not say that Secure Boot is enabled")
	}
	b.mustShutDown(t, m)
}

func TestBootOnOtherBuses(t *testing.T) {
	full(t)
	b := minimal(t, image.AMD64)
	for _, bus := range []vm.Bus{vm.NVMe, vm.AHCI, vm.VirtioSCSI, vm.USB} {
		t.Run(string(bus), func(t *testing.T) {
			m := b.boot(t, vm.Options{Firmware: vm.UEFI, Bus: bus})
			b.mustServe(t, m)
			b.mustShutDown(t, m)
		})
	}
}

// logMemory prints the memory in use at idle; the goal is that a base without modules takes under 64 MiB.
func logMemory(t *testing.T, m *vm.VM) {
	t.Helper()
	memory, err := m.Memory(t.Context())
	if err != nil {
		t.Error(err)
		return
	}
	const mib = 1 << 20
	t.Logf("memory at idle: %d MiB used beyond the page cache (%d MiB), of %d MiB",
		memory.Used()/mib, memory.Caches/mib, memory.Total/mib)
}
