package tools

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
)

// finish makes what the packages' maintainer scripts would have made, as far as tools need it.
func finish(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := caBundle(root); err != nil {
		return fmt.Errorf("cannot make the bundle of CA certificates: %w", err)
	}
	for _, c := range copies {
		if err := copyFile(root, c.from, c.to); err != nil {
			return err
		}
	}
	for _, d := range emptyDirs {
		if err := root.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	for _, f := range files {
		if err := writeFile(root, f.name, []byte(f.content)); err != nil {
			return err
		}
	}
	for _, l := range alternatives {
		if err := link(root, l.target, l.name); err != nil {
			return err
		}
	}
	return nil
}

// copies are configuration files that packages bring as templates.
var copies = []struct{ from, to string }{
	{"usr/share/base-passwd/passwd.master", "etc/passwd"},
	{"usr/share/base-passwd/group.master", "etc/group"},
	{"usr/share/libc-bin/nsswitch.conf", "etc/nsswitch.conf"},
}

// emptyDirs are the folders that apt and dpkg expect.
var emptyDirs = []string{
	"etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d", "etc/apt/trusted.gpg.d",
	"var/cache/apt/archives/partial", "var/lib/apt/lists/partial", "var/lib/dpkg/info", "var/lib/dpkg/triggers",
	"var/lib/dpkg/updates", "var/log/apt", "var/tmp",
}

// files are empty mount points for the host's files, and settings.
var files = []struct{ name, content string }{
	{"etc/hosts", ""},
	{"etc/resolv.conf", ""},
	{"var/lib/dpkg/status", ""},
	// apt runs its downloads as a user of its own, which a user namespace with one user does not have.
	{"etc/apt/apt.conf.d/90tool-root", "APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n"},
}

// alternatives are names that update-alternatives would have made; those of absent programs are left out.
var alternatives = []struct{ name, target string }{
	{"usr/bin/awk", "gawk"},
	{"usr/bin/awk", "mawk"},
	{"usr/bin/faked", "faked-sysv"},
	{"usr/bin/fakeroot", "fakeroot-sysv"},
	{"usr/bin/which", "which.debianutils"},
}

// caBundle concatenates the certificates as update-ca-certificates does.
func caBundle(root *os.Root) error {
	const folder = "usr/share/ca-certificates/mozilla"
	entries, err := fs.ReadDir(root.FS(), folder)
	if err != nil {
		return err
	}
	var bundle bytes.Buffer
	for _, e := range entries { // sorted by name
		b, err := root.ReadFile(path.Join(folder, e.Name()))
		if err != nil {
			return err
		}
		bundle.Write(bytes.TrimRight(b, "\n"))
		bundle.WriteByte('\n')
	}
	return writeFile(root, "etc/ssl/certs/ca-certificates.crt", bundle.Bytes())
}

func copyFile(root *os.Root, from, to string) error {
	b, err := root.ReadFile(from)
	if err != nil {
		return err
	}
	return writeFile(root, to, b)
}

func writeFile(root *os.Root, name string, content []byte) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	return root.WriteFile(name, content, 0o644)
}

// link makes name a link to its neighbour target, unless target is absent or name is there.
func link(root *os.Root, target, name string) error {
	if _, err := root.Lstat(path.Join(path.Dir(name), target)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := root.Symlink(target, name)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}
