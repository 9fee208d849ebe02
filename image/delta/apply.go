package delta

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"

	"allotment/image"
)

// Sources gives the parts that the device has.
type Sources interface {
	// Source opens a part. Its bytes need not be checked before: what is made of them is.
	Source(File) (io.ReaderAt, error)
}

// Outputs takes the parts that are made.
type Outputs interface {
	// Output begins a part; it is an error if the release names no such part.
	Output(File) (Output, error)
}

// Output is a part in the making. Its bytes are written in order, each once.
type Output interface {
	io.WriterAt
	io.ReaderAt // of what was written before
	// Clone makes n bytes at offset off share storage with those at fromOff of another part, and tells whether it did: if
	// not, they are written. Offsets and n are multiples of 4096.
	Clone(off int64, from image.Digest, fromOff, n int64) bool
	// Done is called when all bytes are written and the part's digest is right, and never otherwise.
	Done() error
}

const (
	block = 4096
	chunk = 256 << 10 // bytes that are read, hashed and written at once
)

// Apply makes the outputs of the delta r. After an error, those outputs of which Done was called are whole and right, and
// what there is of the others is worth nothing.
func Apply(ctx context.Context, r io.Reader, sources Sources, outputs Outputs) error {
	in := bufio.NewReaderSize(r, 64<<10)
	h, err := ReadHeader(in)
	if err != nil {
		return err
	}
	a := &applier{ctx: ctx, in: in, sink: sink{buf: make([]byte, chunk)}}
	for _, f := range h.Sources {
		from, err := sources.Source(f)
		if err != nil {
			return fmt.Errorf("cannot read %q: %w", f.Name, err)
		}
		a.files = append(a.files, readable{f, from, 0})
	}
	for _, f := range h.Outputs {
		if err := a.output(f, outputs); err != nil {
			return fmt.Errorf("cannot make %q: %w", f.Name, err)
		}
	}
	if _, err := in.ReadByte(); err != io.EOF {
		return malformed("bytes after its end (%v)", err)
	}
	return nil
}

// readable is a source, or an output that is there or under way.
type readable struct {
	File
	io.ReaderAt
	cursor int64 // where the last operation that read it ended
}

type applier struct {
	sink
	ctx    context.Context
	in     *bufio.Reader
	files  []readable // sources, then outputs; the last one is under way
	codec  codec
	packed []byte // frames of the operation under way, used again for the next
	old    []byte // dictionary, likewise
}

// output makes one part.
func (a *applier) output(f File, outputs Outputs) error {
	out, err := outputs.Output(f)
	if err != nil {
		return err
	}
	a.files = append(a.files, readable{f, out, 0})
	a.sink.begin(f, out)
	for a.pos < f.Size {
		if err := a.ctx.Err(); err != nil {
			return err
		}
		if err := a.operation(); err != nil {
			return fmt.Errorf("at byte %d: %w", a.pos, err)
		}
	}
	return a.sink.end()
}

// operation reads one operation and does it.
func (a *applier) operation() error {
	kind, err := a.in.ReadByte()
	if err != nil {
		return malformed("it ends too early")
	}
	switch kind {
	case opCopy:
		from, err := a.seek(a.Size)
		if err != nil {
			return err
		}
		return a.copyRange(a.ctx, a.files[from.File], from)
	case opDiff:
		return a.diff()
	case opPatch:
		return a.patch()
	case opData:
		return a.data()
	}
	return malformed("operation %d is not known", kind)
}

// seek reads a range of a file and its size, which is at most limit.
func (a *applier) seek(limit int64) (Range, error) {
	i, err := binary.ReadUvarint(a.in)
	if err != nil || i >= uint64(len(a.files)) {
		return Range{}, malformed("file %d of %d (%v)", i, len(a.files), err)
	}
	f := &a.files[i]
	end := f.Size
	if int(i) == len(a.files)-1 {
		end = a.pos // of the output under way there is no more
	}
	skip, err := binary.ReadVarint(a.in)
	if err != nil || skip < -f.cursor || skip > end-f.cursor {
		return Range{}, malformed("skips %d bytes at %d of %d (%v)", skip, f.cursor, end, err)
	}
	r := Range{File: int(i), Offset: f.cursor + skip}
	if r.Size, err = a.size(min(limit, end-r.Offset)); err != nil {
		return Range{}, err
	}
	f.cursor = r.Offset + r.Size
	return r, nil
}

// size reads a number of bytes, which is at least 1 and at most limit.
func (a *applier) size(limit int64) (int64, error) {
	n, err := binary.ReadUvarint(a.in)
	if err != nil || n == 0 || limit < 0 || n > uint64(limit) {
		return 0, malformed("length %d where 1 to %d are possible (%v)", n, limit, err)
	}
	return int64(n), nil
}

// frames reads n lengths of frames and then the frames.
func (a *applier) frames(n int) ([][]byte, error) {
	sizes := make([]int64, n)
	var sum int64
	for i := range n {
		size, err := a.size(maxPacked - sum)
		if err != nil {
			return nil, err
		}
		sizes[i], sum = size, sum+size
	}
	a.packed = grow(a.packed, sum)
	if _, err := io.ReadFull(a.in, a.packed); err != nil {
		return nil, malformed("it ends too early: %v", err)
	}
	var frames [][]byte
	rest := a.packed
	for i := range n {
		frames = append(frames, rest[:sizes[i]])
		rest = rest[sizes[i]:]
	}
	return frames, nil
}

// grow returns a slice of n bytes, b's own if it has room.
func grow(b []byte, n int64) []byte {
	if int64(cap(b)) < n {
		return make([]byte, n)
	}
	return b[:n]
}

// patch does a PATCH.
func (a *applier) patch() error {
	from, err := a.seek(MaxPatch)
	if err != nil {
		return err
	}
	size, err := a.size(min(MaxPatch, a.room()))
	if err != nil {
		return err
	}
	frames, err := a.frames(1)
	if err != nil {
		return err
	}
	a.old = grow(a.old, from.Size)
	if err := readAt(a.files[from.File], a.old, from.Offset); err != nil {
		return err
	}
	r, err := a.codec.withDictionary(frames[0], a.old)
	if err != nil {
		return err
	}
	return a.unpack(r, size)
}

// data does a DATA.
func (a *applier) data() error {
	size, err := a.size(min(MaxSpan, a.room()))
	if err != nil {
		return err
	}
	frames, err := a.frames(1)
	if err != nil {
		return err
	}
	r, err := a.codec.open(0, frames[0])
	if err != nil {
		return err
	}
	return a.unpack(r, size)
}

// unpack writes the size bytes that r must give, no fewer and no more.
func (a *applier) unpack(r io.Reader, size int64) error {
	for size > 0 {
		p := a.buf[:min(size, chunk)]
		if _, err := io.ReadFull(r, p); err != nil {
			return malformed("%v", err)
		}
		if err := a.write(p); err != nil {
			return err
		}
		size -= int64(len(p))
	}
	return atEnd(r)
}

// atEnd tells whether r gives no more.
func atEnd(r io.Reader) error {
	var one [1]byte
	if n, err := io.ReadFull(r, one[:]); n != 0 || err != io.EOF {
		return malformed("a frame holds more than it may (%v)", err)
	}
	return nil
}

// readAt fills p with the bytes at off.
func readAt(r io.ReaderAt, p []byte, off int64) error {
	if n, err := r.ReadAt(p, off); n < len(p) {
		return fmt.Errorf("cannot read %d bytes at %d: %w", len(p), off, err)
	}
	return nil
}

// sink writes one part and hashes it.
type sink struct {
	File
	out  Output
	pos  int64 // bytes that are there
	hash hash.Hash
	buf  []byte
}

func (s *sink) begin(f File, out Output) {
	s.File, s.out, s.pos, s.hash = f, out, 0, sha256.New()
}

// room is how many bytes are missing.
func (s *sink) room() int64 { return s.Size - s.pos }

// write adds the next bytes.
func (s *sink) write(p []byte) error {
	if _, err := s.out.WriteAt(p, s.pos); err != nil {
		return err
	}
	return s.skip(p)
}

// skip adds the next bytes, which are in the output already.
func (s *sink) skip(p []byte) error {
	s.hash.Write(p)
	s.pos += int64(len(p))
	return nil
}

// copyRange adds a range of another part: shared where whole blocks lie alike in both, if the output can, else written.
func (s *sink) copyRange(ctx context.Context, f readable, from Range) error {
	if from.Size > s.room() {
		return malformed("copies %d bytes where %d are missing", from.Size, s.room())
	}
	before, shared := sharedBlocks(s.pos, from)
	if f.Digest == s.Digest { // of itself
		before, shared = from.Size, 0
	}
	if err := s.readRange(ctx, f, from.Offset, before, s.write); err != nil {
		return err
	}
	from.Offset, from.Size = from.Offset+before, from.Size-before
	put := s.write
	if shared > 0 && s.out.Clone(s.pos, f.Digest, from.Offset, shared) {
		put = s.skip
	}
	if err := s.readRange(ctx, f, from.Offset, shared, put); err != nil {
		return err
	}
	return s.readRange(ctx, f, from.Offset+shared, from.Size-shared, s.write)
}

// readRange hands n bytes of another part to put.
func (s *sink) readRange(ctx context.Context, f io.ReaderAt, off, n int64, put func([]byte) error) error {
	for n > 0 {
		p := s.buf[:min(n, chunk)]
		if err := readAt(f, p, off); err != nil {
			return err
		}
		if err := put(p); err != nil {
			return err
		}
		off, n = off+int64(len(p)), n-int64(len(p))
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// sharedBlocks returns which bytes of a range are whole blocks both there and at pos: how many bytes lie before them, and how
// many they are.
func sharedBlocks(pos int64, from Range) (before, shared int64) {
	before = -pos & (block - 1)
	if (pos-from.Offset)%block != 0 || from.Size < before+block {
		return from.Size, 0
	}
	return before, (from.Size - before) / block * block
}

// end compares the digest of what was written and says that it is done.
func (s *sink) end() error {
	if got := image.NewDigest([sha256.Size]byte(s.hash.Sum(nil))); got != s.Digest {
		return malformed("its digest is %s, and should be %s", got, s.Digest)
	}
	return s.out.Done()
}
