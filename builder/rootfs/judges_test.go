package rootfs_test

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	goerofs "github.com/erofs/go-erofs"

	"allotment/builder/apt"
	"allotment/builder/deb"
	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/builder/rootfs"
	"allotment/builder/tools"
	"allotment/image/erofs"
	"allotment/image/layer"
	"allotment/internal/cache"
	"allotment/internal/progress"
)

// The tests in this file hand our files to the tool root's programs: mkfs.erofs, fsck.erofs and fsverity.

func TestMain(m *testing.M) {
	tools.EnterIfAsked()
	os.Exit(m.Run())
}

func openTools(t *testing.T) *tools.Root {
	t.Helper()
	c, err := cache.Default()
	if err != nil {
		t.Fatal(err)
	}
	r, err := tools.OpenFrom(t.Context(), c, profile.Debian{}, progress.Silent{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var options = erofs.Options{UUID: "00112233-4455-6677-8899-aabbccddeeff", Epoch: time.Unix(1_763_700_000, 0), Label: "test"}

// capability is the value of security.capability for cap_net_raw=ep (struct vfs_cap_data, version 2).
var capability = string([]byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})

// sample is a tree with all that an EROFS image must keep.
func sample(t *testing.T) *rootfs.Tree {
	t.Helper()
	tr := rootfs.New()
	big := rootfs.Content{Bytes: bytes.Repeat([]byte("0123456789abcdef"), 1<<16)}
	ping := &rootfs.Node{Type: '0', Mode: 0o755, Content: rootfs.Content{Bytes: []byte("ping")}, Xattrs: map[string]string{"security.capability": capability}}
	linked := &rootfs.Node{Type: '0', Mode: 0o4755, UID: 12, GID: 34, Content: rootfs.Content{Bytes: []byte("linked")}}
	for _, err := range []error{
		tr.PutFile("/usr/share/big", 0o644, big), tr.PutLink("/bin", "usr/bin"), tr.PutDir("/tmp", 0o1777),
		tr.Put("/usr/bin/ping", ping), tr.Put("/usr/bin/a", linked), tr.Put("/usr/bin/b", linked), tr.PutFile("/empty", 0o600, rootfs.Content{}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

// makeEROFS writes tr as tar and EROFS files and returns the latter's path.
func makeEROFS(t *testing.T, r *tools.Root, tr *rootfs.Tree, o erofs.Options) string {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "tree.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := tr.WriteTar(f, o.Epoch); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "tree.erofs")
	if err := erofs.Make(t.Context(), r, f.Name(), out, o); err != nil {
		t.Fatal(err)
	}
	return out
}

// tool runs a program of the tool root and returns what it printed.
func tool(t *testing.T, r *tools.Root, name string, args ...string) (string, error) {
	t.Helper()
	out, err := r.Command(t.Context(), name, args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func TestEROFSKeepsEverything(t *testing.T) {
	r := openTools(t)
	img := makeEROFS(t, r, sample(t), options)
	dir := filepath.Join(t.TempDir(), "out")
	if out, err := tool(t, r, "fsck.erofs", "--preserve", "--xattrs", "--extract="+dir, img); err != nil {
		t.Fatalf("fsck.erofs: %v\n%s", err, out)
	}
	var a, b, ping, tmp, root syscall.Stat_t
	for path, st := range map[string]*syscall.Stat_t{"usr/bin/a": &a, "usr/bin/b": &b, "usr/bin/ping": &ping, "tmp": &tmp, ".": &root} {
		if err := syscall.Lstat(filepath.Join(dir, path), st); err != nil {
			t.Fatal(err)
		}
	}
	if a.Nlink != 2 || a.Ino != b.Ino {
		t.Errorf("hard links have %d links, inodes %d and %d", a.Nlink, a.Ino, b.Ino)
	}
	if a.Mode&0o7777 != 0o4755 || tmp.Mode&0o7777 != 0o1777 || root.Mode&0o7777 != 0o755 {
		t.Errorf("modes are %o, %o and %o", a.Mode, tmp.Mode, root.Mode)
	}
	if os.Geteuid() == 0 && (a.Uid != 12 || a.Gid != 34) {
		t.Errorf("owner is %d:%d", a.Uid, a.Gid)
	}
	if ping.Mtim.Sec != options.Epoch.Unix() {
		t.Errorf("time is %d", ping.Mtim.Sec)
	}
	if target, err := os.Readlink(filepath.Join(dir, "bin")); target != "usr/bin" {
		t.Errorf("link is %q, %v", target, err)
	}
	if big, err := os.ReadFile(filepath.Join(dir, "usr/share/big")); len(big) != 1<<20 || err != nil {
		t.Errorf("big file has %d bytes, %v", len(big), err)
	}
}

// TestEROFSKeepsCapabilities reads the image by another's reader: fsck.erofs changes owners after it has set capabilities,
// which makes the kernel drop them.
func TestEROFSKeepsCapabilities(t *testing.T) {
	f, err := os.Open(makeEROFS(t, openTools(t), sample(t), options))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := goerofs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	st, err := fs.Stat(img, "usr/bin/ping")
	if err != nil {
		t.Fatal(err)
	}
	if got := st.Sys().(*goerofs.Stat).Xattrs["security.capability"]; got != capability {
		t.Errorf("security.capability is %x, want %x", got, capability)
	}
}

func TestEROFSIsReproducible(t *testing.T) {
	r := openTools(t)
	read := func(o erofs.Options) []byte {
		b, err := os.ReadFile(makeEROFS(t, r, sample(t), o))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	first := read(options)
	if len(first)%erofs.BlockSize != 0 {
		t.Errorf("image has %d bytes, not whole blocks", len(first))
	}
	if !bytes.Equal(first, read(options)) {
		t.Error("the same tree twice gives different images")
	}
	other := options
	other.UUID = "ffffffff-4455-6677-8899-aabbccddeeff"
	if bytes.Equal(first, read(other)) {
		t.Error("another UUID gives the same image")
	}
	other = options
	other.Epoch = other.Epoch.Add(time.Hour)
	if bytes.Equal(first, read(other)) {
		t.Error("another time gives the same image")
	}
}

// TestFsckSeesDamage is the twin of the tests that rely on fsck.erofs.
func TestFsckSeesDamage(t *testing.T) {
	r := openTools(t)
	img := makeEROFS(t, r, sample(t), options)
	if err := fsck(t, r, img); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(img, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{0xff}, 1024+40); err != nil { // in the superblock, which has a checksum
		t.Fatal(err)
	}
	if fsck(t, r, img) == nil {
		t.Error("fsck.erofs accepts a damaged image")
	}
}

// fsck asks fsck.erofs, which says of a bad superblock that it is bad and ends with status 0 all the same.
func fsck(t *testing.T, r *tools.Root, img string) error {
	out, err := tool(t, r, "fsck.erofs", img)
	if err == nil && strings.Contains(out, "<E>") {
		err = errors.New("complains")
	}
	if err != nil {
		return fmt.Errorf("fsck.erofs: %w\n%s", err, out)
	}
	return nil
}

func TestEROFSNamesTheFault(t *testing.T) {
	r := openTools(t)
	bad := filepath.Join(t.TempDir(), "bad.tar")
	if err := os.WriteFile(bad, []byte("not a tar file"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := erofs.Make(t.Context(), r, bad, bad+".erofs", options); err == nil || !strings.Contains(err.Error(), "mkfs.erofs") {
		t.Errorf("error is %v, want one that names mkfs.erofs", err)
	}
}

// TestDigestLikeFsverity compares our fs-verity digests with those of fsverity-utils, around every edge of the tree.
func TestDigestLikeFsverity(t *testing.T) {
	r := openTools(t)
	dir := t.TempDir()
	var paths []string
	for _, size := range []int{0, 1, 4095, 4096, 4097, 128 * 4096, 128*4096 + 1, 129 * 4096, 3_000_000, 128*128*4096 + 5} {
		path := filepath.Join(dir, fmt.Sprint(size))
		content := make([]byte, size)
		for i := range content {
			content[i] = byte(i * i >> 7)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	paths = append(paths, makeEROFS(t, r, sample(t), options))
	out, err := tool(t, r, "fsverity", append([]string{"digest", "--compact"}, paths...)...)
	want := strings.Fields(out)
	if err != nil || len(want) != len(paths) {
		t.Fatalf("fsverity: %v\n%s", err, out)
	}
	for i, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		d, size, err := layer.Digest(f)
		f.Close()
		if st, _ := os.Stat(path); err != nil || size != st.Size() || d.Hex() != want[i] {
			t.Errorf("digest of %s is %s (%d bytes, %v), want %s", filepath.Base(path), d.Hex(), size, err, want[i])
		}
	}
}

// TestMissingLibraries takes a program of the tool root with its libraries, and then away one of them.
func TestMissingLibraries(t *testing.T) {
	root := openTools(t).Dir()
	tr := rootfs.New()
	put := func(from, p string) {
		t.Helper()
		c, err := rootfs.HostFile(filepath.Join(root, from))
		if err == nil {
			err = tr.PutFile(p, 0o755, c)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put("/usr/bin/mkfs.erofs", "/usr/bin/mkfs.erofs")
	missing, err := tr.MissingLibraries()
	if err != nil || len(missing) < 3 {
		t.Fatalf("missing are %q, %v: want the loader and some libraries", missing, err)
	}
	for range 8 { // libraries need libraries
		for _, m := range missing {
			_, lib, _ := strings.Cut(m, " needs ")
			from := find(t, root, filepath.Base(lib))
			if filepath.IsAbs(lib) {
				put(from, lib)
			} else {
				put(from, from)
			}
		}
		if missing, err = tr.MissingLibraries(); err != nil || len(missing) == 0 {
			break
		}
	}
	if err != nil || len(missing) > 0 {
		t.Fatalf("still missing are %q, %v", missing, err)
	}
	if _, err := rootfs.Build(context.Background(), nil, &profile.Tree{}, tr); err != nil {
		t.Errorf("tree with all libraries: %v", err)
	}
	half := rootfs.New()
	for p, n := range tr.All() {
		if n.Type == '0' && !strings.Contains(p, "libc.so") {
			if err := half.Put(p, n); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, err = rootfs.Build(context.Background(), nil, &profile.Tree{}, half)
	if err == nil || !strings.Contains(err.Error(), "/usr/bin/mkfs.erofs needs libc.so.6") {
		t.Errorf("error is %v, want one that names the program and its library", err)
	}
}

// find returns the path in root of the file or link called name, below the folders of libraries.
func find(t *testing.T, root, name string) string {
	t.Helper()
	found := ""
	err := filepath.WalkDir(filepath.Join(root, "usr"), func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == name && isELF(p) {
			found = strings.TrimPrefix(p, root)
			return fs.SkipAll
		}
		return err
	})
	if err != nil || found == "" {
		t.Fatalf("no %q in the tool root: %v", name, err)
	}
	return found
}

func isELF(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// TestShippedTrees makes the trees that we ship of the packages that are locked for them, for every architecture.
func TestShippedTrees(t *testing.T) {
	p, err := profile.Load("../../profiles/minimal.toml")
	if err != nil {
		t.Fatal(err)
	}
	l, err := lock.Read("../../profiles/minimal.lock")
	if err != nil {
		t.Fatal(err)
	}
	c, err := cache.Default()
	if err != nil {
		t.Fatal(err)
	}
	archive := apt.New(c, p.Debian, l.Epoch)
	for _, arch := range p.Archs {
		made := map[string]*rootfs.Tree{}
		for _, name := range []string{"root", "debian-base", "page"} {
			packages := l.Trees[name][arch]
			paths, err := archive.Fetch(t.Context(), packages, progress.Silent{})
			if err != nil {
				t.Fatal(err)
			}
			var debs []rootfs.Deb
			for i, p := range packages {
				data, err := deb.DataTarCached(t.Context(), c, paths[i], p.SHA256)
				if err != nil {
					t.Fatal(err)
				}
				debs = append(debs, rootfs.Deb{Name: p.Name, Version: p.Version, DataTar: data})
			}
			tr, err := rootfs.Build(t.Context(), debs, p.Trees[name], made[p.Trees[name].Base])
			if err != nil {
				t.Fatalf("%s: %v", arch, err)
			}
			if len(tr.Warnings) > 0 {
				t.Errorf("%s: tree %q has warnings:\n%s", arch, name, strings.Join(tr.Warnings, "\n"))
			}
			made[name] = tr
		}
		layer, err := made["page"].Subtract(made["debian-base"])
		if err != nil {
			t.Fatal(err)
		}
		if layer.Lookup("/usr/sbin/nginx") == nil || layer.Lookup("/etc/passwd") != nil {
			t.Errorf("%s: the layer of module web lacks nginx, or has what its base has", arch)
		}
		for name, tr := range made {
			for _, shell := range []string{"/bin/sh", "/usr/bin/dpkg", "/usr/bin/apt"} {
				if tr.Lookup(shell) != nil {
					t.Errorf("%s: tree %q has %s", arch, name, shell)
				}
			}
		}
	}
}
