package qemutests

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"allotment/image"
	"allotment/internal/cache"
	"allotment/qemu-tests/vm"
)

// reasons are the console lines that say why a boot ends.
var reasons = regexp.MustCompile(`BOOT-FAIL|Kernel panic|corrupted|HASH MISMATCH|mismatch`)

// mustReset waits until the system has reset the machine by itself, without having called itself well.
func mustReset(t *testing.T, m *vm.VM) {
	t.Helper()
	e, _, err := m.Wait(t.Context(), 0, func(e vm.Event) bool {
		return e.Kind == vm.Line && anyOK.MatchString(e.Text) || e.Kind == vm.QMP && (e.Text == "RESET" || e.Text == "SHUTDOWN")
	})
	if err != nil {
		t.Fatal(err)
	}
	why := m.Lines(reasons)
	for _, w := range why[max(0, len(why)-5):] {
		t.Logf("%6.1fs %s", w.Wall.Seconds(), w.Text)
	}
	switch {
	case e.Kind == vm.Line:
		t.Errorf("a tampered system runs: %s", e.Text)
	case e.Text != "RESET" || !strings.Contains(string(e.Data), `"guest": true`):
		t.Errorf("the boot ended with %s %s, want a reset by the system", e.Text, e.Data)
	case len(why) == 0:
		t.Error("the console gives no reason for the reset")
	}
}

// mustRefuse waits until the firmware or the boot loader has refused the kernel.
func mustRefuse(t *testing.T, m *vm.VM) {
	t.Helper()
	refusal := regexp.MustCompile(`(?i)access denied|security violation`)
	kernel := regexp.MustCompile(`Linux version|EFI stub|BOOT-`)
	e, _, err := m.Wait(t.Context(), 0, func(e vm.Event) bool {
		return e.Kind == vm.Line && (refusal.MatchString(e.Text) || kernel.MatchString(e.Text))
	})
	if err != nil {
		t.Fatal(err)
	}
	if kernel.MatchString(e.Text) {
		t.Errorf("a refused kernel runs: %s", e.Text)
	}
	t.Log(e.Text)
}

// uki is the path of the UKI in the ESP.
func (b *built) uki() string { return fmt.Sprintf("EFI/Linux/allotment-%s.efi", b.manifest.Version) }

func TestTamperedUKIIsRefused(t *testing.T) {
	b := minimal(t, image.AMD64)
	mustRefuse(t, b.boot(t, vm.Options{Firmware: vm.UEFISecure, Disk: b.flipped(t, b.inESP(t, b.uki()))}))
}

// TestOtherKeysRefuseTheImage shows that Secure Boot is on and that it is our signature that it looks at.
func TestOtherKeysRefuseTheImage(t *testing.T) {
	b := minimal(t, image.AMD64)
	dir, err := cache.Default()
	if err != nil {
		t.Fatal(err)
	}
	other, err := testKeys(t.Context(), dir, "other-keys")
	if err != nil {
		t.Fatal(err)
	}
	mustRefuse(t, b.boot(t, vm.Options{Firmware: vm.UEFISecure, Vars: enrolled(t, b, other)}))
}

// TestTamperedRootResets changes a byte of the program that becomes PID 1, which is read as soon as the root is there.
func TestTamperedRootResets(t *testing.T) {
	b := minimal(t, image.AMD64)
	at := b.inRoot(t, "/usr/lib/allotment/allot-supervisor")
	mustReset(t, b.boot(t, vm.Options{Firmware: vm.UEFI, Disk: b.flipped(t, at)}))
}

func TestTamperedRootSuperblockResets(t *testing.T) {
	full(t)
	b := minimal(t, image.AMD64)
	mustReset(t, b.boot(t, vm.Options{Firmware: vm.UEFI, Disk: b.flipped(t, b.parts["root-a"].start+1024)}))
}

// TestTamperedVerityTreeResets changes a byte of the topmost hash block, which is the first after the superblock's.
func TestTamperedVerityTreeResets(t *testing.T) {
	b := minimal(t, image.AMD64)
	mustReset(t, b.boot(t, vm.Options{Firmware: vm.UEFI, Disk: b.flipped(t, b.parts["verity-a"].start+4096+5)}))
}

// TestTamperedKernelResetsUnderBIOS shows what GRUB's check is good for: it finds damage. It is no protection from someone
// who can write to the ESP, where the sums themselves lie.
func TestTamperedKernelResetsUnderBIOS(t *testing.T) {
	b := minimal(t, image.AMD64)
	at := b.inESP(t, fmt.Sprintf("allotment/%s/vmlinuz", b.manifest.Version))
	mustReset(t, b.boot(t, vm.Options{Firmware: vm.BIOS, Disk: b.flipped(t, at)}))
}

func TestTamperedInitrdResetsUnderBIOS(t *testing.T) {
	full(t)
	b := minimal(t, image.AMD64)
	at := b.inESP(t, fmt.Sprintf("allotment/%s/initrd", b.manifest.Version))
	mustReset(t, b.boot(t, vm.Options{Firmware: vm.BIOS, Disk: b.flipped(t, at)}))
}

// webLayer is the layer with the web server, and where it lies in the seed.
func (b *built) webLayer(t *testing.T) (image.Layer, int64) {
	t.Helper()
	at := b.parts["state"].start + b.manifest.Seed.Offset
	for _, l := range b.manifest.Layers {
		if l.Name == "page" {
			return l, at
		}
		at += l.Size
	}
	t.Fatalf("no layer is called web: %v", b.manifest.Layers)
	return image.Layer{}, 0
}

func TestTamperedSeedResets(t *testing.T) {
	b := minimal(t, image.AMD64)
	layer, at := b.webLayer(t)
	mustReset(t, b.boot(t, vm.Options{Firmware: vm.UEFI, Disk: b.flipped(t, at+layer.Size/2)}))
}

// TestTamperedStoreResets changes the first block of the web server's program in the file system that the first boot made.
// The kernel gives no byte of it, the service fails, and the supervisor finds the damage.
func TestTamperedStoreResets(t *testing.T) {
	b, first := firstBoot(t)
	layer, seed := b.webLayer(t)
	at := inState(t, b, first.disk, layer, fileInLayer(t, b, seed, "/usr/sbin/nginx"))
	disk := filepath.Join(t.TempDir(), "spoilt.raw")
	if err := vm.CopySparse(first.disk, disk); err != nil {
		t.Fatal(err)
	}
	if err := vm.FlipByte(disk, at); err != nil {
		t.Fatal(err)
	}
	m := b.boot(t, vm.Options{Firmware: vm.UEFI, Disk: disk})
	mustReset(t, m)
	if len(m.Lines(regexp.MustCompile(`BOOT-FAIL stage=layer reason=.*page`))) == 0 {
		t.Error("the console does not name the damaged module")
	}
}

// fileInLayer is where in a layer, which lies at an offset of the image, a file begins.
func fileInLayer(t *testing.T, b *built, seed int64, path string) int64 {
	t.Helper()
	text, err := output(t.Context(), b.tools, "dump.erofs", fmt.Sprintf("--offset=%d", seed), "--path="+path, "-e", b.raw)
	if err != nil {
		t.Fatal(err)
	}
	_, at := firstExtent(t, text)
	return at
}

// TestUnbootableDiskIsSeen is the twin of the tests above: a machine that shows nothing at all is not taken for one that
// refuses.
func TestUnbootableDiskIsSeen(t *testing.T) {
	needMachines(t)
	disk := filepath.Join(t.TempDir(), "empty.raw")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	m := start(t, vm.Options{Firmware: vm.BIOS, Memory: 64, Disk: disk})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if e, _, err := m.Wait(ctx, 0, func(e vm.Event) bool { return e.Text == "RESET" }); err == nil {
		t.Errorf("event %v of a machine without a system", e)
	}
}
