package tools

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"allotment/builder/apt"
	"allotment/builder/profile"
	"allotment/internal/cache"
	"allotment/internal/progress"
)

func TestMain(m *testing.M) {
	EnterIfAsked()
	if os.Args[0] == helperMarker {
		if err := runHelper(os.Args[1], os.Args[2]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// openRoot returns the tool root from the user's cache.
func openRoot(t *testing.T) *Root {
	t.Helper()
	c, f := cacheDir(t), fetcher(t)
	r, err := Open(t.Context(), c, f, progress.Silent{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// openSolver returns the small tool root from the user's cache.
func openSolver(t *testing.T) *Root {
	t.Helper()
	c, f := cacheDir(t), fetcher(t)
	r, err := OpenSolver(t.Context(), c, f, progress.Silent{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func cacheDir(t testing.TB) cache.Dir {
	t.Helper()
	c, err := cache.Default()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func fetcher(t testing.TB) Fetcher {
	t.Helper()
	l, err := Lock()
	if err != nil {
		t.Fatal(err)
	}
	return apt.New(cacheDir(t), profile.Debian{}, l.Epoch)
}

// output runs a tool and returns what it wrote.
func output(t *testing.T, r *Root, name string, args ...string) string {
	t.Helper()
	out, err := r.Command(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v: %s", name, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestEveryToolStarts(t *testing.T) {
	r := openRoot(t)
	for _, c := range []struct{ command, want string }{
		{"mkfs.erofs --version", "1.8"},
		{"fsck.erofs --version", "1.8"},
		{"qemu-system-x86_64 --version", "version 10."},
		{"qemu-system-aarch64 --version", "version 10."},
		{"qemu-img --version", "version 10."},
		{"grub-mkimage --version", "2.12"},
		{"mkfs.btrfs --version", "btrfs-progs v6"},
		{"sbverify --version", "sbverify 0.9"},
		{"fsck.vfat --help", "Check FAT filesystem"},
		{"mcopy --version", "mtools"},
		{"sgdisk --version", "GPT fdisk"},
		{"sfdisk --version", "util-linux"},
		{"veritysetup --version", "veritysetup 2"},
		{"systemd-dissect --version", "systemd 257"},
		{"ukify --version", "257"},
		{"virt-fw-vars --help", "virt-fw-vars"},
		{"fsverity --version", "fsverity"},
		{"apt-get --version", "apt 3"},
		{"dpkg --version", "1.22"},
		{"mmdebstrap --version", "mmdebstrap"},
		{"fakeroot --version", "fakeroot"},
		{"crun --version", "crun version 1"},
		{"kmod --version", "kmod version"},
		{"openssl version", "OpenSSL 3"},
		{"osslsigncode --version", "osslsigncode"},
		{"awk --version", "GNU Awk"},
	} {
		t.Run(strings.Fields(c.command)[0], func(t *testing.T) {
			words := strings.Fields(c.command)
			if got := output(t, r, words[0], words[1:]...); !strings.Contains(got, c.want) {
				t.Errorf("%s printed %q, want it to say %q", c.command, got, c.want)
			}
		})
	}
}
