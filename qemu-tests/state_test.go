package qemutests

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"

	"allotment/builder/tools"
	"allotment/image"
	"allotment/qemu-tests/vm"
)

// recording is the first boot of the image under BIOS, with every write to its disk.
type recording struct {
	disk string // the disk after the shutdown, raw
	log  string // of the writes
}

var (
	firstBootOnce sync.Once
	firstBootDone *recording
)

// firstBoot boots the image for the first time, once for all tests that begin with a machine that has been used.
func firstBoot(t *testing.T) (*built, *recording) {
	t.Helper()
	b := minimal(t, image.AMD64)
	firstBootOnce.Do(func() {
		dir := filepath.Join(scratch, "first")
		r := &recording{disk: filepath.Join(scratch, "first.raw"), log: filepath.Join(scratch, "first.log")}
		m := b.boot(t, vm.Options{Firmware: vm.BIOS, Dir: dir, LogWrites: r.log})
		b.mustServe(t, m)
		b.mustShutDown(t, m)
		if err := vm.Flatten(t.Context(), b.tools.With(scratch), dir, r.disk); err != nil {
			t.Fatal(err)
		}
		if !t.Failed() {
			firstBootDone = r
		}
	})
	if firstBootDone == nil {
		t.Fatal("the first boot failed")
	}
	return b, firstBootDone
}

func TestSecondBootKeepsState(t *testing.T) {
	b, first := firstBoot(t)
	before := readState(t, b, first.disk)
	if len(before) == 0 {
		t.Fatal("the first boot left nothing in the folder system of the state partition")
	}
	dir := t.TempDir()
	m := b.boot(t, vm.Options{Firmware: vm.BIOS, Disk: first.disk, Dir: dir})
	b.mustServe(t, m)
	b.mustShutDown(t, m)
	disk := filepath.Join(t.TempDir(), "second.raw")
	if err := vm.Flatten(t.Context(), b.tools.With(scratch), dir, disk); err != nil {
		t.Fatal(err)
	}
	after := readState(t, b, disk)
	for name, content := range before {
		if name == "time" { // the last known one
			continue
		}
		if after[name] != content {
			t.Errorf("/system/%s was %q and is %q after the second boot", name, content, after[name])
		}
	}
}

// readState checks the state file system of a raw disk and returns the files of its folder system.
func readState(t *testing.T, b *built, disk string) map[string]string {
	t.Helper()
	part, _ := statePart(t, b, disk)
	if _, err := output(t.Context(), b.tools, "btrfs", "check", "--readonly", part); err != nil {
		t.Errorf("the state file system is not clean: %v", err)
	}
	to := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(to, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := output(t.Context(), b.tools, "btrfs", "restore", "--path-regex", `^/(|system(|/.*))$`, part, to); err != nil {
		t.Fatal(err)
	}
	names, err := os.ReadDir(filepath.Join(to, "system"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, n := range names {
		content, err := os.ReadFile(filepath.Join(to, "system", n.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[n.Name()] = string(content)
	}
	return files
}

// statePart copies the state partition of a raw disk to a file of its own and tells where the partition lies.
func statePart(t *testing.T, b *built, disk string) (string, partition) {
	t.Helper()
	parts, err := partitions(t.Context(), b.tools, disk)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "state.part")
	if err := copyPart(disk, parts["state"], file); err != nil {
		t.Fatal(err)
	}
	return file, parts["state"]
}

// copyPart copies a partition of a raw disk to a file with holes.
func copyPart(disk string, p partition, to string) error {
	in, err := os.Open(disk)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.CopyBuffer(&sparseWriter{f: out}, struct{ io.Reader }{io.NewSectionReader(in, p.start, p.size)},
		make([]byte, 1<<20)); err != nil {
		return err
	}
	return out.Truncate(p.size)
}

// inState is where on a used disk the data lies that holds a byte of a layer's file.
func inState(t *testing.T, b *built, disk string, layer image.Layer, offset int64) int64 {
	t.Helper()
	part, place := statePart(t, b, disk)
	logical, err := layerExtent(t.Context(), b.tools, part, layer.Digest.Hex()+".erofs", offset)
	if err != nil {
		t.Fatal(err)
	}
	text, err := output(t.Context(), b.tools, "btrfs-map-logical", "-l", fmt.Sprint(logical), part)
	if err != nil {
		t.Fatal(err)
	}
	physical := regexp.MustCompile(`physical (\d+)`).FindSubmatch(text)
	if physical == nil {
		t.Fatalf("cannot map the logical address %d: %s", logical, text)
	}
	at, _ := strconv.ParseInt(string(physical[1]), 10, 64)
	return place.start + at + 100
}

// layerExtent is the btrfs address of the extent that holds a byte of a file.
func layerExtent(ctx context.Context, root *tools.Root, part, name string, offset int64) (int64, error) {
	text, err := output(ctx, root, "btrfs", "inspect-internal", "dump-tree", "-t", "5", part)
	if err != nil {
		return 0, err
	}
	inode := regexp.MustCompile(`location key \((\d+) INODE_ITEM 0\) type FILE\n.*\n\s+name: ` + regexp.QuoteMeta(name)).
		FindSubmatch(text)
	if inode == nil {
		return 0, fmt.Errorf("cannot find %s in the state file system", name)
	}
	extents := regexp.MustCompile(`key \(`+string(inode[1])+` EXTENT_DATA (\d+)\).*\n.*\n\s+extent data disk byte (\d+)`).
		FindAllSubmatch(text, -1)
	found := int64(0)
	for _, e := range extents { // in the order of their offsets
		start, _ := strconv.ParseInt(string(e[1]), 10, 64)
		if at, _ := strconv.ParseInt(string(e[2]), 10, 64); start <= offset {
			found = at
		}
	}
	if found == 0 {
		return 0, fmt.Errorf("cannot find byte %d of %s among %d extents", offset, name, len(extents))
	}
	return found, nil
}
