package uevent

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	e, err := Parse([]byte("add@/devices/x/block/vda\x00ACTION=add\x00SUBSYSTEM=block\x00PARTNAME=a=b\x00"))
	if err != nil || e.Action != "add" || e.Path != "/devices/x/block/vda" || e.Env["SUBSYSTEM"] != "block" ||
		e.Env["PARTNAME"] != "a=b" {
		t.Errorf("got %+v, %v", e, err)
	}
	for _, bad := range []string{"", "add@/devices", "libudev\x00\xfe\xed", "@/devices\x00", "add@devices\x00"} {
		if e, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%q: got %+v", bad, e)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("add@/devices/x\x00ACTION=add\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := Parse(b); err == nil && (e.Action == "" || e.Path == "" || e.Env == nil) {
			t.Errorf("%q: got %+v", b, e)
		}
	})
}

func TestModaliases(t *testing.T) {
	root := t.TempDir()
	for path, text := range map[string]string{
		"pci0/modalias": "pci:v1\n", "pci0/dev/modalias": "virtio:d1\n", "pci1/modalias": "pci:v1\n", "cpu/modalias": "\n",
		"pci1/uevent": "MODALIAS=other\n",
	} {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := Modaliases(root); !slices.Equal(got, []string{"virtio:d1", "pci:v1"}) {
		t.Errorf("got %q", got)
	}
}

func TestNextEndsAtItsLimit(t *testing.T) {
	s, err := Listen()
	if err != nil {
		t.Skip(err) // a sandbox without netlink
	}
	defer s.Close()
	for { // events of the host may come
		_, err := s.Next(time.Millisecond)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
