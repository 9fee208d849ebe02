package delta

import (
	"bytes"
	"context"
	"debug/pe"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/erofs/go-erofs"
	"github.com/klauspost/compress/zstd"
)

// filesystem makes an EROFS image of the named files.
func filesystem(t testing.TB, files map[string][]byte, names ...string) []byte {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := erofs.Create(f)
	for _, name := range names {
		member, err := w.Create("/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := member.Write(files[name]); err != nil {
			t.Fatal(err)
		}
		if err := member.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestExtentsFollowFiles(t *testing.T) {
	files := map[string][]byte{"a": noise(1, 10*block), "b": noise(2, 3*block+5), "tiny": []byte("tiny")}
	b := filesystem(t, files, "a", "b", "tiny")
	extents, err := Extents(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	pos, found := int64(0), map[string]bool{}
	for _, e := range extents {
		if e.Offset != pos || e.Size <= 0 {
			t.Errorf("extent %v begins at %d, want %d", e, e.Offset, pos)
		}
		pos += e.Size
		if e.Path != "" {
			found[e.Path] = true
			if n := min(int(e.Size), 3*block); !bytes.Equal(b[e.Offset:e.Offset+int64(n)], files[e.Path][:n]) {
				t.Errorf("extent %v does not hold its file", e)
			}
		}
	}
	if pos != int64(len(b)) || !found["a"] || !found["b"] {
		t.Errorf("extents of %v cover %d of %d bytes", found, pos, len(b))
	}
	var sum int64
	for _, e := range Cut(extents, block) {
		if sum += e.Size; e.Size > block {
			t.Errorf("extent of %d bytes is not cut", e.Size)
		}
	}
	if sum != pos {
		t.Errorf("cut extents cover %d bytes of %d", sum, pos)
	}
}

func TestExtentsOfHardLinksAndNonsense(t *testing.T) {
	got := cover([]Extent{{"b", 8192, 4096}, {"a", 4096, 4096}, {"link to a", 4096, 4096}, {"beyond", 12288, 1 << 40}, {"before", -1, 5}}, 16384)
	want := []Extent{{"", 0, 4096}, {"a", 4096, 4096}, {"b", 8192, 4096}, {"", 12288, 4096}}
	if !slices.Equal(got, want) {
		t.Errorf("extents are %v, want %v", got, want)
	}
	b := noise(1, 100)
	if got, err := Extents(bytes.NewReader(b), 100); err != nil || !slices.Equal(got, []Extent{{"", 0, 100}}) {
		t.Errorf("extents of no file system are %v (%v)", got, err)
	}
}

// program makes a PE file of sections with these names and sizes.
func program(t *testing.T, names []string, sizes []int) []byte {
	t.Helper()
	headers := 64 + 4 + 20 + 40*len(names)
	b := append([]byte("MZ"), make([]byte, headers-2)...)
	binary.LittleEndian.PutUint32(b[60:], 64)
	copy(b[64:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[68:], pe.IMAGE_FILE_MACHINE_AMD64)
	binary.LittleEndian.PutUint16(b[70:], uint16(len(names)))
	for i, name := range names {
		h := b[88+40*i:]
		copy(h, name)
		binary.LittleEndian.PutUint32(h[16:], uint32(sizes[i]))
		binary.LittleEndian.PutUint32(h[20:], uint32(len(b)))
		b = append(b, noise(uint64(i), sizes[i])...)
	}
	return append(b, "signature"...)
}

func TestExtentsFollowSections(t *testing.T) {
	b := program(t, []string{".linux", ".initrd"}, []int{5000, 3000})
	got, err := Extents(bytes.NewReader(b), int64(len(b)))
	want := []Extent{{"", 0, 168}, {".linux", 168, 5000}, {".initrd", 5168, 3000}, {"", 8168, 9}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("extents are %v (%v), want %v", got, err, want)
	}
}

// packed is a part, its pack and its index.
type packed struct {
	part  []byte
	file  File
	pack  []byte
	index Index
}

func newPack(t testing.TB, part []byte) packed {
	t.Helper()
	var out bytes.Buffer
	x, err := Pack(t.Context(), &out, bytes.NewReader(part), int64(len(part)), 2)
	if err != nil {
		t.Fatal(err)
	}
	return packed{part, describe("part", part), out.Bytes(), x}
}

// fetch counts what is fetched.
func (p packed) fetch(requests *int, n *int64) Fetch {
	return func(_ context.Context, from, to int64) (io.ReadCloser, error) {
		*requests++
		*n += to - from
		return io.NopCloser(bytes.NewReader(p.pack[from:to])), nil
	}
}

func releases(t testing.TB) (old, fresh packed) {
	files := map[string][]byte{"a": noise(1, 10*block), "b": noise(2, 3<<20), "c": noise(3, 20*block), "copy": noise(3, 20*block)}
	first := filesystem(t, files, "a", "b")
	files["a"] = noise(9, 11*block)
	return newPack(t, first), newPack(t, filesystem(t, files, "a", "b", "c", "copy"))
}

func TestPackIsAlsoOneZstdFile(t *testing.T) {
	_, p := releases(t)
	z, err := zstd.NewReader(bytes.NewReader(p.pack))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	if b, err := io.ReadAll(z); err != nil || !bytes.Equal(b, p.part) {
		t.Errorf("unpacked are %d of %d bytes (%v)", len(b), len(p.part), err)
	}
	again := newPack(t, p.part)
	if !bytes.Equal(again.pack, p.pack) {
		t.Error("the same part gives another pack")
	}
	var text bytes.Buffer
	if err := p.index.Write(&text); err != nil {
		t.Fatal(err)
	}
	x, err := ReadIndex(&text)
	if err != nil || x.Digest != p.index.Digest || !slices.Equal(x.Extents, p.index.Extents) || x.PackSize() != int64(len(p.pack)) {
		t.Errorf("index is read as %v (%v), want %v", x, err, p.index)
	}
}

func TestAssembleFetchesWhatIsMissing(t *testing.T) {
	old, fresh := releases(t)
	var all, some int64
	var requests int
	m := newMemory()
	out, _ := m.Output(fresh.file)
	if err := Assemble(t.Context(), fresh.file, fresh.index, &Known{}, fresh.fetch(&requests, &all), out); err != nil {
		t.Fatal(err)
	}
	var known Known
	if err := known.Add(t.Context(), old.file, bytes.NewReader(old.part)); err != nil {
		t.Fatal(err)
	}
	want := known.Missing(fresh.index)
	m, requests = newMemory(old.part), 0
	out, _ = m.Output(fresh.file)
	if err := Assemble(t.Context(), fresh.file, fresh.index, &known, fresh.fetch(&requests, &some), out); err != nil {
		t.Fatal(err)
	}
	checkDone(t, m)
	if some != want || some > 45*block || all < 3<<20 || requests > 4 || len(m.done) != 1 {
		t.Errorf("fetched %d bytes in %d requests, want %d of %d", some, requests, want, all)
	}
	if n := known.Missing(fresh.index); n != 0 {
		t.Errorf("%d bytes are still missing of what was just made", n)
	}
}

func TestAssembleNeverTakesDamage(t *testing.T) {
	_, p := releases(t)
	attempt := func(fetch Fetch) *memory {
		t.Helper()
		m := newMemory()
		out, _ := m.Output(p.file)
		if err := Assemble(t.Context(), p.file, p.index, &Known{}, fetch, out); err == nil || len(m.done) > 0 {
			t.Errorf("error is %v, and %d outputs are done", err, len(m.done))
		}
		return m
	}
	for i := 0; i < len(p.pack); i += len(p.pack) / 20 {
		b := slices.Clone(p.pack)
		b[i]++
		attempt(func(_ context.Context, from, to int64) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(b[from:to])), nil
		})
	}
	attempt(func(_ context.Context, from, to int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(p.pack[from : (from+to)/2])), nil
	})
	attempt(func(context.Context, int64, int64) (io.ReadCloser, error) { return nil, os.ErrDeadlineExceeded })
	p.index.Extents = slices.Clone(p.index.Extents)
	p.index.Extents[0], p.index.Extents[1] = p.index.Extents[1], p.index.Extents[0]
	attempt(p.fetch(new(int), new(int64)))
	p.file.Digest = describe("", nil).Digest
	attempt(p.fetch(new(int), new(int64)))
}

func FuzzReadIndex(f *testing.F) {
	var good bytes.Buffer
	if err := newPack(f, noise(1, 5*block)).index.Write(&good); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Add(good.Bytes()[:60])
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := ReadIndex(bytes.NewReader(b))
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		var again bytes.Buffer
		if err := x.Write(&again); err != nil || !bytes.Equal(again.Bytes(), b) {
			t.Fatalf("an index is not written as it was read (%v)", err)
		}
	})
}
