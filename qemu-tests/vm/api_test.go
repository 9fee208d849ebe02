package vm

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"allotment/api"
)

func TestSharedMachinesAreFound(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	if _, err := Find(""); err == nil || !strings.Contains(err.Error(), "no machine runs") {
		t.Errorf("no machine: %v", err)
	}
	nobody := api.New(nil)
	first := &VM{api: nobody}
	for _, want := range []string{"club", "club-2"} {
		name, stop, err := first.Share("club")
		if err != nil || name != want {
			t.Fatalf("name %q, %v; want %q", name, err, want)
		}
		defer stop()
		path, err := Find(want)
		if err != nil || strings.TrimSuffix(filepath.Base(path), sharedSuffix) != want {
			t.Errorf("found %q, %v; want %q", path, err, want)
		}
	}
	if path, err := Find(""); err != nil || !strings.HasSuffix(path, "/club-2.sock") {
		t.Errorf("the newest is %q, %v", path, err)
	}
	if _, err := Find("garden"); err == nil || !strings.Contains(err.Error(), `but: club-2, club`) {
		t.Errorf("another name: %v", err)
	}
}

func TestSocketOfADeadMachineIsPassedOver(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	dir, err := sharedFolder()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "club.sock"))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if path, err := Find(""); err == nil {
		t.Errorf("found %q", path)
	}
	name, stop, err := (&VM{api: api.New(nil)}).Share("club")
	if err != nil || name != "club" {
		t.Fatalf("name %q, %v", name, err)
	}
	stop()
}

func TestSharedFolderIsPrivate(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	dir, err := sharedFolder()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := sharedFolder(); err == nil || !strings.Contains(err.Error(), "others can write there") {
		t.Errorf("a folder that all can write to: %v", err)
	}
}
