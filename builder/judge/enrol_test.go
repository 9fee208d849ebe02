package judge

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"allotment/builder/apt"
	"allotment/builder/deb"
	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/image"
	"allotment/image/disk"
	"allotment/image/disk/fat32"
	"allotment/image/secureboot"
	"allotment/internal/cache"
	"allotment/internal/progress"
	"allotment/qemu-tests/vm"
)

// TestFirmwareEnrolsOurKeys lets systemd-boot hand our .auth files to firmware in setup mode. Firmware must take all
// three, turn Secure Boot on, and then start a systemd-boot that we signed, and none that nobody signed.
func TestFirmwareEnrolsOurKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("boots machines: not in -short mode")
	}
	_, k := newKeys(t)
	unsigned := systemdBoot(t)
	signed, err := secureboot.SignPE(unsigned, k.DB)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		loader []byte
		want   string
	}{
		{"signed", signed, `^BdsDxe: starting Boot`},
		{"unsigned", unsigned, `^BdsDxe: failed to load Boot.*Access Denied`},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := vm.Start(t.Context(), vm.Options{
				Tools: toolRoot(t), Dir: t.TempDir(), Firmware: vm.UEFISecure, Memory: 256, Disk: enrolDisk(t, c.loader, k),
			})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if _, err := m.WaitLine(t.Context(), regexp.MustCompile(`Custom Secure Boot keys successfully enrolled`)); err != nil {
				t.Fatal(err)
			}
			next, err := m.WaitLine(t.Context(), regexp.MustCompile(`^BdsDxe: (starting|failed to load) Boot`))
			if err != nil || !regexp.MustCompile(c.want).MatchString(next.Text) {
				t.Errorf("after enrolling: %q (%v), want %s", next.Text, err, c.want)
			}
		})
	}
}

// enrolDisk is a FAT volume whose systemd-boot enrols the keys by itself, without a partition table.
func enrolDisk(t *testing.T, loader []byte, k *secureboot.Keys) string {
	t.Helper()
	files := []fat32.File{
		{Path: disk.BootPath(image.AMD64), Data: loader},
		{Path: "loader/loader.conf", Data: []byte("timeout 0\nsecure-boot-enroll force\n")},
	}
	for v, auth := range k.Auth {
		files = append(files, fat32.File{Path: "loader/keys/auto/" + string(v) + ".auth", Data: auth})
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(f.Truncate(fat32.MinSize), fat32.Write(f, fat32.MinSize, files, fat32.Options{Label: "ENROL"})); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// systemdBoot takes systemd-boot out of the package that the lock of the test profile names.
func systemdBoot(t *testing.T) []byte {
	t.Helper()
	l, err := lock.Read("../../profiles/minimal.lock")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := cache.Default()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range l.Trees["boot"][image.AMD64] {
		if p.Name != "systemd-boot-efi" {
			continue
		}
		paths, err := apt.New(dir, profile.Debian{}, l.Epoch).Fetch(context.Background(), []lock.Package{p}, progress.Silent{})
		if err != nil {
			t.Fatal(err)
		}
		return fromPackage(t, paths[0], "/usr/lib/systemd/boot/efi/systemd-bootx64.efi")
	}
	t.Fatal("profiles/minimal.lock has no systemd-boot-efi")
	return nil
}

// fromPackage reads one file out of a Debian package.
func fromPackage(t *testing.T, path, name string) []byte {
	t.Helper()
	p, err := deb.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	data, err := p.DataTar()
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	for r := tar.NewReader(data); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("cannot find %s in %s: %v", name, path, err)
		}
		if strings.TrimPrefix(h.Name, ".") == name {
			b, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
}
