package lock

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"allotment/builder/profile"
	"allotment/image"
)

// testPackage is a package that can be locked.
func testPackage(name, arch string) Package {
	return Package{
		Name: name, Version: "1:2.0~rc1-3+b1", Arch: arch, Source: "src (1:2.0~rc1-3)", Archive: "main",
		Path: "pool/main/s/src/" + name + "_2.0~rc1-3+b1_" + arch + ".deb", Size: 12345,
		SHA256: image.NewDigest([32]byte{1, 2, 3, byte(len(name))}),
	}
}

func testLock() *Lock {
	return &Lock{
		Format: Format, Epoch: 1795140670, Inputs: image.NewDigest([32]byte{4}),
		Trees: map[string]map[image.Arch][]Package{
			"root": {
				image.AMD64: {testPackage("apt", "amd64"), testPackage("base-files", "all")},
				image.ARM64: {testPackage("apt", "arm64")},
			},
			"debian-base": {image.AMD64: {}, image.ARM64: {}},
		},
	}
}

func TestWriteAndRead(t *testing.T) {
	l := testLock()
	path := filepath.Join(t.TempDir(), "test.lock")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(l, got); d != "" {
		t.Error(d)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left %v", entries)
	}
}

func TestEncode(t *testing.T) {
	l := testLock()
	want := l.Encode()
	slices.Reverse(l.Trees["root"][image.AMD64])
	if !bytes.Equal(want, l.Encode()) {
		t.Error("the order of packages changes the file")
	}
	l.Trees["root"][image.AMD64][0].Version = "3"
	changed := 0
	before, after := bytes.Split(want, []byte("\n")), bytes.Split(l.Encode(), []byte("\n"))
	for i := range before {
		if !bytes.Equal(before[i], after[i]) {
			changed++
		}
	}
	if changed != 1 || len(before) != len(after) {
		t.Errorf("one package of another version changes %d lines", changed)
	}
}

func TestReadMissing(t *testing.T) {
	if _, err := Read(filepath.Join(t.TempDir(), "x.lock")); !errors.Is(err, fs.ErrNotExist) || !os.IsNotExist(err) {
		t.Errorf("error is %v", err)
	}
}

func TestWriteRefused(t *testing.T) {
	if err := testLock().Write(filepath.Join(t.TempDir(), "none", "x.lock")); err == nil {
		t.Error("wrote into a folder that is not there")
	}
}

func TestParseRefuses(t *testing.T) {
	const sum = "sha256:0102030300000000000000000000000000000000000000000000000000000000"
	good := string(testLock().Encode())
	for _, c := range []struct{ name, old, new, want string }{
		{"syntax", "format = 1", "format = = 1", "line 2, column 10"},
		{"type", "format = 1", `format = "1"`, "line 2"},
		{"unknown key", "epoch", "epok", "unknown key"},
		{"unknown key of a package", "source = ", "sauce = ", "unknown key"},
		{"twice a key", "format = 1", "format = 1\nformat = 1", "line 3"},
		{"other format", "format = 1", "format = 2", "format is 2, want 1"},
		{"no epoch", "epoch = 1795140670", "", "epoch is 0"},
		{"no inputs", "inputs = ", "# ", "inputs"},
		{"other architecture", "amd64 = [", "mips = [", "mips"},
		{"tree name", "trees.root", "trees.Root", `tree name "Root"`},
		{"name", `name = "apt"`, `name = "../apt"`, `line 14: tree root, amd64: package name "../apt"`},
		{"order", `name = "base-files"`, `name = "aaa"`, "line 15: tree root, amd64: package aaa comes after apt"},
		{"twice", `name = "base-files"`, `name = "apt"`, "line 15: tree root, amd64: package apt is there twice"},
		{"wrong architecture", `arch = "arm64"`, `arch = "amd64"`, "line 18: tree root, arm64: package apt is for amd64"},
		{"path", "pool/main/s/src/apt", "pool/../apt", "path"},
		{"size", "size = 12345", "size = -1", "size -1"},
		{"no size", "size = 12345, ", "", "size 0"},
		{"hash", sum, sum[:20], "digest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(good, c.old, c.new, 1)
			if text == good {
				t.Fatalf("the lock has no %q:\n%s", c.old, good)
			}
			_, err := Parse("test.lock", []byte(text))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), `"test.lock"`) {
				t.Errorf("error is %v, want it to say %q", err, c.want)
			}
		})
	}
	if _, err := Parse("test.lock", []byte("format = 1\nepoch = 1\ninputs = \""+sum+"\"\n")); err == nil {
		t.Error("a lock without trees was read")
	}
}

// TestCommittedLocks checks that the locks in the repository are as this code writes them.
func TestCommittedLocks(t *testing.T) {
	paths, _ := filepath.Glob("../../profiles/*.lock")
	for _, path := range append(paths, "../tools/tools.lock") {
		l, err := Read(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if b, _ := os.ReadFile(path); !bytes.Equal(b, l.Encode()) {
			t.Errorf("%s is not as allot lock writes it", path)
		}
	}
}

// TestCommittedLocksFit checks that nobody changed packages without making the lock anew.
func TestCommittedLocksFit(t *testing.T) {
	profiles, _ := filepath.Glob("../../profiles/*.toml")
	if len(profiles) == 0 {
		t.Error("no profiles")
	}
	for _, path := range profiles {
		p, err := profile.Load(path)
		if err != nil {
			t.Error(err)
			continue
		}
		l, err := Read(strings.TrimSuffix(path, ".toml") + ".lock")
		if err != nil {
			t.Error(err)
		} else if err := l.Check(p); err != nil {
			t.Error(err)
		}
	}
	l, err := Read("../tools/tools.lock")
	if err != nil {
		t.Fatal(err)
	}
	trees, err := profile.ReadTrees("../..", slices.Collect(maps.Keys(l.Trees))...)
	if err != nil {
		t.Fatal(err)
	}
	if l.Inputs != InputsOf(trees, []image.Arch{image.AMD64, image.ARM64}) {
		t.Error("tools.lock does not fit its trees any more; make it anew with: allot lock --tools")
	}
}

func TestAll(t *testing.T) {
	l := testLock()
	l.Trees["web"] = map[image.Arch][]Package{image.AMD64: {testPackage("apt", "amd64"), testPackage("nginx", "amd64")}}
	names := func(packages []Package) (s []string) {
		for _, p := range packages {
			s = append(s, p.Name)
		}
		return s
	}
	if got := names(l.All(image.AMD64)); !slices.Equal(got, []string{"apt", "base-files", "nginx"}) {
		t.Errorf("all are %v", got)
	}
	if got := names(l.All(image.AMD64, "web")); !slices.Equal(got, []string{"apt", "nginx"}) {
		t.Errorf("those of web are %v", got)
	}
}

func TestCheck(t *testing.T) {
	p := func() *profile.Profile {
		return &profile.Profile{
			Name: "test", Archs: []image.Arch{image.AMD64, image.ARM64},
			Trees: map[string]*profile.Tree{
				"root": {Packages: []string{"crun", "btrfs-progs"}},
				"web":  {Base: "root", Packages: []string{"nginx"}, Without: []string{"perl"}},
			},
		}
	}
	l := &Lock{Inputs: InputsOf(p().Trees, p().Archs)}
	for name, change := range map[string]func(*profile.Profile){
		"nothing":         func(*profile.Profile) {},
		"order":           func(p *profile.Profile) { slices.Reverse(p.Trees["root"].Packages); slices.Reverse(p.Archs) },
		"files":           func(p *profile.Profile) { p.Trees["web"].Remove = []string{"/usr/share/doc"} },
		"version of ours": func(p *profile.Profile) { p.Version = "2" },
	} {
		q := p()
		change(q)
		if err := l.Check(q); err != nil {
			t.Errorf("%s changed: %v", name, err)
		}
	}
	for name, change := range map[string]func(*profile.Profile){
		"package":       func(p *profile.Profile) { p.Trees["root"].Packages[0] = "runc" },
		"amd64 package": func(p *profile.Profile) { p.Trees["root"].PackagesAMD64 = []string{"grub-pc-bin"} },
		"other arch":    func(p *profile.Profile) { p.Trees["root"].PackagesARM64 = []string{"grub-pc-bin"} },
		"without":       func(p *profile.Profile) { p.Trees["web"].Without = nil },
		"base":          func(p *profile.Profile) { p.Trees["web"].Base = "" },
		"tree":          func(p *profile.Profile) { delete(p.Trees, "web") },
		"architectures": func(p *profile.Profile) { p.Archs = p.Archs[:1] },
		"package's tree": func(p *profile.Profile) {
			p.Trees["root"].Packages, p.Trees["web"].Packages = nil, []string{"nginx", "crun", "btrfs-progs"}
		},
	} {
		q := p()
		change(q)
		if err := l.Check(q); !errors.Is(err, ErrOutdated) || !strings.Contains(err.Error(), "allot lock test") {
			t.Errorf("%s changed: error is %v", name, err)
		}
	}
}

// FuzzParse checks that what was read is written the same again.
func FuzzParse(f *testing.F) {
	good := testLock().Encode()
	f.Add(good)
	f.Add(bytes.Replace(good, []byte("apt"), []byte("a\\u0070t"), 1))
	f.Add([]byte("format = 1\nepoch = 1\ninputs = \"\"\ntrees = {}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Parse("fuzz", b)
		if err != nil {
			return
		}
		again, err := Parse("again", l.Encode())
		if err != nil {
			t.Fatalf("%v in\n%s", err, l.Encode())
		}
		if !bytes.Equal(l.Encode(), again.Encode()) {
			t.Errorf("written twice, and not the same:\n%s\n%s", l.Encode(), again.Encode())
		}
	})
}
