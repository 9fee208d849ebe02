package slot

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"allotment/image"
	"allotment/image/disk/fat32"
	"allotment/image/esp"
)

// TestDevice finds the partition by its name and works on a file in place of it, past the page cache.
func TestDevice(t *testing.T) {
	class, dev := t.TempDir(), t.TempDir()
	for n, name := range []string{1: "bios", 2: "esp", 3: "root-a"} {
		dir := filepath.Join(class, "vda", fmt.Sprintf("vda%d", n))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string]string{
			"uevent": fmt.Sprintf("DEVTYPE=partition\nPARTN=%d\nPARTNAME=%s\n", n, name), "size": fmt.Sprint(fat32.MinSize / 512),
		} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	path := filepath.Join(dev, "vda2")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head := make([]byte, 2<<20)
	if _, err := newESP(t, image.AMD64).ReadAt(head, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(head, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(fat32.MinSize); err != nil {
		t.Fatal(err)
	}
	d, size, err := openDevice(class, filepath.Join(dev, "vda"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if size != fat32.MinSize {
		t.Errorf("it has %d bytes", size)
	}
	m := machine{image.AMD64, true}
	s := m.open(t, d)
	large := bytes.Repeat([]byte("0123456789abcdef"), 10<<20/16) // more than waits in memory
	if err := s.ed.Create("large", int64(len(large)), bytes.NewReader(large)); err != nil {
		t.Fatal(err)
	}
	r, err := s.ed.Open("large")
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(large)-12345)
	if _, err := r.ReadAt(got, 12345); err != nil || !bytes.Equal(got, large[12345:]) {
		t.Errorf("read back something else, %v", err)
	}
	if _, err := s.ed.Open(esp.UKIPath("1.0")); err != nil {
		t.Error(err)
	}
	if _, _, err := openDevice(class, filepath.Join(dev, "vdb")); err == nil {
		t.Error("a disk without an ESP has one")
	}
}
