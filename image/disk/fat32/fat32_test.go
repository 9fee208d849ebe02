package fat32

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var testOptions = Options{Label: "ALLOTMENT", Serial: 0x12345678, Time: time.Date(2026, 11, 22, 13, 14, 16, 0, time.UTC)}

// testFiles have names of all kinds, empty files, and a folder that needs more than one cluster.
func testFiles() []File {
	files := []File{
		{"EFI/BOOT/BOOTX64.EFI", bytes.Repeat([]byte("boot"), 50000)},
		{"EFI/Linux/allotment-2026.11.3.efi", bytes.Repeat([]byte("uki"), 100000)},
		{"EFI/Linux/allotment-2026.11.4+3.efi", []byte("trial")},
		{"loader/loader.conf", []byte("timeout 0\n")},
		{"loader/entries.srel", nil},
		{"allotment/2026.11.3/vmlinuz", bytes.Repeat([]byte{7}, ClusterSize)},
		{"allotment/2026.11.3/initrd", bytes.Repeat([]byte{8}, ClusterSize+1)},
		{"exactly13char", []byte("13")},
		{".hidden", []byte("h")},
	}
	for i := range 150 {
		files = append(files, File{fmt.Sprintf("many/a file with a long name, number %d.txt", i), []byte{byte(i)}})
	}
	return files
}

// newVolume writes a volume into a sparse file.
func newVolume(t testing.TB, size int64, files []File) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "esp"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := Write(f, size, files, testOptions); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestWriteAndRead(t *testing.T) {
	f := newVolume(t, MinSize, testFiles())
	v, err := Read(f, MinSize)
	if err != nil {
		t.Fatal(err)
	}
	if v.Label != "ALLOTMENT" || len(v.Files) != len(testFiles()) {
		t.Errorf("label %q and %d files, want ALLOTMENT and %d", v.Label, len(v.Files), len(testFiles()))
	}
	for _, want := range testFiles() {
		got, err := v.ReadFile(want.Path)
		if err != nil || !bytes.Equal(got, want.Data) {
			t.Errorf("%s: %d bytes, %v; want %d", want.Path, len(got), err, len(want.Data))
		}
	}
	if got, err := v.ReadFile("efi/boot/bootx64.efi"); err != nil || len(got) != 200000 {
		t.Errorf("other case: %d bytes, %v", len(got), err)
	}
	if _, err := v.ReadFile("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such file: %v", err)
	}
	info := make([]byte, sectorSize)
	if _, err := f.ReadAt(info, infoSector*sectorSize); err != nil {
		t.Fatal(err)
	}
	if free := int64(binary.LittleEndian.Uint32(info[488:])) * ClusterSize; free != v.Free {
		t.Errorf("FSInfo says %d bytes are free, the FAT %d", free, v.Free)
	}
}

func TestWriteIsDeterministic(t *testing.T) {
	a := newVolume(t, MinSize, testFiles())
	files := testFiles()
	files[0], files[3] = files[3], files[0] // the order does not matter
	b := newVolume(t, MinSize, files)
	x, y := make([]byte, 8<<20), make([]byte, 8<<20)
	if _, err := a.ReadAt(x, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ReadAt(y, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(x, y) {
		t.Error("the same files gave other bytes")
	}
}

func TestWriteRefuses(t *testing.T) {
	data := []byte("x")
	for _, c := range []struct {
		name  string
		size  int64
		files []File
		want  string
	}{
		{"too small", 512 << 20, nil, "clusters"},
		{"absolute", MinSize, []File{{"/a", data}}, "clean relative path"},
		{"upwards", MinSize, []File{{"../a", data}}, "clean relative path"},
		{"no name", MinSize, []File{{"", data}}, "clean relative path"},
		{"twice", MinSize, []File{{"a", data}, {"a", data}}, "already"},
		{"twice but for case", MinSize, []File{{"a", data}, {"A", data}}, "already"},
		{"file as folder", MinSize, []File{{"a", data}, {"a/b", data}}, "already"},
		{"folder as file", MinSize, []File{{"a/b", data}, {"a", data}}, "already"},
		{"character", MinSize, []File{{"a:b", data}}, "character"},
		{"dot at the end", MinSize, []File{{"a.", data}}, "ends in a dot"},
		{"full", MinSize, []File{{"a", make([]byte, 300<<20)}, {"b", make([]byte, 300<<20)}}, "full"},
	} {
		err := Write(discard{}, c.size, c.files, testOptions)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
		}
	}
}

type discard struct{}

func (discard) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }

func TestShortNames(t *testing.T) {
	taken := map[[11]byte]bool{}
	for _, c := range []struct {
		name, short string
		exact       bool
	}{
		{"BOOTX64.EFI", "BOOTX64 EFI", true},
		{"loader.conf", "LOADER~1CON", false},
		{"vmlinuz", "VMLINUZ    ", false},
		{"allotment-1.0.efi", "ALLOTM~1EFI", false},
		{"allotment-1.1.efi", "ALLOTM~2EFI", false},
		{"2026.11.3", "202611~13  ", false},
		{".hidden", "HIDDEN~1   ", false},
	} {
		short, exact := shortName(c.name, taken)
		taken[short] = true
		if string(short[:]) != c.short || exact != c.exact {
			t.Errorf("%s: %q, %v; want %q, %v", c.name, short, exact, c.short, c.exact)
		}
	}
}

// TestReadNotices damages a volume in one place at a time.
func TestReadNotices(t *testing.T) {
	f := newVolume(t, MinSize, testFiles())
	g, err := newGeometry(MinSize)
	if err != nil {
		t.Fatal(err)
	}
	fat2 := (g.reserved + g.fat) * sectorSize
	for _, c := range []struct {
		name string
		at   int64
		want string
	}{
		{"signature", 510, "boot sector"},
		{"sector size", 11, "unusual"},
		{"number of sectors", 35, "fit"},
		{"size of the FAT", 38, "fit"},
		{"root cluster", 45, "cluster"},
		{"second FAT", fat2 + 100, "differ"},
		{"long name", g.offset(rootCluster) + entrySize, "long name"},
	} {
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, c.at); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{b[0] ^ 0xa5}, c.at); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(f, MinSize); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s damaged: %v, want an error with %q", c.name, err, c.want)
		}
		if _, err := f.WriteAt(b, c.at); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Read(f, MinSize); err != nil {
		t.Error("the volume as it was:", err)
	}
}

// TestReadHidesNothing has a file whose name begins as those of the links that each folder has to itself and its parent.
func TestReadHidesNothing(t *testing.T) {
	f := newVolume(t, MinSize, []File{{"KERNEL", []byte("x")}})
	g, err := newGeometry(MinSize)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("."), g.offset(rootCluster)+entrySize); err != nil { // behind the label
		t.Fatal(err)
	}
	if v, err := Read(f, MinSize); err != nil || len(v.Files) != 1 || v.Files[0].Path != ".ERNEL" {
		t.Errorf("volume is %+v, error %v; want file .ERNEL in it", v, err)
	}
}

// patched is a sparse volume: zeros but for some bytes from its start on.
type patched []byte

func (p patched) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	if off < int64(len(p)) {
		copy(b, p[off:])
	}
	return len(b), nil
}

// FuzzRead feeds volumes to the reader, which must end soon, not panic, and read no file longer than the volume.
func FuzzRead(f *testing.F) {
	volume := newVolume(f, MinSize, testFiles()[:6])
	start := make([]byte, 600<<10) // boot sectors, FATs and the first folders
	if _, err := volume.ReadAt(start, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(start)
	f.Add(start[:sectorSize])
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Read(patched(b), MinSize)
		if err != nil {
			return
		}
		for _, e := range v.Files[:min(len(v.Files), 10)] {
			if data, err := v.ReadFile(e.Path); err == nil && len(data) > MinSize {
				t.Errorf("file %q has %d bytes", e.Path, len(data))
			}
		}
	})
}
