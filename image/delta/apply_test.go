package delta

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"allotment/image"
)

// pack makes one zstd frame, with a raw dictionary if there is one.
func pack(t testing.TB, b, dictionary []byte, o ...zstd.EOption) []byte {
	t.Helper()
	o = append([]zstd.EOption{zstd.WithZeroFrames(true), zstd.WithWindowSize(1 << 20), zstd.WithEncoderCRC(false)}, o...)
	if dictionary != nil {
		o = append(o, zstd.WithEncoderDictRaw(0, dictionary))
	}
	z, err := zstd.NewWriter(nil, o...)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	return z.EncodeAll(b, nil)
}

func framesOf(t testing.TB, steps, same, changed, add, insert []byte) Frames {
	t.Helper()
	return Frames{pack(t, steps, nil), pack(t, same, nil), pack(t, changed, nil), pack(t, add, nil), pack(t, insert, nil)}
}

func describe(name string, b []byte) File {
	d, n, _ := image.DigestOf(bytes.NewReader(b))
	return File{name, d, n}
}

func noise(seed uint64, n int) []byte {
	r, b := rand.New(rand.NewPCG(seed, 0)), make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// memory is parts in memory: sources, and outputs that are done.
type memory struct {
	parts  map[image.Digest][]byte
	done   []image.Digest
	clones bool
	cloned int64
}

func newMemory(parts ...[]byte) *memory {
	m := &memory{parts: map[image.Digest][]byte{}}
	for _, b := range parts {
		m.parts[describe("", b).Digest] = b
	}
	return m
}

func (m *memory) Source(f File) (io.ReaderAt, error) {
	b, ok := m.parts[f.Digest]
	if !ok {
		return nil, os.ErrNotExist
	}
	return bytes.NewReader(b), nil
}

func (m *memory) Output(f File) (Output, error) {
	if f.Size > 64<<20 {
		return nil, errors.New("no such part is wanted")
	}
	return &made{memory: m, file: f}, nil
}

// made is an output in memory.
type made struct {
	memory *memory
	file   File
	b      []byte
}

func (o *made) WriteAt(p []byte, off int64) (int, error) {
	if int64(len(o.b)) > off {
		return 0, errors.New("bytes are written twice")
	}
	o.b = append(o.b, make([]byte, off-int64(len(o.b)))...) // what was cloned and is filled in by Done
	o.b = append(o.b, p...)
	return len(p), nil
}

func (o *made) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(o.b).ReadAt(p, off) }

func (o *made) Clone(off int64, from image.Digest, fromOff, n int64) bool {
	if !o.memory.clones {
		return false
	}
	if off%block != 0 || fromOff%block != 0 || n%block != 0 || n <= 0 {
		panic("a range is not whole blocks")
	}
	o.memory.cloned += n
	o.b = append(o.b, make([]byte, off-int64(len(o.b)))...)
	o.b = append(o.b, o.memory.parts[from][fromOff:fromOff+n]...)
	return true
}

func (o *made) Done() error {
	o.memory.parts[o.file.Digest] = o.b
	o.memory.done = append(o.memory.done, o.file.Digest)
	return nil
}

// sample is a delta with every kind of operation, and what it is between.
type sample struct {
	old, first, second []byte
	delta              []byte
}

func newSample(t testing.TB) sample {
	t.Helper()
	s := sample{old: noise(1, 3000)}
	changed := slices.Clone(s.old[1000:2000])
	same, changes := []byte{0}, []byte{1} // lengths of runs
	for i := 0; i < len(changed); i += 100 {
		changed[i] += 7
		if i > 0 {
			same, changes = append(same, 99), append(changes, 1)
		}
	}
	same, changes = append(same, 99), append(changes, 0)
	extra, text := noise(2, 50), bytes.Repeat([]byte("allotment "), 30)
	s.first = slices.Concat(s.old[:1000], changed, extra, text, text[:100])
	s.second = slices.Concat(text, s.old[500:600], s.first)
	patched := slices.Concat(s.old[500:600], s.first[:10])

	var out bytes.Buffer
	w, err := NewWriter(&out, Header{
		Sources: []File{describe("old", s.old)}, Outputs: []File{describe("first", s.first), describe("second", s.second)},
	})
	steps := []byte{0, 0xe8, 7, 50} // skip 0, change 1000, insert 50
	const sent = 2050               // where the text lies in the first output
	for _, err := range []error{
		err,
		w.Copy(Range{0, 0, 1000}),
		w.Diff(Range{0, 1000, 2000}, 1050, framesOf(t, steps, same, changes, bytes.Repeat([]byte{7}, 10), extra)),
		w.Data(300, pack(t, text, nil)),
		w.Copy(Range{1, sent, 100}), // of what is under way
		w.Copy(Range{1, sent, 300}), // of what is there
		w.Patch(Range{0, 400, 1000}, 110, pack(t, patched, s.old[400:1400])),
		w.Copy(Range{1, 10, int64(len(s.first)) - 10}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s.delta = out.Bytes()
	return s
}

func TestApplyMakesEveryOutput(t *testing.T) {
	s := newSample(t)
	m := newMemory(s.old)
	if err := Apply(t.Context(), bytes.NewReader(s.delta), m, m); err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{s.first, s.second} {
		if !bytes.Equal(m.parts[describe("", b).Digest], b) {
			t.Errorf("an output of %d bytes is not as it should be", len(b))
		}
	}
	if len(m.done) != 2 {
		t.Errorf("%d outputs are done, want 2", len(m.done))
	}
}

// checkDone complains of every output that counts as done and is not what the header says.
func checkDone(t *testing.T, m *memory) {
	t.Helper()
	for _, d := range m.done {
		if got := describe("", m.parts[d]).Digest; got != d {
			t.Fatalf("%s counts as done and is %s", d, got)
		}
	}
}

func TestApplyNeverTakesADamagedDelta(t *testing.T) {
	s := newSample(t)
	for i := range s.delta {
		for _, bit := range []byte{1, 0x80, 0xff} {
			b := slices.Clone(s.delta)
			b[i] ^= bit
			m := newMemory(s.old)
			err := Apply(t.Context(), bytes.NewReader(b), m, m)
			checkDone(t, m)
			if err == nil && len(m.done) != 2 {
				t.Fatalf("byte %d: no error, and %d outputs", i, len(m.done))
			}
		}
	}
	for n := range s.delta {
		m := newMemory(s.old)
		if err := Apply(t.Context(), bytes.NewReader(s.delta[:n]), m, m); err == nil {
			t.Fatalf("no error after %d of %d bytes", n, len(s.delta))
		}
		checkDone(t, m)
	}
	m := newMemory(s.old)
	if err := Apply(t.Context(), bytes.NewReader(append(s.delta, 0)), m, m); !errors.Is(err, ErrFormat) {
		t.Errorf("error is %v, want one on a byte after the end", err)
	}
}

func TestApplyNeverTakesADamagedSource(t *testing.T) {
	s := newSample(t)
	for i := range 2000 { // the rest is not used
		b := slices.Clone(s.old)
		b[i]++
		m := &memory{parts: map[image.Digest][]byte{describe("", s.old).Digest: b}}
		if err := Apply(t.Context(), bytes.NewReader(s.delta), m, m); !errors.Is(err, ErrFormat) || len(m.done) > 0 {
			t.Fatalf("byte %d: %v, and %d outputs", i, err, len(m.done))
		}
	}
}

// hostile is a delta of one operation that is given as its bytes, to an output of 5000 bytes.
func hostile(t *testing.T, op ...byte) []byte {
	t.Helper()
	var out bytes.Buffer
	h := Header{Sources: []File{describe("old", noise(1, 3000))}, Outputs: []File{describe("new", noise(2, 5000)), describe("later", noise(3, 9))}}
	if _, err := NewWriter(&out, h); err != nil {
		t.Fatal(err)
	}
	return append(out.Bytes(), op...)
}

func TestApplyRefuses(t *testing.T) {
	u := binary.AppendUvarint
	join := func(b ...[]byte) []byte { return slices.Concat(b...) }
	bomb := pack(t, make([]byte, 1<<20), nil)
	wide := pack(t, make([]byte, 32<<20), nil, zstd.WithWindowSize(16<<20), zstd.WithSingleSegment(false))
	long := u(nil, 1<<63)
	frame := func(b []byte) []byte { return join(u(nil, uint64(len(b))), b) }
	diff := func(steps, same, changed []byte) []byte {
		op := join([]byte{opDiff, 0, 0}, u(nil, 3000), u(nil, 200))
		frames := framesOf(t, steps, same, changed, make([]byte, 50), make([]byte, 100)).list()
		for _, f := range frames {
			op = u(op, uint64(len(f)))
		}
		return join(append([][]byte{op}, frames...)...)
	}
	runs := func(steps ...byte) []byte { return diff(steps, []byte{50}, []byte{50}) }
	for name, op := range map[string][]byte{
		"unknown operation":            {9},
		"unknown file":                 join([]byte{opCopy}, u(nil, 7), []byte{0, 1}),
		"later output":                 {opCopy, 2, 0, 1},
		"what is not written yet":      {opCopy, 1, 0, 1},
		"nothing":                      {opCopy, 0, 0, 0},
		"before the beginning":         {opCopy, 0, 1, 1},
		"after the end":                join([]byte{opCopy, 0, 0}, u(nil, 3001)),
		"length beyond all numbers":    join([]byte{opCopy, 0, 0}, long),
		"offset beyond all numbers":    join([]byte{opCopy, 0}, bytes.Repeat([]byte{0xff}, 9), []byte{1, 1}),
		"number without an end":        join([]byte{opCopy, 0}, bytes.Repeat([]byte{0xff}, 20)),
		"data longer than the output":  join([]byte{opData}, u(nil, 5001), frame(pack(t, make([]byte, 5001), nil))),
		"data that is too short":       join([]byte{opData}, u(nil, 5000), frame(pack(t, make([]byte, 4999), nil))),
		"data that is too long":        join([]byte{opData}, u(nil, 5000), frame(pack(t, make([]byte, 5001), nil))),
		"bomb":                         join([]byte{opData}, u(nil, 5000), frame(bomb)),
		"window that is too wide":      join([]byte{opData}, u(nil, 5000), frame(wide)),
		"frame of no bytes":            join([]byte{opData}, u(nil, 5000), []byte{0}),
		"frame beyond the limit":       join([]byte{opData}, u(nil, 5000), u(nil, maxPacked+1)),
		"no frame":                     join([]byte{opData}, u(nil, 5000), []byte{3, 1, 2, 3}),
		"dictionary beyond the limit":  join([]byte{opPatch, 0, 0}, u(nil, MaxPatch+1)),
		"step that changes too much":   runs(join([]byte{0}, u(nil, 3001), []byte{0})...),
		"step that inserts too much":   runs(0, 100, 101),
		"step that does nothing":       runs(0, 0, 0),
		"step before the beginning":    runs(join(binary.AppendVarint(nil, -1), []byte{1, 1})...),
		"step after the end":           runs(join(binary.AppendVarint(nil, 3000), []byte{1, 1})...),
		"step beyond all numbers":      runs(join(long, long, long)...),
		"too few steps":                runs(0, 100, 0),
		"steps that leave bytes over":  runs(0, 99, 100, 0, 0, 1),
		"step after the last":          runs(0, 100, 100, 1, 1, 0),
		"runs that are too short":      diff([]byte{0, 100, 100}, []byte{49}, []byte{50}),
		"runs that are too long":       diff([]byte{0, 100, 100}, []byte{51}, []byte{50}),
		"runs that are empty":          diff([]byte{0, 100, 100}, []byte{50, 0}, []byte{49, 0}),
		"run beyond the limit":         diff([]byte{0, 100, 100}, u(nil, MaxSpan+1), []byte{50}),
		"runs that do not go together": diff([]byte{0, 100, 100}, []byte{50}, nil),
	} {
		m := newMemory(noise(1, 3000))
		if err := Apply(t.Context(), bytes.NewReader(hostile(t, op...)), m, m); !errors.Is(err, ErrFormat) || len(m.done) > 0 {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func TestHeaderRefuses(t *testing.T) {
	a, b := describe("a", nil), describe("b", []byte("b"))
	huge, negative := b, b
	huge.Size, negative.Size = 1<<62, -1
	for name, h := range map[string]Header{
		"huge part": {Outputs: []File{huge}}, "negative part": {Outputs: []File{negative}}, "twice": {Sources: []File{a}, Outputs: []File{a}},
		"no digest": {Sources: []File{{Name: "x"}}},
	} {
		if _, err := NewWriter(io.Discard, h); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	var good bytes.Buffer
	if _, err := NewWriter(&good, Header{Sources: []File{a}, Outputs: []File{b}}); err != nil {
		t.Fatal(err)
	}
	other := slices.Clone(good.Bytes())
	other[len(magic)] = 2
	if _, err := ReadHeader(bytes.NewReader(other)); err == nil || !strings.Contains(err.Error(), "version is 2") {
		t.Errorf("error is %v, want one on the version", err)
	}
}

func TestCopiesAreShared(t *testing.T) {
	old := noise(5, 5*block)
	fresh := slices.Concat(old[100:block], old[block:4*block+10], old[:block-10], old[:block])
	var out bytes.Buffer
	w, err := NewWriter(&out, Header{Sources: []File{describe("old", old)}, Outputs: []File{describe("new", fresh)}})
	for _, err := range []error{
		err, w.Copy(Range{0, 100, block - 100}), w.Copy(Range{0, block, 3*block + 10}), w.Copy(Range{0, 0, block - 10}), w.Copy(Range{0, 0, block}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	m := newMemory(old)
	m.clones = true
	if err := Apply(t.Context(), &out, m, m); err != nil {
		t.Fatal(err)
	}
	if m.cloned != 0 { // 100 bytes off, all of it
		t.Errorf("%d bytes are shared that do not lie alike", m.cloned)
	}

	fresh = slices.Concat(old[:10], old[10:4*block+10])
	out.Reset()
	w, err = NewWriter(&out, Header{Sources: []File{describe("old", old)}, Outputs: []File{describe("new", fresh)}})
	for _, err := range []error{err, w.Copy(Range{0, 0, 10}), w.Copy(Range{0, 10, 4 * block})} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := Apply(t.Context(), &out, m, m); err != nil {
		t.Fatal(err)
	}
	if m.cloned != 3*block {
		t.Errorf("%d bytes are shared, want %d", m.cloned, 3*block)
	}
	checkDone(t, m)
}

func TestApplyStopsWhenAsked(t *testing.T) {
	s := newSample(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m := newMemory(s.old)
	if err := Apply(ctx, bytes.NewReader(s.delta), m, m); !errors.Is(err, context.Canceled) || len(m.done) > 0 {
		t.Errorf("error is %v", err)
	}
}

func FuzzApply(f *testing.F) {
	s := newSample(f)
	f.Add(s.delta)
	f.Add(s.delta[:len(s.delta)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newMemory(s.old)
		err := Apply(t.Context(), bytes.NewReader(b), m, m)
		checkDone(t, m)
		if h, herr := ReadHeader(bytes.NewReader(b)); err == nil && (herr != nil || len(h.Outputs) != len(m.done)) {
			t.Fatalf("no error, and %d of %d outputs (%v)", len(m.done), len(h.Outputs), herr)
		}
	})
}
