package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/image"
	"allotment/image/secureboot"
	"allotment/image/verity"
	"allotment/internal/run"
)

// fakeGRUB stands in for grub-mkimage, which only the tool root has; builder/judge runs the real one.
type fakeGRUB struct{ size int }

func (g fakeGRUB) Run(_ context.Context, c run.Command) error {
	for _, a := range c.Args {
		if path, ok := strings.CutPrefix(a, "--output="); ok {
			return os.WriteFile(path, bytes.Repeat([]byte{0xcc}, g.size), 0o644)
		}
	}
	return errors.New("no --output")
}

// random is size bytes that are always the same.
func random(size int, seed byte) []byte {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// newSpec is an image with files of random bytes.
func newSpec(t testing.TB, arch image.Arch) Spec {
	t.Helper()
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	root := random(300<<10, 1)
	var tree bytes.Buffer
	hash, err := verity.Format(bytes.NewReader(root), int64(len(root)), &tree)
	if err != nil {
		t.Fatal(err)
	}
	layout, err := NewLayout(arch, Sizes{}, []int64{8192, 4096})
	if err != nil {
		t.Fatal(err)
	}
	file("boot.img", random(512, 2))
	return Spec{
		Output: filepath.Join(dir, "out", "disk.raw"), Layout: layout, Version: "2026.11.3", RootHash: hash,
		Time: time.Unix(1795000001, 5), SystemdBoot: random(1000, 3), UKI: random(100<<10, 4),
		Auth:   map[secureboot.Variable][]byte{secureboot.PK: random(10, 5), secureboot.KEK: random(11, 6), secureboot.DB: random(12, 7)},
		Kernel: random(50<<10, 8), Initrd: random(20<<10, 9), Cmdline: "roothash=" + hash.String() + " panic=5",
		GRUBModules: dir, Root: file("root", root), Verity: file("verity", tree.Bytes()),
		Layers: []string{file("layer1", random(8192, 10)), file("layer2", random(4096, 11))},
		Tools:  fakeGRUB{2000},
	}
}

// buildIn makes the image in a folder of its own and returns what is left in that folder.
func buildIn(t testing.TB, s Spec) ([]string, error) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(s.Output), 0o755); err != nil {
		t.Fatal(err)
	}
	err := Build(t.Context(), s)
	entries, e := os.ReadDir(filepath.Dir(s.Output))
	if e != nil {
		t.Fatal(e)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func TestLayout(t *testing.T) {
	l, err := NewLayout(image.AMD64, Sizes{}, []int64{100 * mib, 4096})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	at := int64(mib)
	for _, p := range l.Partitions {
		got = append(got, p.Name)
		if p.Start != at || p.Size%mib != 0 {
			t.Errorf("%s starts at %d with %d bytes, want it at %d", p.Name, p.Start, p.Size, at)
		}
		at += p.Size
	}
	if want := []string{BIOS, ESP, RootA, VerityA, RootB, VerityB, State}; !slices.Equal(got, want) {
		t.Errorf("partitions are %v, want %v", got, want)
	}
	if l.Size != at+mib {
		t.Errorf("disk has %d bytes, want %d", l.Size, at+mib)
	}
	seed, state := l.Seed, l.Partition(State)
	if seed.Size != 100*mib+4096 || seed.Offset%mib != 0 || seed.Offset < seed.Size+512*mib || seed.Offset+seed.Size > state.Size {
		t.Errorf("seed is %+v in a state partition of %d bytes", seed, state.Size)
	}
	if l, err := NewLayout(image.ARM64, Sizes{}, nil); err != nil || l.Partitions[0].Name != ESP {
		t.Errorf("arm64 begins with %v, %v; want the ESP", l.Partitions, err)
	}
}

func TestLayoutSizes(t *testing.T) {
	big, err := NewLayout(image.AMD64, Sizes{Root: 8192 * mib, State: 5000 * mib}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := big.Partition(VerityA).Size; got < verity.HashSize(8192*mib) {
		t.Errorf("verity partition of %d bytes does not fit the tree of a full root", got)
	}
	if got := big.Partition(State).Size; got < 5000*mib {
		t.Errorf("state partition has %d bytes, want at least 5000 MiB", got)
	}
	for _, c := range []struct {
		name   string
		sizes  Sizes
		layers []int64
		want   []string
	}{
		{"ESP too small for FAT32", Sizes{ESP: 100 * mib}, nil, []string{"esp"}},
		{"half a MiB", Sizes{Root: 100*mib + 512<<10}, nil, []string{"root"}},
		{"tree does not fit", Sizes{Root: 4096 * mib, Verity: 16 * mib}, nil, []string{"hash tree"}},
		{"odd layer", Sizes{}, []int64{4097}, []string{"layer 0"}},
		{"two at once", Sizes{ESP: mib, Root: mib}, nil, []string{"esp", "root"}},
	} {
		_, err := NewLayout(image.AMD64, c.sizes, c.layers)
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want an error with %q", c.name, err, want)
			}
		}
	}
}

func TestBuild(t *testing.T) {
	for _, arch := range []image.Arch{image.AMD64, image.ARM64} {
		s := newSpec(t, arch)
		left, err := buildIn(t, s)
		if err != nil || !slices.Equal(left, []string{"disk.raw"}) {
			t.Fatalf("%s: folder has %v, %v", arch, left, err)
		}
		f, err := os.Open(s.Output)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		parts, err := ReadGPT(f, s.Layout.Size)
		if err != nil || len(parts) != len(s.Layout.Partitions) {
			t.Fatalf("%s: %v, %v", arch, parts, err)
		}
		for i, p := range parts {
			want := s.Layout.Partitions[i]
			if p.Name != want.Name || p.Type != want.Type || p.Start != want.Start || p.Size != want.Size || p.Attributes != want.Attributes {
				t.Errorf("%s: partition %+v, want %+v", arch, p, want)
			}
		}
		seed := s.Layout.Partition(State).Start + s.Layout.Seed.Offset
		for _, c := range []struct {
			at   int64
			want []byte
		}{
			{s.Layout.Partition(RootA).Start, random(300<<10, 1)}, {seed, random(8192, 10)}, {seed + 8192, random(4096, 11)},
		} {
			got := make([]byte, len(c.want))
			if _, err := f.ReadAt(got, c.at); err != nil || !bytes.Equal(got, c.want) {
				t.Errorf("%s: other bytes at %d (%v)", arch, c.at, err)
			}
		}
		if arch.BootsBIOS() {
			if err := CheckGRUB(f, s.Layout.Partition(BIOS)); err == nil {
				t.Error("random boot.img passes as GRUB's")
			}
		}
	}
}

// TestBuildIsReproducible builds twice from equal inputs in different folders.
func TestBuildIsReproducible(t *testing.T) {
	var sums [2][sha256.Size]byte
	for i := range sums {
		s := newSpec(t, image.AMD64)
		if _, err := buildIn(t, s); err != nil {
			t.Fatal(err)
		}
		sums[i] = digest(t, s.Output)
	}
	if sums[0] != sums[1] {
		t.Errorf("two builds gave %x and %x", sums[0], sums[1])
	}
}

// digest hashes the parts of an image that are not holes, with their places.
func digest(t testing.TB, path string) [sha256.Size]byte {
	t.Helper()
	f, err := Open(t.Context(), nil, path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, buf := sha256.New(), make([]byte, 64<<10)
	for at := f.NextData(0) &^ 0xffff; at < f.Size; at = f.NextData(at+int64(len(buf))) &^ 0xffff {
		n, err := f.ReadAt(buf, at)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if !bytes.Equal(buf[:n], zeros[:n]) {
			fmt.Fprintf(h, "%d %x\n", at, sha256.Sum256(buf[:n]))
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// TestBuildRefuses wants a clear error, and nothing left in the folder.
func TestBuildRefuses(t *testing.T) {
	truncate := func(path *string, size int64) error { return os.Truncate(*path, size) }
	for _, c := range []struct {
		name   string
		damage func(*Spec) error
		want   string
	}{
		{"root too large", func(s *Spec) error { return truncate(&s.Root, 257*mib) }, "enlarge disk.root"},
		{"tree too large", func(s *Spec) error { return truncate(&s.Verity, 17*mib) }, "enlarge disk.verity"},
		{"UKI too large", func(s *Spec) error { s.UKI = make([]byte, 200*mib); return nil }, "enlarge disk.esp"},
		{"layer of another size", func(s *Spec) error { return truncate(&s.Layers[0], 4096) }, "layout is for"},
		{"no layer", func(s *Spec) error { return os.Remove(s.Layers[0]) }, "layer1"},
		{"no boot.img", func(s *Spec) error { return os.Remove(filepath.Join(s.GRUBModules, "boot.img")) }, "boot.img"},
		{"GRUB too large", func(s *Spec) error { s.Tools = fakeGRUB{2 * mib}; return nil }, "install GRUB"},
		{"quote in the command line", func(s *Spec) error { s.Cmdline += " a='b'"; return nil }, "quote"},
	} {
		s := newSpec(t, image.AMD64)
		if err := c.damage(&s); err != nil {
			t.Fatal(err)
		}
		left, err := buildIn(t, s)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
		}
		if len(left) > 0 {
			t.Errorf("%s: left behind %v", c.name, left)
		}
	}
}

func TestBuildStops(t *testing.T) {
	s := newSpec(t, image.AMD64)
	if err := os.MkdirAll(filepath.Dir(s.Output), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.Wrote = func(int64) { cancel() }
	if err := Build(ctx, s); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped build: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(s.Output)); len(left) > 0 {
		t.Errorf("left behind %v", left)
	}
}

// TestBuildOnFullDisk writes to a device that is always full, through the part that copies.
func TestBuildOnFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full:", err)
	}
	defer full.Close()
	s := newSpec(t, image.AMD64)
	if err := copySparse(t.Context(), full, 0, s.Root, nil); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("full disk: %v", err)
	}
}

// Zeros pack to the same bytes whether the raw image has a hole there or not.
func TestZstdHoles(t *testing.T) {
	dir := t.TempDir()
	content := append(append(make([]byte, 9*mib), random(6*mib, 1)...), make([]byte, 17*mib)...)
	var packed [2][]byte
	for i, name := range []string{"written.raw", "holes.raw"} {
		raw := filepath.Join(dir, name)
		f, err := os.Create(raw)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(int64(len(content))); err != nil {
			t.Fatal(err)
		}
		from, to := 0, len(content)
		if name == "holes.raw" {
			from, to = 9*mib, 15*mib
		}
		if _, err := f.WriteAt(content[from:to], int64(from)); err != nil {
			t.Fatal(err)
		}
		if err := Convert(t.Context(), nil, raw, raw+".zst", Zstd, nil); err != nil {
			t.Fatal(err)
		}
		if packed[i], err = os.ReadFile(raw + ".zst"); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(packed[0], packed[1]) {
		t.Errorf("%d bytes with zeros written, %d with holes", len(packed[0]), len(packed[1]))
	}
}

func TestZstdRoundTrip(t *testing.T) {
	raw := filepath.Join(t.TempDir(), "disk.raw")
	want := append(append(make([]byte, 5*mib), random(3*mib+5, 1)...), make([]byte, 9*mib)...)
	if err := os.WriteFile(raw, want, 0o644); err != nil {
		t.Fatal(err)
	}
	out := raw + ".zst"
	if err := Convert(t.Context(), nil, raw, out, Zstd, nil); err != nil {
		t.Fatal(err)
	}
	f, err := Open(t.Context(), nil, out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, 0); err != nil || f.Format != Zstd || f.Size != int64(len(want)) || !bytes.Equal(got, want) {
		t.Errorf("opened %s of %d bytes (%v), want raw.zst with the same %d", f.Format, f.Size, err, len(want))
	}
	packed, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{len(packed) - 1, len(packed) / 2, 5} {
		if err := os.WriteFile(out, packed[:size], 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), nil, out); err == nil {
			t.Errorf("a raw.zst that was cut to %d of %d bytes was opened", size, len(packed))
		}
	}
}

func TestParseFormat(t *testing.T) {
	for _, f := range []Format{Raw, Zstd, QCOW2, VMDK, VHD} {
		if got, err := ParseFormat(string(f)); err != nil || got != f {
			t.Errorf("ParseFormat(%s) = %s, %v", f, got, err)
		}
	}
	if _, err := ParseFormat("iso"); err == nil {
		t.Error("iso was accepted")
	}
}

// patchedDisk is the start and the end of a small disk.
type patchedDisk struct{ head, tail []byte }

const fuzzDiskSize = 1 << 30

func (p patchedDisk) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	if off < int64(len(p.head)) {
		copy(b, p.head[off:])
	}
	if at := off - (fuzzDiskSize - int64(len(p.tail))); at >= 0 {
		copy(b, p.tail[at:])
	}
	return len(b), nil
}

// FuzzReadGPT feeds tables to the reader; what it accepts lies on the disk, in order.
func FuzzReadGPT(f *testing.F) {
	s := newSpec(f, image.ARM64)
	file, err := os.Create(filepath.Join(f.TempDir(), "disk"))
	if err != nil {
		f.Fatal(err)
	}
	defer file.Close()
	parts := withGUIDs(s.Layout.Partitions, s.RootHash)
	for i := range parts {
		parts[i].Start, parts[i].Size = int64(i+1)*mib, mib
	}
	if err := writeGPT(file, fuzzDiskSize, parts, derivedGUID(s.RootHash, "disk")); err != nil {
		f.Fatal(err)
	}
	head, tail := make([]byte, 34*sectorSize), make([]byte, 33*sectorSize)
	if _, err := file.ReadAt(head, 0); err != nil {
		f.Fatal(err)
	}
	if _, err := file.ReadAt(tail, fuzzDiskSize-int64(len(tail))); err != nil {
		f.Fatal(err)
	}
	f.Add(head, tail)
	f.Fuzz(func(t *testing.T, head, tail []byte) {
		if len(head) > mib || len(tail) > mib {
			return
		}
		parts, _ := ReadGPT(patchedDisk{head, tail}, fuzzDiskSize)
		end := int64(0)
		for _, p := range parts {
			if p.Start < end || p.Size <= 0 || p.Start+p.Size > fuzzDiskSize {
				t.Errorf("partition %+v is accepted behind %d", p, end)
			}
			end = p.Start + p.Size
		}
	})
}
