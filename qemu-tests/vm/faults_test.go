package vm

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestCopySparseKeepsContentAndHoles(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	f, err := os.Create(from)
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, 1 << 20, size - 4096} {
		if _, err := f.WriteAt(bytes.Repeat([]byte{7}, 4096), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := CopySparse(from, to); err != nil {
		t.Fatal(err)
	}
	a, _ := os.ReadFile(from)
	b, err := os.ReadFile(to)
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("the copy differs (%v)", err)
	}
	info, err := os.Stat(to)
	if err != nil {
		t.Fatal(err)
	}
	if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used > 1<<20 {
		t.Errorf("the copy takes %d bytes on disk", used)
	}
}

func TestFlipByte(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte{1, 2, 3}, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := FlipByte(file, 1); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(file); !bytes.Equal(b, []byte{1, 2 ^ 0xff, 3}) {
		t.Errorf("now %v", b)
	}
	if FlipByte(file, 3) == nil {
		t.Error("a byte behind the end was flipped")
	}
}

func TestDiskFormat(t *testing.T) {
	sector := func(start, end string) []byte {
		b := make([]byte, 1024)
		copy(b, start)
		copy(b[512:], end)
		return b
	}
	for want, content := range map[string][]byte{
		"raw":   sector("\xfa\x31", ""),
		"qcow2": sector("QFI\xfb", ""),
		"vmdk":  sector("KDMV", ""),
		"vpc":   sector("\xfa\x31", "conectix"),
		"":      sector("\x28\xb5\x2f\xfd", ""),
	} {
		file := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(file, content, 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := diskFormat(file)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q, error %v: want %q", got, err, want)
		}
	}
}
