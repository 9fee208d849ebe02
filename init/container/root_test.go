package container

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/erofs/go-erofs"
	"golang.org/x/sys/unix"

	"allotment/image"
	"allotment/init/reaper"
)

// TestMain lets the test binary hold user namespaces, as the supervisor's program does.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == HoldArgument {
		io.Copy(io.Discard, os.Stdin)
		return
	}
	os.Exit(m.Run())
}

// layer writes an EROFS file with the files, whose content is their name; they belong to user 33.
func layer(t *testing.T, paths ...string) string {
	t.Helper()
	source := tree(t, paths...)
	err := filepath.WalkDir(source, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, 33, 33)
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "layer.erofs")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w := erofs.Create(out)
	if err := w.CopyFrom(os.DirFS(source)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file
}

// needRoot skips a test that mounts.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
}

// privately runs the test's body in a thread with mounts of its own. It skips the test where the kernel does not allow
// that, or cannot mount EROFS files.
func privately(t *testing.T, body func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends and its mounts with it
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			done <- err
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			done <- err
			return
		}
		done <- body()
	}()
	err := <-done
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOTBLK) {
		t.Skipf("this machine cannot do it: %v", err)
	}
	if err != nil {
		t.Error(err)
	}
}

func owner(t *testing.T, path string) uint32 {
	t.Helper()
	st, err := os.Lstat(path)
	if err != nil {
		t.Error(err)
		return 0
	}
	return st.Sys().(*syscall.Stat_t).Uid
}

func TestRootOfMappedLayers(t *testing.T) {
	needRoot(t)
	base, middle := layer(t, "etc/passwd", "usr/bin/page", "proc/", "dev/"), layer(t, "usr/bin/page", "usr/lib/runtime")
	top := layer(t, "srv/index.html", "etc/page.conf")
	children := reaper.New()
	t.Cleanup(children.Close)
	r := New(Config{Self: "/proc/self/exe", Run: t.TempDir(), Resolv: "/etc/resolv.conf"}, children)
	m := service(t, func(m *image.Module) { m.Volumes = nil }).Module
	content := t.TempDir()
	if err := os.Chown(content, 33, 33); err != nil {
		t.Fatal(err)
	}
	privately(t, func() error {
		userns, err := r.userNamespace(m.FirstID)
		if err != nil {
			return err
		}
		defer userns.Close()
		if err := r.mountRoot(m, []string{base, middle, top}, userns); err != nil {
			return err
		}
		root := filepath.Join(r.moduleDir(m), "root")
		for _, path := range []string{"etc/passwd", "usr/lib/runtime", "srv/index.html"} {
			if b, err := os.ReadFile(filepath.Join(root, path)); err != nil || string(b) != path {
				t.Errorf("%s holds %q, %v", path, b, err)
			}
			if got := owner(t, filepath.Join(root, path)); got != m.FirstID+33 {
				t.Errorf("%s belongs to %d", path, got)
			}
		}
		if got := owner(t, filepath.Join(root, "run/page")); got != m.FirstID { // from the skeleton
			t.Errorf("a mount point belongs to %d", got)
		}
		if err := os.WriteFile(filepath.Join(root, "etc/passwd"), nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("writing to the root: %v", err)
		}
		if err := mountVolume(content, filepath.Join(r.moduleDir(m), "volumes", "content"), userns); err != nil {
			t.Error(err)
		} else if got := owner(t, filepath.Join(r.moduleDir(m), "volumes", "content")); got != m.FirstID+33 {
			t.Errorf("the volume belongs to %d", got)
		}
		if err := r.Dismiss(m); err != nil || attached(root) {
			t.Errorf("after Dismiss: %v, attached %v", err, attached(root))
		}
		return nil
	})
}

func TestOneLayerNeedsNoOverlay(t *testing.T) {
	needRoot(t)
	only := layer(t, "etc/hosts", "etc/resolv.conf", "proc/", "dev/", "tmp/", "run/page/", "srv/")
	children := reaper.New()
	t.Cleanup(children.Close)
	r := New(Config{Self: "/proc/self/exe", Run: t.TempDir()}, children)
	m := service(t, nil).Module
	privately(t, func() error {
		userns, err := r.userNamespace(m.FirstID)
		if err != nil {
			return err
		}
		defer userns.Close()
		if err := r.mountRoot(m, []string{only}, userns); err != nil {
			return err
		}
		var st unix.Statfs_t
		root := filepath.Join(r.moduleDir(m), "root")
		if err := unix.Statfs(root, &st); err != nil || st.Type != unix.EROFS_SUPER_MAGIC_V1 {
			t.Errorf("the root is of type %#x, %v", st.Type, err)
		}
		if got := owner(t, filepath.Join(root, "srv")); got != m.FirstID+33 {
			t.Errorf("a folder belongs to %d", got)
		}
		return r.Dismiss(m)
	})
}
