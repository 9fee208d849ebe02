package state

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"allotment/image"
	"allotment/image/layer"
	"allotment/init/reaper"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFindPartition(t *testing.T) {
	class := t.TempDir()
	for path, text := range map[string]string{
		"nvme0n1/uevent": "DEVTYPE=disk\n", "nvme0n1/queue/uevent": "",
		"nvme0n1/nvme0n1p6/uevent": "PARTN=6\nPARTNAME=state-b\n", "nvme0n1/nvme0n1p6/partition": "6\n",
		"nvme0n1/nvme0n1p7/uevent": "PARTN=7\nPARTNAME=state\n", "nvme0n1/nvme0n1p7/partition": "7\n",
		"nvme0n1/nvme0n1p7/size": "2048\n",
		"sda/sda1/uevent":        "PARTNAME=other\n",
	} {
		write(t, filepath.Join(class, path), text)
	}
	device, number, size, err := findPartition(class, "/dev/nvme0n1", "state")
	if err != nil || device != "/dev/nvme0n1p7" || number != 7 || size != 1<<20 {
		t.Errorf("got %q, %d, %d, %v", device, number, size, err)
	}
	for _, disk := range []string{"/dev/sda", "/dev/sdb"} {
		if device, _, _, err := findPartition(class, disk, "state"); err == nil {
			t.Errorf("found %q on %s", device, disk)
		}
	}
}

// store is a store on a file and a folder, as far as it needs neither btrfs nor fs-verity; machines test the rest.
func store(t *testing.T, content []byte) *Store {
	t.Helper()
	device := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(device, content, 0o644); err != nil {
		t.Fatal(err)
	}
	r := reaper.New()
	t.Cleanup(r.Close)
	s := &Store{Config: Config{Root: t.TempDir(), Reaper: r, Log: quiet()}, device: device, broken: map[string]error{}}
	if err := os.Mkdir(s.layerPath(""), 0o755); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMark(t *testing.T) {
	s := store(t, make([]byte, 64<<10))
	for _, want := range []bool{false, true} {
		got, err := hasMark(s.device)
		if err != nil || got != want {
			t.Fatalf("got %v, %v, want %v", got, err, want)
		}
		if err := setMark(s.device); err != nil {
			t.Fatal(err)
		}
	}
	// With the mark nothing is made, though there is no file system at all: its data may still be rescued.
	if err := s.makeFileSystem(context.Background()); err != nil {
		t.Error(err)
	}
	if _, err := hasMark(store(t, nil).device); err == nil {
		t.Error("read a mark from an empty device")
	}
}

// A file system whose first block is lost is not made anew, nor one that has only the first mark, as after a cut.
func TestOneMarkIsEnough(t *testing.T) {
	for i, lost := range markOffsets {
		s := store(t, make([]byte, 64<<10))
		if err := setMark(s.device); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(s.device, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt(make([]byte, 4096), lost); err != nil {
			t.Fatal(err)
		}
		if made, err := hasMark(s.device); !made || err != nil {
			t.Errorf("without mark %d: %t, %v", i, made, err)
		}
		if _, err := f.WriteAt(make([]byte, 4096), markOffsets[1-i]); err != nil {
			t.Fatal(err)
		}
		if made, err := hasMark(s.device); made || err != nil {
			t.Errorf("without both: %t, %v", made, err)
		}
	}
}

func TestMarkIsSetLast(t *testing.T) {
	s := store(t, make([]byte, 64<<10)) // too small for any file system, so that mkfs.btrfs fails wherever there is one
	if err := s.makeFileSystem(context.Background()); err == nil {
		t.Fatal("made a file system on 64 KiB")
	}
	if made, err := hasMark(s.device); made || err != nil {
		t.Errorf("marked what was not made: %v", err)
	}
}

func TestCopyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "copy")
	data := bytes.Repeat([]byte("0123456789abcdef"), 3<<16) // three steps
	if err := copyFile(context.Background(), path, bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the copy differs, %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := copyFile(context.Background(), path, strings.NewReader("short"), 10); !errors.Is(err, io.EOF) {
		t.Errorf("a short source gave %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := copyFile(ctx, path+"2", bytes.NewReader(data), int64(len(data))); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A layer without fs-verity, or whose digest the kernel cannot vouch for, is never handed out, whatever bytes it has.
func TestUnverifiedLayerIsRefused(t *testing.T) {
	content := strings.Repeat("layer", 1000)
	good, _, err := layer.Digest(strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	wrong := image.NewDigest([32]byte{1})
	s := store(t, nil)
	s.Layers = []image.Layer{{Name: "wrong", Digest: wrong, Size: 5000}}
	write(t, s.layerPath(layer.FileName(wrong)), content)
	write(t, s.layerPath("left"+unfinished), content)
	if err := s.checkLayers(context.Background()); err != nil {
		t.Fatal(err)
	}
	if path, err := s.Layer(wrong); err == nil {
		t.Errorf("handed out %q", path)
	}
	if err := s.allLayers(); err == nil || !strings.Contains(err.Error(), "the image has no seed") {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(s.layerPath("")); err != nil || len(left) != 1 || left[0].Name() != layer.FileName(wrong) {
		t.Errorf("the store has %v, %v, want what there is no other copy of", left, err)
	}
	if path, err := s.Layer(good); err == nil {
		t.Errorf("handed out %q, which the system does not name", path)
	}
}

func TestDamagedSeedIsRefused(t *testing.T) {
	s := store(t, make([]byte, 16384))
	want := image.NewDigest([32]byte{1})
	s.Layers = []image.Layer{{Name: "base", Digest: want, Size: 8192}}
	s.Seed = image.Seed{Offset: 4096, Size: 8192}
	if err := s.checkLayers(context.Background()); err != nil {
		t.Fatal(err)
	}
	if path, err := s.Layer(want); err == nil || !strings.Contains(err.Error(), "seed does not have it") {
		t.Errorf("got %q, %v", path, err)
	}
	if left, err := os.ReadDir(s.layerPath("")); err != nil || len(left) != 0 {
		t.Errorf("the store has %v, %v", left, err)
	}
}
