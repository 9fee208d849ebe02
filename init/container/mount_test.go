package container

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
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

func TestOutOfMemory(t *testing.T) {
	for events, want := range map[string]bool{
		"low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 1\n": true,
		"low 0\nhigh 0\nmax 12\noom 0\noom_kill 0\n":                   false,
	} {
		dir := tree(t)
		if err := os.WriteFile(filepath.Join(dir, "memory.events"), []byte(events), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := outOfMemory(dir); got != want {
			t.Errorf("%q: %v", events, got)
		}
	}
	if outOfMemory(t.TempDir()) {
		t.Error("a cgroup that is gone counts as out of memory")
	}
}
