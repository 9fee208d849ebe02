package resolve

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/builder/apt"
	"allotment/builder/deb"
	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/builder/tools"
	"allotment/image"
	"allotment/internal/cache"
	"allotment/internal/progress"
	"allotment/internal/run"
)

func TestMain(m *testing.M) {
	tools.EnterIfAsked()
	os.Exit(m.Run())
}

// openApt returns the tool root's apt.
func openApt(t *testing.T) run.Runner {
	t.Helper()
	c, err := cache.Default()
	if err != nil {
		t.Fatal(err)
	}
	l, err := tools.Lock()
	if err != nil {
		t.Fatal(err)
	}
	root, err := tools.OpenSolver(t.Context(), c, apt.New(c, profile.Debian{}, l.Epoch), progress.Silent{})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// packages is an index in short: name, version, architecture, and relations.
const packages = `
base-files 1 all; Essential: yes; Pre-Depends: awk; Priority: required
fancy-awk 1 all; Provides: awk; Priority: optional
mawk 1 amd64; Provides: awk; Pre-Depends: libc6 (>= 1); Priority: required
mawk 1 arm64; Provides: awk; Pre-Depends: libc6 (>= 1); Priority: required
libc6 2.0 amd64
libc6 2.0 arm64
libc6 2.0+deb13u1 amd64
libc6 2.0+deb13u1 arm64
server 1 all; Depends: libc6, helper | other-helper, interpreter (>= 3); Recommends: manual
helper 1 all; Depends: helper-data
helper-data 1 all
other-helper 1 all
interpreter 3 all; Depends: interpreter-data; Breaks: old-plugin
interpreter-data 3 all
manual 1 all
plugin 1 all; Depends: interpreter (= 3)
old-plugin 1 all
loader 1 amd64; Depends: libc6
broken 1 all; Depends: nowhere
`

// testIndex reads packages.
func testIndex() *apt.Index {
	x := &apt.Index{Date: time.Unix(1795140670, 0), Entries: map[image.Arch][]apt.Entry{}}
	for line := range strings.Lines(strings.TrimSpace(packages)) {
		parts := strings.Split(strings.TrimSpace(line), "; ")
		f := strings.Fields(parts[0])
		e := apt.Entry{Package: apt.Package{
			Name: f[0], Version: f[1], Arch: f[2], Source: f[0], Archive: apt.Main, Size: 1000,
			Path: fmt.Sprintf("pool/main/%s_%s_%s.deb", f[0], f[1], f[2]), SHA256: image.NewDigest(sha256.Sum256([]byte(parts[0]))),
		}}
		for _, p := range parts[1:] {
			name, value, _ := strings.Cut(p, ": ")
			e.Relations = append(e.Relations, deb.Field{Name: name, Value: value})
		}
		for _, arch := range []image.Arch{image.AMD64, image.ARM64} {
			if e.Arch == "all" || e.Arch == string(arch) {
				x.Entries[arch] = append(x.Entries[arch], e)
			}
		}
	}
	return x
}

func options(trees map[string]*profile.Tree) Options {
	return Options{Trees: trees, Archs: []image.Arch{image.ARM64, image.AMD64}, Progress: progress.Silent{}}
}

func TestResolve(t *testing.T) {
	trees := map[string]*profile.Tree{
		"base":       {Packages: []string{"base-files"}},
		"other":      {Packages: []string{"other-helper"}},
		"server":     {Packages: []string{"server"}},
		"on-base":    {Base: "base", Packages: []string{"server"}},
		"on-other":   {Base: "other", Packages: []string{"server"}},
		"third":      {Base: "on-base", Packages: []string{"server", "manual"}},
		"without":    {Packages: []string{"server"}, Without: []string{"interpreter"}},
		"on-without": {Base: "without", Packages: []string{"plugin"}},
		"after-all":  {Base: "without", Packages: []string{"interpreter"}},
		"by-arch":    {Packages: []string{"helper-data"}, PackagesAMD64: []string{"loader"}, PackagesARM64: []string{"manual"}},
		"nothing":    {},
	}
	want := map[string]string{
		"base/amd64":       "base-files libc6 mawk", // of two that provide awk, the required one
		"base/arm64":       "base-files libc6 mawk",
		"other/amd64":      "other-helper",
		"server/amd64":     "helper helper-data interpreter interpreter-data libc6 server",
		"on-base/amd64":    "helper helper-data interpreter interpreter-data server",
		"on-other/amd64":   "interpreter interpreter-data libc6 server",
		"third/amd64":      "manual",
		"without/amd64":    "helper helper-data libc6 server",
		"on-without/amd64": "plugin",
		"after-all/amd64":  "interpreter interpreter-data",
		"by-arch/amd64":    "helper-data libc6 loader",
		"by-arch/arm64":    "helper-data manual",
		"nothing/amd64":    "",
	}
	runner := openApt(t)
	l, err := resolveAll(t.Context(), options(trees), testIndex(), runner)
	if err != nil {
		t.Fatal(err)
	}
	for key, names := range want {
		tree, arch, _ := strings.Cut(key, "/")
		var got []string
		for _, p := range l.Trees[tree][image.Arch(arch)] {
			got = append(got, p.Name)
			if p.Name == "libc6" && (p.Version != "2.0+deb13u1" || p.Arch != arch) {
				t.Errorf("%s: libc6 is %s", key, p)
			}
		}
		if strings.Join(got, " ") != names {
			t.Errorf("%s: %v, want %s", key, got, names)
		}
	}
	if l.Epoch != 1795140670 {
		t.Errorf("epoch is %d", l.Epoch)
	}
	if err := l.Check(&profile.Profile{Trees: trees, Archs: []image.Arch{image.AMD64, image.ARM64}}); err != nil {
		t.Error(err)
	}
	b := l.Encode()
	if _, err := lock.Parse("test", b); err != nil {
		t.Error(err)
	}
	again, err := resolveAll(t.Context(), options(trees), testIndex(), runner)
	if err != nil || !bytes.Equal(b, again.Encode()) {
		t.Errorf("another run gave another lock; error %v", err)
	}
}

func TestResolveRefuses(t *testing.T) {
	runner := openApt(t)
	for _, c := range []struct {
		name string
		tree profile.Tree
		want string
	}{
		{"unknown package", profile.Tree{Packages: []string{"sever"}}, `no package "sever" in Debian`},
		{"pattern", profile.Tree{Packages: []string{"helper.*"}}, `no package "helper.*" in Debian`},
		{"virtual package", profile.Tree{Packages: []string{"awk"}}, `no package "awk" in Debian`},
		{"unknown package left out", profile.Tree{Packages: []string{"server"}, Without: []string{"nginx"}}, `no package "nginx"`},
		{"missing dependency", profile.Tree{Packages: []string{"broken"}}, "broken : Depends: nowhere"},
		{"conflict", profile.Tree{Packages: []string{"server", "old-plugin"}}, "interpreter : Breaks: old-plugin"},
		{"conflict with the base", profile.Tree{Base: "old", Packages: []string{"server"}}, "old-plugin"},
		{"own base", profile.Tree{Base: "test", Packages: []string{"server"}}, "its own base"},
		{"no base", profile.Tree{Base: "none", Packages: []string{"server"}}, "there is no such tree"},
	} {
		t.Run(c.name, func(t *testing.T) {
			trees := map[string]*profile.Tree{"test": &c.tree, "old": {Packages: []string{"old-plugin"}}}
			_, err := resolveAll(t.Context(), options(trees), testIndex(), runner)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want it to say %q", err, c.want)
			}
		})
	}
	if left, _ := os.ReadDir(os.TempDir()); slices.ContainsFunc(left, func(e os.DirEntry) bool {
		return strings.HasPrefix(e.Name(), "allot-lock-")
	}) {
		t.Error("left a folder among the temporary files")
	}
}

// TestSolverPackages replaces what the archive no longer has.
func TestSolverPackages(t *testing.T) {
	l, err := tools.Lock()
	if err != nil {
		t.Fatal(err)
	}
	x := &apt.Index{Entries: map[image.Arch][]apt.Entry{}}
	for _, p := range l.Trees["solver"][image.AMD64] {
		if p.Name == "apt" {
			for _, v := range []string{"99.10", "99.9", "1"} {
				p.Version, p.SHA256 = v, image.NewDigest(sha256.Sum256([]byte(v)))
				x.Entries[image.AMD64] = append(x.Entries[image.AMD64], apt.Entry{Package: p})
			}
			continue
		}
		newer := p
		newer.Version, newer.SHA256 = "9999", image.NewDigest([32]byte{})
		x.Entries[image.AMD64] = append(x.Entries[image.AMD64], apt.Entry{Package: p}, apt.Entry{Package: newer})
	}
	got, err := solverPackages(x, image.AMD64)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range l.Trees["solver"][image.AMD64] {
		if p.Name == "apt" {
			p.Version, p.SHA256 = "99.10", image.NewDigest(sha256.Sum256([]byte("99.10")))
		}
		if got[i] != p {
			t.Errorf("%s is taken where %s was locked", got[i], p)
		}
	}
	x.Entries[image.AMD64] = x.Entries[image.AMD64][3:]
	if _, err := solverPackages(x, image.AMD64); err == nil {
		t.Error("a package that is gone altogether was found")
	}
}
