package container

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"allotment/image"
)

// tree makes a folder of files (content is the name) and folders (with a slash at the end).
func tree(t *testing.T, paths ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, p := range paths {
		at := filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if p[len(p)-1] == '/' {
			if err := os.MkdirAll(at, 0o755); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(at, []byte(p), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestSkeletonHasWhatLayersLack(t *testing.T) {
	base := tree(t, "proc/", "etc/hosts", "var/lib/")
	if err := os.Chmod(filepath.Join(base, "var/lib"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/run", filepath.Join(base, "var/run")); err != nil {
		t.Fatal(err)
	}
	top := tree(t, "tmp/")
	lowers := []string{base, top}
	points, err := missing(lowers, []string{"/proc/", "/tmp/", "/etc/hosts", "/etc/resolv.conf", "/var/lib/page/data/", "/var/run/page/"})
	if err != nil {
		t.Fatal(err)
	}
	if len(points) != 2 || points[0] != "/etc/resolv.conf" || points[1] != "/var/lib/page/data/" {
		t.Fatalf("missing: %q", points)
	}
	skeleton := filepath.Join(t.TempDir(), "skeleton")
	if err := copyFolderOnce(skeleton, lowers, os.Getuid()); err != nil {
		t.Fatal(err)
	}
	for _, p := range points {
		if err := addPoint(skeleton, lowers, p, os.Getuid()); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]fs.FileMode{
		"etc/resolv.conf":    0o644,
		"var/lib":            fs.ModeDir | 0o700, // as in the layer that it covers
		"var/lib/page":       fs.ModeDir | 0o755,
		"var/lib/page/data/": fs.ModeDir | 0o755,
	} {
		if st, err := os.Stat(filepath.Join(skeleton, path)); err != nil || st.Mode() != want {
			t.Errorf("%s: %v, %v", path, st, err)
		}
	}
	if _, err := os.Stat(filepath.Join(skeleton, "etc/hosts")); err == nil {
		t.Error("the skeleton covers a file of a layer")
	}
	if all, err := missing(append(lowers, skeleton), points); err != nil || all != nil {
		t.Errorf("still missing: %q, %v", all, err)
	}
}

func TestLastMessage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for in, want := range map[string]string{
		`{"msg":"first","level":"error"}` + "\n" + `{"msg":"exec: no such file","level":"error"}` + "\n": "exec: no such file",
		"not JSON\n": "not JSON",
		"":           "",
	} {
		if err := os.WriteFile(path, []byte(in), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := lastMessage(path); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
	if got := lastMessage(path + ".gone"); got == "" {
		t.Error("no log, no word")
	}
}

func TestOutOfMemoryNamesTheLimit(t *testing.T) {
	s := service(t, func(m *image.Module) { m.Services[0].Memory = 48 })
	const none = "low 0\nhigh 0\nmax 12\noom 0\noom_kill 0\n"
	for _, c := range []struct{ killed, own, module, want string }{
		{none, none, none, ""},
		{none, none, "oom 1\n", ""},
		{"oom 1\noom_kill 1\noom_group_kill 1\n", "max 1\noom 1\n", none, "web.page needed more than its 48 MiB of memory"},
		{"oom_kill 1\n", none, "oom 3\n", "the services of web needed more than its 64 MiB of memory together"},
		{"oom_kill 1\n", none, none, "the box ran out of memory"},
	} {
		root := t.TempDir()
		r := New(Config{Cgroup: root}, nil)
		for file, content := range map[string]string{
			s.Cgroup + "/memory.events": c.killed, s.Cgroup + "/memory.events.local": c.own,
			s.Module.Cgroup + "/memory.events.local": c.module,
		} {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, file), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := r.outOfMemory(s); got != c.want {
			t.Errorf("%q %q %q: %q", c.killed, c.own, c.module, got)
		}
	}
	if got := New(Config{Cgroup: t.TempDir()}, nil).outOfMemory(s); got != "" {
		t.Errorf("a cgroup that is gone: %q", got)
	}
}

func TestShareDisks(t *testing.T) {
	sys := tree(t, "vda/queue/scheduler", "vda/device/", "dm-0/queue/scheduler", "loop0/queue/")
	if err := ShareDisks(sys); err != nil {
		t.Fatal(err)
	}
	for disk, want := range map[string]string{"vda": "bfq", "dm-0": "dm-0/queue/scheduler"} {
		if b, err := os.ReadFile(filepath.Join(sys, disk, "queue/scheduler")); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", disk, b, err)
		}
	}
}

func TestLastLine(t *testing.T) {
	long := strings.Repeat("x", 3*mostOutput)
	for in, want := range map[string]string{
		"":                "",
		"one\ntwo\n\n":    "two",
		"one":             "one",
		long + "\nend":    "end",
		long:              long[:mostOutput],
		"not \xff text\n": "not ? text",
	} {
		var byByte, atOnce tail
		for i := range len(in) {
			byByte.Write([]byte{in[i]})
		}
		atOnce.Write([]byte(in))
		if byByte.line() != want || atOnce.line() != want {
			t.Errorf("%.20q: %.40q, and all at once %.40q", in, byByte.line(), atOnce.line())
		}
	}
}
