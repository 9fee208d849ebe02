package slot

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"allotment/image"
	"allotment/image/disk/fat32"
	"allotment/image/disk/fat32/cutdisk"
	"allotment/image/esp"
	"allotment/image/secureboot"
	"allotment/image/uki"
	"allotment/image/uki/ukitest"
)

var now = time.Unix(1795000000, 0)

// keys are made once: RSA keys cost time. The second ones are a stranger's.
var keys = sync.OnceValues(func() (keys [2]*secureboot.Keys, err error) {
	for i := range keys {
		dir, err := os.MkdirTemp("", "keys")
		if err != nil {
			return keys, err
		}
		defer os.RemoveAll(dir)
		if err := secureboot.NewKeys(dir, now); err != nil {
			return keys, err
		}
		if keys[i], err = secureboot.LoadKeys(dir); err != nil {
			return keys, err
		}
	}
	return keys, nil
})

// makeUKI is a signed UKI of a version.
func makeUKI(t testing.TB, v image.Version, signer int) []byte {
	t.Helper()
	k, err := keys()
	if err != nil {
		t.Fatal(err)
	}
	b, err := uki.Assemble(testPE("stub"), uki.Image{
		OSRelease: "IMAGE_VERSION=" + string(v) + "\n", Cmdline: "roothash=" + strings.Repeat("0", 64) + " panic=5",
		Uname: "6.12", Initrd: []byte("initrd of " + v), Linux: testPE("kernel of " + string(v)),
	})
	if err == nil {
		b, err = secureboot.SignPE(b, k[signer].DB)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ukiFile is the path of a file with the UKI of a version.
func ukiFile(t testing.TB, v image.Version) string {
	t.Helper()
	return write(t, makeUKI(t, v, 0))
}

func write(t testing.TB, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "uki")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// newESP is the partition of a fresh image of version 1.0.
func newESP(t testing.TB, arch image.Arch) *cutdisk.Disk {
	t.Helper()
	k, err := keys()
	if err != nil {
		t.Fatal(err)
	}
	files := []fat32.File{
		{Path: esp.BootPath(arch), Data: []byte("systemd-boot")},
		{Path: esp.UKIPath("1.0"), Data: makeUKI(t, "1.0", 0)},
	}
	for _, v := range secureboot.Variables {
		files = append(files, fat32.File{Path: esp.AuthPath(v), Data: k[0].Auth[v]})
	}
	if arch.BootsBIOS() {
		kernel, initrd := testPE("kernel of 1.0"), []byte("initrd of 1.0")
		arguments, err := esp.ArgumentsFile("panic=5")
		if err != nil {
			t.Fatal(err)
		}
		environment := esp.Environment{Version: "1.0"}.Marshal()
		sums := esp.SumsFile(sha256.Sum256(kernel), sha256.Sum256(initrd), sha256.Sum256(arguments))
		files = append(files,
			fat32.File{Path: esp.EnvironmentPath, Data: environment},
			fat32.File{Path: esp.CommittedPath, Data: environment},
			fat32.File{Path: esp.GRUBPath("1.0", esp.Kernel), Data: kernel},
			fat32.File{Path: esp.GRUBPath("1.0", esp.Initrd), Data: initrd},
			fat32.File{Path: esp.GRUBPath("1.0", esp.Arguments), Data: arguments},
			fat32.File{Path: esp.GRUBPath("1.0", esp.Sums), Data: sums},
		)
	}
	d := cutdisk.New()
	if err := fat32.Write(padded{d}, fat32.MinSize, files, fat32.Options{Label: "ALLOTMENT", Time: now}); err != nil {
		t.Fatal(err)
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	d.Freeze()
	return d
}

// padded fills the last sector of what is written with zeros.
type padded struct{ d *cutdisk.Disk }

func (p padded) WriteAt(b []byte, off int64) (int, error) {
	if _, err := p.d.WriteAt(append(bytes.Clone(b), make([]byte, -len(b)&511)...), off); err != nil {
		return 0, err
	}
	return len(b), nil
}

// machine is how the tests start: an architecture and its firmware.
type machine struct {
	arch image.Arch
	uefi bool
}

func (m machine) String() string { return fmt.Sprintf("%s, UEFI %v", m.arch, m.uefi) }

var machines = []machine{{image.AMD64, true}, {image.AMD64, false}, {image.ARM64, true}}

func (m machine) open(t testing.TB, d fat32.Device) *Store {
	t.Helper()
	s, err := New(d, fat32.MinSize, m.arch, m.uefi, now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// testPE is a stub with the text.
func testPE(text string) []byte { return ukitest.PE(image.AMD64, []byte(text)) }
