package confine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPaths holds a thread to paths, and wants it to reach these and no others.
func TestPaths(t *testing.T) {
	if err := Supported(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"read", "write", "other"} {
		if err := errors.Join(os.Mkdir(filepath.Join(dir, name), 0o755), os.WriteFile(filepath.Join(dir, name, "file"), nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	p := Paths{Read: []string{at("read"), at("missing")}, Write: []string{at("write"), os.DevNull}}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its limits
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if err == nil {
			err = p.enforce()
		}
		failed <- err
		for _, f := range []func() error{
			func() error { _, err := os.ReadFile(at("read/file")); return err },
			func() error { return os.WriteFile(at("write/new"), nil, 0o600) },
			func() error { return os.WriteFile(os.DevNull, nil, 0o600) },
			func() error { return os.WriteFile(at("read/file"), nil, 0o600) },
			func() error { _, err := os.ReadFile(at("other/file")); return err },
			func() error { return os.WriteFile(at("other/file"), nil, 0o600) },
		} {
			failed <- f()
		}
	}()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"reading what may be read", "writing what may be written", "writing to nowhere"} {
		if err := <-failed; err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, what := range []string{"writing what may be read", "reading elsewhere", "writing elsewhere"} {
		if err := <-failed; !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s is let through: %v", what, err)
		}
	}
	if _, err := os.ReadFile(at("other/file")); err != nil {
		t.Errorf("other threads are held as well: %v", err)
	}
}
