package modulecheck

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"allotment/builder/apt"
	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/builder/tools"
	"allotment/image"
	"allotment/internal/cache"
	"allotment/internal/progress"
)

func TestMain(m *testing.M) {
	tools.EnterIfAsked()
	os.Exit(m.Run())
}

// planted is a package whose script does what scripts do.
const planted = `#!/bin/sh
set -e
adduser --system --group --home /var/lib/planted --no-create-home planted
chgrp planted /usr/sbin/planted
chmod 2755 /usr/sbin/planted
mkdir -p /var/lib/planted/state/deeper
chown planted:planted /var/lib/planted/state
chmod 0750 /var/lib/planted/state
ln -s planted.conf /etc/planted/link
echo setting > /etc/planted/made.conf
echo setting >> /etc/planted/planted.conf
rm /etc/planted/example.conf
`

// declare says in module page's tree what that script does.
func declare(t *profile.Tree) {
	t.Include = append(t.Include, "/usr/sbin/planted", "/etc/planted")
	t.Remove = append(t.Remove, "/etc/planted/example.conf")
	t.Users = append(t.Users, profile.User{Name: "planted", UID: 950, Home: "/var/lib/planted"})
	t.Modes = append(t.Modes, profile.Mode{Path: "/usr/sbin/planted", Mode: "2755", Owner: "root:planted"})
	t.Dirs = append(t.Dirs,
		profile.Dir{Path: "/var/lib/planted/state", Mode: "0750", Owner: "planted:planted"},
		profile.Dir{Path: "/var/lib/planted/state/deeper"})
	t.Links = append(t.Links, profile.Link{Path: "/etc/planted/link", Target: "/etc/planted/planted.conf"})
	t.Files = append(t.Files,
		profile.File{Path: "/etc/planted/planted.conf", Content: "ours"},
		profile.File{Path: "/etc/planted/made.conf", Content: "ours"})
}

// TestPage checks module page with the planted package in it: with all declarations, and without some of each kind.
func TestPage(t *testing.T) {
	if testing.Short() {
		t.Skip("installs some 110 packages")
	}
	o := options(t)
	if r, err := Check(t.Context(), o); err != nil {
		t.Fatal(err)
	} else if err := r.Err(); err != nil {
		t.Error(err)
	}
	packages, err := o.fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	normal, err := o.normal(t.Context(), packages)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		forget func(base, web *profile.Tree)
		want   []Finding
	}{
		{"nothing", func(_, _ *profile.Tree) {}, nil},
		{"a link of debian-base", func(base, _ *profile.Tree) {
			base.Links = slices.DeleteFunc(base.Links, func(l profile.Link) bool { return l.Path == "/var/run" })
		}, []Finding{{"/var/run", "link to /run, not folder 0755 root:root", 0}}},
		{"an ignored path of web", func(_, web *profile.Tree) {
			web.Ignore = slices.DeleteFunc(web.Ignore, func(i profile.Ignore) bool { return i.Path == "/var/l*/nginx" })
		}, []Finding{
			{"/var/log/nginx/access.log", "missing file 0640 www-data:adm", 0},
			{"/var/log/nginx/error.log", "missing file 0640 www-data:adm", 0},
		}},
		{"a user", func(_, web *profile.Tree) {
			web.Users, web.Modes, web.Dirs = nil, nil, nil
		}, []Finding{
			{"/etc/group", "missing group planted", 0},
			{"/etc/passwd", "missing user planted", 0},
			{"/usr/sbin/planted", "file 2755 root:planted, not file 0755 root:root", 0},
			{"/var/lib/planted", "missing folder 0755 root:root", 2},
		}},
		{"the set-group-ID bit", func(_, web *profile.Tree) {
			web.Modes[0].Mode = "0755"
		}, []Finding{{"/usr/sbin/planted", "file 2755 root:planted, not file 0755 root:planted", 0}}},
		{"an owner", func(_, web *profile.Tree) {
			web.Dirs[0].Owner = ""
		}, []Finding{{"/var/lib/planted/state", "folder 0750 planted:planted, not folder 0750 root:root", 0}}},
		{"a link", func(_, web *profile.Tree) {
			web.Links = nil
		}, []Finding{{"/etc/planted/link", "missing link to planted.conf", 0}}},
		{"files", func(_, web *profile.Tree) {
			web.Files = web.Files[:len(web.Files)-2]
		}, []Finding{
			{"/etc/planted/made.conf", "missing file 0644 root:root", 0},
			{"/etc/planted/planted.conf", "a script changes what the package ships", 0},
		}},
		{"a removal", func(_, web *profile.Tree) {
			web.Remove = nil
		}, []Finding{{"/etc/planted/example.conf", "a script removes it", 0}}},
	} {
		t.Run("without "+c.name, func(t *testing.T) {
			o := options(t)
			c.forget(o.Trees[0], o.Trees[1])
			built, err := o.build(t.Context(), packages)
			if err != nil {
				t.Fatal(err)
			}
			r, err := compare(normal, built, o.Trees, packages.own)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(r.Findings, c.want) {
				var said bytes.Buffer
				r.Write(&said)
				t.Errorf("found:\n%s\nwant: %v", said.String(), c.want)
			}
			if got := errors.Is(r.Err(), ErrForgotten); got != (len(c.want) > 0) {
				t.Errorf("error is %v with %d findings", r.Err(), len(r.Findings))
			}
		})
	}
}

// options are for a check of module page with the planted package, all of which is declared.
func options(t *testing.T) Options {
	t.Helper()
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
	client := apt.New(c, p.Debian, l.Epoch)
	root, err := tools.Open(t.Context(), c, client, progress.Silent{})
	if err != nil {
		t.Fatal(err)
	}
	arch := image.Arch(runtime.GOARCH)
	pkg, path := plant(t, c)
	l.Trees["page"][arch] = append(l.Trees["page"][arch], pkg)
	declare(&p.Modules[0].Tree)
	return Options{
		Trees: []*profile.Tree{p.Trees["debian-base"], &p.Modules[0].Tree},
		Lock:  l, Tools: root, Fetcher: withPlanted{client, pkg, path}, Cache: c, Progress: progress.Silent{},
	}
}

// withPlanted is a fetcher that also knows the planted package.
type withPlanted struct {
	client *apt.Client
	pkg    lock.Package
	path   string
}

func (f withPlanted) Fetch(ctx context.Context, all []lock.Package, to progress.Reporter) ([]string, error) {
	at := slices.Index(all, f.pkg)
	if at < 0 {
		return f.client.Fetch(ctx, all, to)
	}
	paths, err := f.client.Fetch(ctx, slices.Concat(all[:at], all[at+1:]), to)
	if err != nil {
		return nil, err
	}
	return slices.Insert(paths, at, f.path), nil
}

// plant writes the planted package to the cache, from which it is installed.
func plant(t *testing.T, c cache.Dir) (lock.Package, string) {
	t.Helper()
	control := "Package: planted\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: test\n"
	archive := "!<arch>\n" + member("debian-binary", "2.0\n") +
		member("control.tar", tarOf(t, "./control", control, 0o644, "./postinst", planted, 0o755)) +
		member("data.tar", tarOf(t, "./etc/planted/planted.conf", "a\n", 0o644, "./etc/planted/example.conf", "", 0o644,
			"./usr/sbin/planted", "#!/bin/sh\n", 0o755))
	digest, size, err := image.DigestOf(strings.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	path, err := c.Make(t.Context(), "deb", digest.Hex(), func(tmp string) error {
		return os.WriteFile(tmp, []byte(archive), 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return lock.Package{Name: "planted", Version: "1", Arch: "all", Size: size, SHA256: digest}, path
}

// member is a file of an ar archive.
func member(name, content string) string {
	return fmt.Sprintf("%-16s%-12d%-6d%-6d%-8o%-10d`\n%s%s",
		name, 0, 0, 0, 0o100644, len(content), content, "\n"[:len(content)%2])
}

// tarOf is a tar archive of files, each given by name, content and mode, and the folders that they are in.
func tarOf(t *testing.T, files ...any) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	made := map[string]bool{"./": true}
	header := func(h tar.Header, content string) {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; i < len(files); i += 3 {
		name, content, mode := files[i].(string), files[i+1].(string), files[i+2].(int)
		for at, r := range name {
			if dir := name[:at+1]; r == '/' && !made[dir] {
				made[dir] = true
				header(tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, "")
			}
		}
		header(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(mode), Size: int64(len(content))}, content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
