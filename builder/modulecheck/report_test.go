package modulecheck

import (
	"strings"
	"testing"

	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/builder/rootfs"
)

func TestReport(t *testing.T) {
	r := newReport([]*profile.Tree{
		{Name: "base", Ignore: []profile.Ignore{{Path: "/etc/x", Why: "nobody reads it"}, {Path: "/unused", Why: "-"}}},
		{Name: "mail"},
	})
	r.add("/etc/x/y", "missing file 0644 root:root")
	r.add("/var/lib/a", "missing folder 0755 root:root")
	r.add("/var/lib/a/b", "missing file 0644 root:root")
	r.add("/var/lib/ab", "missing file 0600 mail:mail")
	r.add("/etc/passwd", "missing user mail")
	var out strings.Builder
	if err := r.Write(&out); err != nil {
		t.Fatal(err)
	}
	want := `/etc/passwd      missing user mail
/var/lib/a       missing folder 0755 root:root, and 1 more in it
/var/lib/ab      missing file 0600 mail:mail
ignored: /etc/x  1, by base: nobody reads it
`
	if out.String() != want {
		t.Errorf("report:\n%s\nwant:\n%s", out.String(), want)
	}
	const wantErr = `cannot vouch for module "mail": paths that scripts make are not declared: 3`
	if err := r.Err(); err == nil || !strings.HasPrefix(err.Error(), wantErr) {
		t.Errorf("error %v, want %s", err, wantErr)
	}
}

func TestNeverMatters(t *testing.T) {
	own := map[string]debFile{"libpam-runtime": {}}
	for _, c := range []struct {
		path  string
		never bool
	}{
		{"/var/lib/dpkg/status", true},
		{"/usr/lib/python3/dist-packages/x/__pycache__/y.pyc", true},
		{"/etc/rc2.d/S01nginx", true},
		{"/etc/ssl/certs/0a775a30.0", true},
		{"/etc/ssl/certs/ca-certificates.crt", false},
		{"/etc/security/opasswd", true},
		{"/etc/pam.d/common-auth", false}, // as the module has that package
		{"/var/cache/man/index.db", true},
		{"/var/cache/radicale", false}, // somebody has to make it
		{"/", false},
	} {
		if got := neverMatters(c.path, own); got != c.never {
			t.Errorf("neverMatters(%q) is %v", c.path, got)
		}
	}
	if !neverMatters("/etc/pam.d/common-auth", nil) {
		t.Error("common-auth matters for modules without libpam-runtime")
	}
}

func TestBadInput(t *testing.T) {
	o := Options{Trees: []*profile.Tree{{Name: "web"}}, Lock: &lock.Lock{}}
	_, err := Check(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), `cannot check tree "web": the lock does not have it`) {
		t.Errorf("error %v for a lock without the tree", err)
	}
	if _, err := Check(t.Context(), Options{}); err == nil {
		t.Error("no error without a tree")
	}
	for _, text := range []string{"root", "root:x:zero:0", ""} {
		tree := rootfs.New()
		if err := tree.PutFile("/etc/passwd", 0o644, rootfs.Content{Bytes: []byte(text)}); err != nil {
			t.Fatal(err)
		}
		if _, err := readIDs(tree, "/etc/passwd"); err == nil {
			t.Errorf("no error for /etc/passwd %q", text)
		}
	}
}
