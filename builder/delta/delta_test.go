package delta

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/builder/profile"
	"allotment/builder/tools"
	"allotment/image"
	"allotment/image/delta"
	"allotment/image/erofs"
	"allotment/internal/cache"
	"allotment/internal/progress"
)

func TestMain(m *testing.M) {
	tools.EnterIfAsked()
	os.Exit(m.Run())
}

func openTools(t *testing.T) *tools.Root {
	t.Helper()
	c, err := cache.Default()
	if err != nil {
		t.Fatal(err)
	}
	r, err := tools.OpenFrom(t.Context(), c, profile.Debian{}, progress.Silent{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// member is a file of a layer; one without content is a hard link to the member before.
type member struct {
	name    string
	content []byte
}

// newPart makes a layer as the builder does.
func newPart(t *testing.T, r *tools.Root, name string, members ...member) Part {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	write := func(h *tar.Header, b []byte) {
		h.Format, h.Mode, h.Size = tar.FormatPAX, 0o755, int64(len(b))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	write(&tar.Header{Typeflag: tar.TypeDir, Name: "./"}, nil)
	for i, m := range members {
		if m.content == nil {
			write(&tar.Header{Typeflag: tar.TypeLink, Name: m.name, Linkname: members[i-1].name}, nil)
			continue
		}
		write(&tar.Header{Typeflag: tar.TypeReg, Name: m.name}, m.content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "erofs")
	o := erofs.Options{UUID: "00112233-4455-6677-8899-aabbccddeeff", Epoch: time.Unix(1_763_700_000, 0)}
	if err := erofs.Make(t.Context(), r, f.Name(), out, o); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return inMemory(name, b)
}

func inMemory(name string, b []byte) Part {
	d, n, _ := image.DigestOf(bytes.NewReader(b))
	return Part{delta.File{Name: name, Digest: d, Size: n}, bytes.NewReader(b)}
}

func noise(seed uint64, n int) []byte {
	r, b := rand.New(rand.NewPCG(seed, 0)), make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// rebuilt is a program as a small fix leaves it: a little more code, and addresses that have moved.
func rebuilt(b []byte) []byte {
	b = slices.Concat(b[:len(b)/3], noise(77, 200), b[len(b)/3:])
	for i := 0; i < len(b); i += 500 {
		b[i] += 4
	}
	return b
}

// files are the parts of two releases: those that are there, and those that are made of them.
type files struct {
	dir  string
	open map[image.Digest]*os.File
	done int
}

func (s *files) create(d image.Digest) (*os.File, error) {
	f, err := os.Create(filepath.Join(s.dir, d.Hex()))
	if err == nil {
		s.open[d] = f
	}
	return f, err
}

// Source implements delta.Sources.
func (s *files) Source(f delta.File) (io.ReaderAt, error) {
	if file, ok := s.open[f.Digest]; ok {
		return file, nil
	}
	return nil, os.ErrNotExist
}

// Output implements delta.Outputs.
func (s *files) Output(f delta.File) (delta.Output, error) {
	file, err := s.create(f.Digest)
	return made{file, s}, err
}

// made is a part in the making: nothing is shared, all is copied.
type made struct {
	*os.File
	all *files
}

func (m made) Done() error { m.all.done++; return nil }

func (made) Clone(int64, image.Digest, int64, int64) bool { return false }

// makeAndApply makes a delta and applies it.
func makeAndApply(t *testing.T, from, to []Part) ([]byte, Stats) {
	t.Helper()
	var out bytes.Buffer
	stats, err := Make(t.Context(), &out, from, to, Options{Workers: 2, Progress: progress.Silent{}})
	if err != nil {
		t.Fatal(err)
	}
	parts := &files{dir: t.TempDir(), open: map[image.Digest]*os.File{}}
	for _, p := range from {
		f, err := parts.create(p.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(f, io.NewSectionReader(p, 0, p.Size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := delta.Apply(t.Context(), bytes.NewReader(out.Bytes()), parts, parts); err != nil {
		t.Fatal(err)
	}
	for d, f := range parts.open {
		if got, _, err := image.DigestOf(io.NewSectionReader(f, 0, 1<<40)); err != nil || got != d {
			t.Errorf("%s is %s (%v)", d, got, err)
		}
		f.Close()
	}
	h, err := delta.ReadHeader(bytes.NewReader(out.Bytes()))
	if err != nil || parts.done != len(h.Outputs) {
		t.Errorf("%d parts are made of %d (%v)", parts.done, len(h.Outputs), err)
	}
	return out.Bytes(), stats
}

func TestDeltaOfARelease(t *testing.T) {
	r := openTools(t)
	program, library, text := noise(1, 900_000), noise(2, 400_000), []byte(strings.Repeat("a line of some text\n", 9000))
	modules := func(name string, change func([]byte) []byte) []member {
		var all []member
		for i := range 10 {
			all = append(all, member{fmt.Sprintf("usr/lib/modules/%s/m%02d.ko", name, i), change(noise(uint64(100+i), 20_000))})
		}
		return all
	}
	same := func(b []byte) []byte { return b }
	uki := inMemory("uki", noise(3, 50_000))
	from := []Part{
		uki,
		newPart(t, r, "base", member{"usr/lib/libx.so.1.2.3", library}, member{"usr/share/text", text}, member{"usr/share/moved", noise(4, 100_000)}),
		newPart(t, r, "root", append(modules("6.12.1", same), member{"usr/bin/program", program}, member{"usr/bin/link", nil})...),
		newPart(t, r, "unchanged", member{"a", []byte("a")}),
	}
	fresh := noise(5, 60_000)
	to := []Part{
		uki,
		newPart(t, r, "base", member{"usr/lib/libx.so.1.2.4", rebuilt(library)}, member{"usr/share/text", text}, member{"etc/new", fresh}),
		newPart(t, r, "root", append(modules("6.12.2", rebuilt), member{"usr/bin/program", rebuilt(program)}, member{"usr/bin/link", nil})...),
		newPart(t, r, "unchanged", member{"a", []byte("a")}),
		newPart(t, r, "other", member{"opt/moved", noise(4, 100_000)}, member{"opt/new", fresh}, member{"opt/tiny", []byte("tiny")}),
	}
	b, stats := makeAndApply(t, from, to)
	changed := 12*300 + (900_000+400_000+200_000)/500*3 // bytes that no older release has, and those that differ
	if limit := len(fresh) + changed + 12_000; len(b) > limit {
		t.Errorf("the delta has %d bytes, want at most %d (%+v)", len(b), limit, stats)
	}
	if stats.Sent > 80_000 || stats.Copied < 200_000 {
		t.Errorf("what was done is %+v", stats)
	}
	var alone bytes.Buffer
	if _, err := Make(t.Context(), &alone, from, to, Options{Workers: 1, Progress: progress.Silent{}}); err != nil || !bytes.Equal(alone.Bytes(), b) {
		t.Errorf("one worker makes another delta, of %d bytes (%v)", alone.Len(), err)
	}
}

func TestDeltaOfFilesLargerThanAPiece(t *testing.T) {
	old := make([]byte, 9<<20) // with islands that cannot be packed
	for i := 0; i < len(old); i += 1 << 20 {
		copy(old[i:], noise(uint64(i), 50_000))
	}
	fresh := slices.Concat(noise(2, 1000), old[:5<<20], old[6<<20:], noise(3, 1000))
	b, stats := makeAndApply(t, []Part{inMemory("large", old)}, []Part{inMemory("large", fresh)})
	if len(b) > 20_000 {
		t.Errorf("the delta has %d bytes (%+v)", len(b), stats)
	}
}

func TestDeltaFromNothingAndToNothing(t *testing.T) {
	p := inMemory("text", bytes.Repeat([]byte("text"), 5000))
	if b, stats := makeAndApply(t, nil, []Part{p, inMemory("empty", nil)}); len(b) > 600 || stats.Sent != p.Size {
		t.Errorf("the delta has %d bytes (%+v)", len(b), stats)
	}
	if _, stats := makeAndApply(t, []Part{p}, []Part{p}); stats.Operations != 0 {
		t.Errorf("there is something to do: %+v", stats)
	}
}

func TestMakeStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := Options{Workers: 1, Progress: progress.Silent{}}
	if _, err := Make(ctx, io.Discard, nil, []Part{inMemory("x", noise(1, 100))}, o); err == nil {
		t.Error("no error after an interrupt")
	}
	broken := inMemory("broken", noise(1, 100))
	broken.Size = 200
	if _, err := Make(t.Context(), io.Discard, nil, []Part{broken}, o); err == nil {
		t.Error("no error for a part that ends too early")
	}
}
