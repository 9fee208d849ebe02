package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/builder/profile"
)

var epoch = time.Unix(1_763_700_000, 0)

// member is a member of a package's data.tar: a folder if its name ends with a slash, a link if it has a target.
type member struct {
	name, content, target string
	mode                  int64
	uid, gid              int
	hard                  bool
	xattrs                map[string]string
}

// deb writes a data.tar and returns it as a package.
func deb(t testing.TB, name string, members ...member) Deb {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{Name: "./" + m.name, Typeflag: tar.TypeReg, Size: int64(len(m.content)), Mode: m.mode, Uid: m.uid,
			Gid: m.gid, ModTime: time.Unix(1, 0), Uname: "someone", PAXRecords: map[string]string{}}
		for k, v := range m.xattrs {
			h.PAXRecords[paxXattr+k] = v
		}
		switch {
		case strings.HasSuffix(m.name, "/"):
			h.Typeflag = tar.TypeDir
		case m.hard:
			h.Typeflag, h.Linkname = tar.TypeLink, "./"+m.target
		case m.target != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, m.target
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name+".tar")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return Deb{Name: name, Version: "1", DataTar: path}
}

// baseFiles is the package with the links that usr-merge is made of.
func baseFiles(t testing.TB) Deb {
	return deb(t, "base-files",
		member{name: "usr/"}, member{name: "usr/bin/"}, member{name: "usr/lib/"}, member{name: "var/"}, member{name: "var/run/"},
		member{name: "bin", target: "usr/bin"}, member{name: "lib", target: "usr/lib"})
}

func build(t testing.TB, decl *profile.Tree, base *Tree, pkgs ...Deb) *Tree {
	t.Helper()
	tr, err := Build(context.Background(), pkgs, decl, base)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// list writes a tree as lines, for comparison.
func list(tr *Tree) string {
	var b strings.Builder
	for p, n := range tr.All() {
		fmt.Fprintf(&b, "%c %04o %d:%d %s", n.Type, n.Mode, n.UID, n.GID, p)
		if n.Target != "" {
			fmt.Fprintf(&b, " -> %s", n.Target)
		}
		if n.Type == tar.TypeReg {
			content, err := tr.ReadFile(p)
			fmt.Fprintf(&b, " %q %v", content, err)
		}
		fmt.Fprintln(&b)
	}
	return b.String()
}

func wantList(t *testing.T, tr *Tree, want string) {
	t.Helper()
	var lines []string
	for l := range strings.Lines(want) {
		if l = strings.TrimSpace(l); l != "" {
			lines = append(lines, l)
		}
	}
	got := strings.TrimSpace(list(tr))
	if w := strings.Join(lines, "\n"); got != w {
		t.Errorf("tree is\n%s\nwant\n%s", got, w)
	}
}

func wantError(t *testing.T, err error, part string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Errorf("error is %v, want one with %q", err, part)
	}
}

func buildError(decl *profile.Tree, base *Tree, pkgs ...Deb) error {
	_, err := Build(context.Background(), pkgs, decl, base)
	return err
}

func TestUnpackFollowsLinks(t *testing.T) {
	old := deb(t, "abc", member{name: "bin/"}, member{name: "bin/abc", content: "#!", mode: 0o4755}, member{name: "lib/"},
		member{name: "lib/sub/", mode: 0o700}, member{name: "lib/sub/f", content: "x", mode: 0o640, gid: 42})
	wantList(t, build(t, &profile.Tree{}, nil, old, baseFiles(t)), `
		5 0755 0:0 /
		2 0777 0:0 /bin -> usr/bin
		2 0777 0:0 /lib -> usr/lib
		5 0755 0:0 /usr
		5 0755 0:0 /usr/bin
		0 4755 0:0 /usr/bin/abc "#!" <nil>
		5 0755 0:0 /usr/lib
		5 0700 0:0 /usr/lib/sub
		0 0640 0:42 /usr/lib/sub/f "x" <nil>
		5 0755 0:0 /var
		5 0755 0:0 /var/run
	`)
}

func TestPackagesMustNotReplaceFiles(t *testing.T) {
	a := deb(t, "a", member{name: "etc/f", content: "1"})
	same := deb(t, "b", member{name: "etc/f", content: "1"})
	if err := buildError(&profile.Tree{}, nil, a, same); err != nil {
		t.Errorf("the same file twice: %v", err)
	}
	wantError(t, buildError(&profile.Tree{}, nil, a, deb(t, "b", member{name: "etc/f", content: "2"})),
		`cannot replace "/etc/f", which is from package a`)
	wantError(t, buildError(&profile.Tree{}, nil, a, deb(t, "b", member{name: "etc/f", content: "1", mode: 0o600})), "cannot replace")
	wantError(t, buildError(&profile.Tree{}, nil, a, deb(t, "b", member{name: "etc/f/"})), "cannot make folder")
	wantError(t, buildError(&profile.Tree{}, nil, deb(t, "b", member{name: "etc/f/"}), deb(t, "c", member{name: "etc/f"})),
		"cannot replace")
	base := build(t, &profile.Tree{}, nil, a)
	wantError(t, buildError(&profile.Tree{}, base, deb(t, "b", member{name: "etc/f", content: "2"})), "cannot replace")
}

func TestBadMembers(t *testing.T) {
	wantError(t, buildError(&profile.Tree{}, nil, deb(t, "a", member{name: "../x"})), "leaves the tree")
	wantError(t, buildError(&profile.Tree{}, nil, deb(t, "a", member{name: "x", hard: true, target: "y"})), "no such file")
	wantError(t, buildError(&profile.Tree{}, nil,
		deb(t, "a", member{name: "x", target: "y"}, member{name: "y", target: "x"}, member{name: "x/z"})), "too many links")
	// A link out of the tree stays in it.
	tr := build(t, &profile.Tree{}, nil, deb(t, "a", member{name: "x", target: "../../etc"}, member{name: "x/z", content: "1"}))
	if tr.Lookup("/etc/z") == nil {
		t.Errorf("tree is\n%s", list(tr))
	}
}

func TestTruncatedTar(t *testing.T) {
	d := deb(t, "a", member{name: "f", content: strings.Repeat("x", 4000)})
	if err := os.Truncate(d.DataTar, 3000); err != nil {
		t.Fatal(err)
	}
	wantError(t, buildError(&profile.Tree{}, nil, d), "unexpected EOF")
}

// TestDeceptiveSizes has members that say of their size what is not so in the archive.
func TestDeceptiveSizes(t *testing.T) {
	for _, c := range []struct {
		name   string
		header tar.Header
		want   string
	}{
		{"larger than any file", tar.Header{Name: "f", Mode: 0o644, Size: math.MaxInt64}, "unexpected EOF"},
		{"sparse", tar.Header{Name: "f", Mode: 0o644, Size: 3, PAXRecords: map[string]string{
			"gnu.sparse.major": "0", "gnu.sparse.minor": "1", "gnu.sparse.size": "300", "gnu.sparse.numblocks": "1",
			"gnu.sparse.map": "0,3",
		}}, "sparse file"},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&c.header); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, "abc")
		w.Flush()
		d := Deb{Name: "a", DataTar: filepath.Join(t.TempDir(), "a.tar")}
		text := bytes.ReplaceAll(b.Bytes(), []byte("gnu.sparse"), []byte("GNU.sparse")) // Go's writer refuses to write these
		if err := os.WriteFile(d.DataTar, text, 0o644); err != nil {
			t.Fatal(err)
		}
		t.Run(c.name, func(t *testing.T) { wantError(t, buildError(&profile.Tree{}, nil, d), c.want) })
	}
}

func TestIncludeAndRemove(t *testing.T) {
	pkg := deb(t, "a", member{name: "usr/bin/keep"}, member{name: "usr/bin/drop"}, member{name: "usr/share/x/a/b"},
		member{name: "usr/share/x/c"}, member{name: "etc/f"})
	decl := &profile.Tree{Name: "t", Include: []string{"/usr/bin/*", "/usr/share/x"}, Remove: []string{"/**/drop", "/usr/share/x/a", "/opt"}}
	tr := build(t, decl, nil, pkg)
	wantList(t, tr, `
		5 0755 0:0 /
		5 0755 0:0 /usr
		5 0755 0:0 /usr/bin
		0 0755 0:0 /usr/bin/keep "" <nil>
		5 0755 0:0 /usr/share
		5 0755 0:0 /usr/share/x
		0 0755 0:0 /usr/share/x/c "" <nil>
	`)
	if len(tr.Warnings) != 1 || !strings.Contains(tr.Warnings[0], "/opt") {
		t.Errorf("warnings are %q, want one on the pattern that fits nothing", tr.Warnings)
	}
	wantError(t, buildError(&profile.Tree{Include: []string{"/usr/bin/kept"}}, nil, pkg), "fit no path of the packages: /usr/bin/kept")
	base := build(t, &profile.Tree{}, nil, pkg)
	over := build(t, &profile.Tree{Include: []string{"/b"}, Remove: []string{"/etc"}}, base, deb(t, "b", member{name: "b"}))
	if over.Lookup("/etc/f") == nil {
		t.Error("include and remove reach into the base")
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"/a/*", "/a/b", true}, {"/a/*", "/a/b/c", false}, {"/a/**", "/a/b/c", true}, {"/a/**", "/a", true},
		{"/**/c", "/c", true}, {"/**/c", "/a/b/c", true}, {"/**/c", "/a/b/d", false}, {"/a?/[xy]", "/ab/y", true},
		{"/a/**/z/*.so", "/a/b/c/z/l.so", true}, {"/a", "/a/b", false}, {"/[", "/[", false},
	} {
		if got := Match(c.pattern, c.path); got != c.want {
			t.Errorf("Match(%q, %q) = %v", c.pattern, c.path, got)
		}
	}
}

func TestLeftovers(t *testing.T) {
	tr := build(t, &profile.Tree{Files: []profile.File{{Path: "/etc/machine-id"}}}, nil, deb(t, "a",
		member{name: "etc/machine-id", content: "1"}, member{name: "var/log/a/"}, member{name: "var/log/a/b.log"},
		member{name: "var/cache/a/"}, member{name: "var/cache/a/x"}, member{name: "usr/share/doc/a/README"},
		member{name: "usr/share/doc/a/copyright", content: "free"}, member{name: "usr/share/man/man1/a.1"}))
	wantList(t, tr, `
		5 0755 0:0 /
		5 0755 0:0 /etc
		0 0644 0:0 /etc/machine-id "" <nil>
		5 0755 0:0 /usr
		5 0755 0:0 /usr/share
		5 0755 0:0 /usr/share/doc
		5 0755 0:0 /usr/share/doc/a
		0 0755 0:0 /usr/share/doc/a/copyright "free" <nil>
		5 0755 0:0 /var
		5 0755 0:0 /var/cache
		5 0755 0:0 /var/cache/a
		5 0755 0:0 /var/log
		5 0755 0:0 /var/log/a
	`)
}

func TestDeclarations(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "page"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	decl := &profile.Tree{
		Dir:      dir,
		Include:  []string{"/usr/sbin", "/var/run", "/usr/share/ca-certificates/mozilla/A.crt"},
		Remove:   []string{"/usr/share/ca-certificates"},
		CABundle: true,
		Users: []profile.User{{Name: "root", Home: "/root", Shell: "/bin/sh"}, {Name: "web", UID: 33, Groups: []string{"mail"}},
			{Name: "nobody", UID: 65534, Group: "nogroup"}},
		Groups: []profile.Group{{Name: "mail", GID: 8}, {Name: "nogroup", GID: 65534}},
		Dirs:   []profile.Dir{{Path: "/srv/data", Mode: "2750", Owner: "web:mail"}},
		Links:  []profile.Link{{Path: "/var/run", Target: "/run"}},
		Files: []profile.File{{Path: "/srv/page", Source: "page", Owner: "web:web"}, {Path: "/etc/copy", Copy: "/usr/share/conf"},
			{Path: "/etc/text", Content: "t\n", Mode: "0600"}},
		Modes: []profile.Mode{{Path: "/usr/sbin/postdrop", Mode: "2555", Owner: "root:mail"}, {Path: "/etc/passwd", Mode: "0444"}},
	}
	tr := build(t, decl, nil, deb(t, "a", member{name: "usr/sbin/postdrop"}, member{name: "usr/share/conf", content: "c", mode: 0o400},
		member{name: "var/run/"}, member{name: "usr/share/ca-certificates/mozilla/A.crt", content: "A"},
		member{name: "usr/share/ca-certificates/mozilla/B.crt", content: "B\n"}))
	wantList(t, tr, `
		5 0755 0:0 /
		5 0755 0:0 /etc
		0 0644 0:0 /etc/copy "c" <nil>
		0 0644 0:0 /etc/group "root:x:0:\nmail:x:8:web\nweb:x:33:\nnogroup:x:65534:\n" <nil>
		0 0640 0:42 /etc/gshadow "root:*::\nmail:*::web\nweb:*::\nnogroup:*::\n" <nil>
		0 0444 0:0 /etc/passwd "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/nonexistent:/usr/sbin/nologin\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n" <nil>
		0 0640 0:42 /etc/shadow "root:*:::::::\nweb:*:::::::\nnobody:*:::::::\n" <nil>
		5 0755 0:0 /etc/ssl
		5 0755 0:0 /etc/ssl/certs
		0 0644 0:0 /etc/ssl/certs/ca-certificates.crt "A\nB\n" <nil>
		0 0600 0:0 /etc/text "t\n" <nil>
		5 0755 0:0 /srv
		5 2750 33:8 /srv/data
		0 0644 33:33 /srv/page "hello" <nil>
		5 0755 0:0 /usr
		5 0755 0:0 /usr/sbin
		0 2555 0:8 /usr/sbin/postdrop "" <nil>
		5 0755 0:0 /usr/share
		5 0755 0:0 /var
		2 0777 0:0 /var/run -> /run
	`)
}

func TestImpossibleDeclarations(t *testing.T) {
	pkg := deb(t, "a", member{name: "var/run/f"}, member{name: "etc/g"})
	for want, decl := range map[string]*profile.Tree{
		`"/var/run/f" is in it`: {Links: []profile.Link{{Path: "/var/run", Target: "/run"}}},
		"no such path":          {Modes: []profile.Mode{{Path: "/etc/h", Mode: "0600"}}},
		"no such file":          {Files: []profile.File{{Path: "/x", Copy: "/etc/h"}}},
		"no such user or group": {Dirs: []profile.Dir{{Path: "/x", Owner: "a:b"}}},
		"no certificates":       {CABundle: true},
		"does not replace":      {Dirs: []profile.Dir{{Path: "/etc/g"}}},
		"not a folder":          {Files: []profile.File{{Path: "/etc/g/h"}}},
		"octal":                 {Dirs: []profile.Dir{{Path: "/x", Mode: "99"}}},
	} {
		wantError(t, buildError(decl, nil, pkg), want)
	}
}

func TestBrokenLinkIsReported(t *testing.T) {
	pkg := deb(t, "a", member{name: "usr/lib/l.so.1", content: "x"}, member{name: "usr/lib/l.so", target: "l.so.1"},
		member{name: "usr/lib/m.so", target: "m.so.1"})
	tr := build(t, &profile.Tree{Remove: []string{"/usr/lib/l.so.1"}}, nil, pkg)
	if len(tr.Warnings) != 1 || !strings.Contains(tr.Warnings[0], "/usr/lib/l.so -> l.so.1") {
		t.Errorf("warnings are %q, want one on the link whose target was removed", tr.Warnings)
	}
}

func writeTar(t testing.TB, tr *Tree) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := tr.WriteTar(&b, epoch); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// fullPackage has everything that a tar file of ours can hold.
func fullPackage(t testing.TB) Deb {
	return deb(t, "full", member{name: "usr/"}, member{name: "usr/bin/"},
		member{name: "usr/bin/zz", content: "linked", uid: 7}, member{name: "usr/bin/aa", hard: true, target: "usr/bin/zz"},
		member{name: "usr/bin/ping", content: "p", xattrs: map[string]string{"security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00"}},
		member{name: "usr/bin/" + strings.Repeat("long", 60), content: "l"}, member{name: "usr/bin/link", target: "zz"},
		member{name: "usr/bin/Größe", content: "g"})
}

func TestTarIsCanonical(t *testing.T) {
	a, b := fullPackage(t), deb(t, "other", member{name: "usr/"}, member{name: "usr/share/x", content: "x"})
	first := writeTar(t, build(t, &profile.Tree{}, nil, a, b))
	if second := writeTar(t, build(t, &profile.Tree{}, nil, b, a)); !bytes.Equal(first, second) {
		t.Error("another order of packages gives other bytes")
	}
	var names []string
	hardLinks := 0
	for r := tar.NewReader(bytes.NewReader(first)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(epoch) || h.Uname != "" || h.Gname != "" || !h.AccessTime.IsZero() {
			t.Errorf("member %q has time or names of its own: %+v", h.Name, h)
		}
		if h.Typeflag == tar.TypeLink {
			hardLinks++
			if h.Linkname != "usr/bin/aa" || h.Name != "usr/bin/zz" {
				t.Errorf("hard link %q to %q, want to the first path", h.Name, h.Linkname)
			}
		}
		names = append(names, strings.TrimSuffix(h.Name, "/"))
	}
	if names[0] != "." || !slices.IsSorted(names[1:]) || hardLinks != 1 {
		t.Errorf("members are %q with %d hard links", names, hardLinks)
	}
}

func TestTarRoundTrip(t *testing.T) {
	tr := build(t, &profile.Tree{}, nil, fullPackage(t))
	path := filepath.Join(t.TempDir(), "t.tar")
	if err := os.WriteFile(path, writeTar(t, tr), 0o644); err != nil {
		t.Fatal(err)
	}
	back, err := ReadTar(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(writeTar(t, tr), writeTar(t, back)) {
		t.Errorf("read back:\n%s\nwant\n%s", list(back), list(tr))
	}
	if back.nodes["/usr/bin/aa"] != back.nodes["/usr/bin/zz"] {
		t.Error("the hard link is lost")
	}
	if back.nodes["/usr/bin/ping"].Xattrs["security.capability"] == "" {
		t.Error("the file capability is lost")
	}
}

func TestSubtract(t *testing.T) {
	base := build(t, &profile.Tree{Users: []profile.User{{Name: "root"}}}, nil, baseFiles(t), deb(t, "x", member{name: "usr/lib/x", content: "x"}))
	before := list(base)
	over := build(t, &profile.Tree{Users: []profile.User{{Name: "web", UID: 33}}, Modes: []profile.Mode{{Path: "/usr/lib/x", Mode: "0600"}}},
		base, deb(t, "y", member{name: "lib/"}, member{name: "lib/y", content: "y"}))
	if list(base) != before {
		t.Error("building on a base changes it")
	}
	layer, err := over.Subtract(base)
	if err != nil {
		t.Fatal(err)
	}
	wantList(t, layer, `
		5 0755 0:0 /
		5 0755 0:0 /etc
		0 0644 0:0 /etc/group "root:x:0:\nweb:x:33:\n" <nil>
		0 0640 0:42 /etc/gshadow "root:*::\nweb:*::\n" <nil>
		0 0644 0:0 /etc/passwd "root:x:0:0::/nonexistent:/usr/sbin/nologin\nweb:x:33:33::/nonexistent:/usr/sbin/nologin\n" <nil>
		0 0640 0:42 /etc/shadow "root:*:::::::\nweb:*:::::::\n" <nil>
		5 0755 0:0 /usr
		5 0755 0:0 /usr/lib
		0 0600 0:0 /usr/lib/x "x" <nil>
		0 0755 0:0 /usr/lib/y "y" <nil>
	`)
	delete(over.nodes, "/usr/lib/x")
	_, err = over.Subtract(base)
	wantError(t, err, `cannot take "/usr/lib/x" of the base away`)
}

// FuzzReadTar reads any bytes as a package: no panic, and what was read can be written and read again.
func FuzzReadTar(f *testing.F) {
	for _, d := range []Deb{fullPackage(f), baseFiles(f)} {
		b, err := os.ReadFile(d.DataTar)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(dir, "in.tar")
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		tr, err := ReadTar(t.Context(), path)
		if err != nil {
			return
		}
		var first, second bytes.Buffer
		if err := tr.WriteTar(&first, epoch); err != nil {
			return // names and numbers that tar can hold only in forms that we do not write
		}
		again := filepath.Join(dir, "again.tar")
		if err := os.WriteFile(again, first.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		back, err := ReadTar(t.Context(), again)
		if err != nil {
			t.Fatalf("cannot read back: %v\n%s", err, list(tr))
		}
		if err := back.WriteTar(&second, epoch); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Errorf("read back differs (%v):\n%s\nwant\n%s", err, list(back), list(tr))
		}
	})
}
