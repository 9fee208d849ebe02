package delta

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Known is the extents of the parts that a device has, by their hashes.
type Known struct {
	files  []readable
	places map[Hash]Range
}

// Add reads a part and remembers its extents.
func (k *Known) Add(ctx context.Context, f File, r io.ReaderAt) error {
	extents, err := Extents(r, f.Size)
	if err != nil {
		return err
	}
	k.files = append(k.files, readable{f, r, 0})
	buf := make([]byte, maxExtent)
	for _, e := range Cut(extents, maxExtent) {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := buf[:e.Size]
		if err := readAt(r, p, e.Offset); err != nil {
			return err
		}
		k.remember(sha256.Sum256(p), Range{len(k.files) - 1, e.Offset, e.Size})
	}
	return nil
}

func (k *Known) remember(h Hash, at Range) {
	if k.places == nil {
		k.places = map[Hash]Range{}
	}
	if _, ok := k.places[h]; !ok {
		k.places[h] = at
	}
}

// Missing is how many bytes of the pack a device has to fetch that knows k. Content that the part holds twice counts once.
func (k *Known) Missing(x Index) int64 {
	var n int64
	seen := map[Hash]bool{}
	for _, e := range x.Extents {
		if _, ok := k.places[e.Hash]; !ok && !seen[e.Hash] {
			n += e.Packed
		}
		seen[e.Hash] = true
	}
	return n
}

// Fetch gives the bytes of a pack from offset from up to offset to. They need not be checked before.
type Fetch func(ctx context.Context, from, to int64) (io.ReadCloser, error)

// Assemble makes a part of what k knows and of ranges of its pack, and adds its extents to what k knows. As with Apply, Done
// of out is called only when the part is whole and right.
func Assemble(ctx context.Context, f File, x Index, k *Known, fetch Fetch, out Output) error {
	if x.Digest != f.Digest || x.Size != f.Size {
		return malformed("the index of %s is not that of %q", x.Digest.Short(), f.Name)
	}
	z, err := zstd.NewReader(nil, append(options(), zstd.WithDecodeAllCapLimit(true))...)
	if err != nil {
		return err
	}
	defer z.Close()
	a := &assembly{sink: sink{buf: make([]byte, chunk)}, known: k, index: x, unpack: z, raw: make([]byte, maxExtent)}
	a.sink.begin(f, out)
	k.files = append(k.files, readable{f, out, 0})
	for i := 0; i < len(x.Extents); {
		if i, err = a.next(ctx, i, fetch); err != nil {
			return fmt.Errorf("cannot make %q: at byte %d: %w", f.Name, a.pos, err)
		}
	}
	if err := a.end(); err != nil {
		return fmt.Errorf("cannot make %q: %w", f.Name, err)
	}
	return nil
}

// assembly is a part in the making.
type assembly struct {
	sink
	known  *Known
	index  Index
	at     int64 // where in the pack extent i lies
	unpack *zstd.Decoder
	packed []byte
	raw    []byte
}

// next makes extents from number i on, one that is known or a run of those that are not, and returns the number after.
func (a *assembly) next(ctx context.Context, i int, fetch Fetch) (int, error) {
	if err := ctx.Err(); err != nil {
		return i, err
	}
	e := a.index.Extents[i]
	if at, ok := a.known.places[e.Hash]; ok && at.Size == e.Size {
		a.at += e.Packed
		return i + 1, a.copyRange(ctx, a.known.files[at.File], at)
	}
	last, size := a.run(i)
	r, err := fetch(ctx, a.at, a.at+size)
	if err != nil {
		return i, err
	}
	defer r.Close()
	in := bufio.NewReaderSize(r, 64<<10)
	for ; i < last; i++ {
		if err := a.extent(in, a.index.Extents[i]); err != nil {
			return i, err
		}
	}
	return i, nil
}

// run returns the number after the last of the extents from i on that are to be fetched in one go, and their bytes.
func (a *assembly) run(i int) (last int, size int64) {
	seen := map[Hash]bool{}
	for last = i; last < len(a.index.Extents); last++ {
		e := a.index.Extents[last]
		if _, ok := a.known.places[e.Hash]; ok || seen[e.Hash] {
			break
		}
		seen[e.Hash] = true
		size += e.Packed
	}
	return last, size
}

// extent reads, unpacks, checks and writes one extent.
func (a *assembly) extent(in io.Reader, e Packed) error {
	a.packed = grow(a.packed, e.Packed)
	if _, err := io.ReadFull(in, a.packed); err != nil {
		return fmt.Errorf("cannot fetch an extent: %w", err)
	}
	raw, err := a.unpack.DecodeAll(a.packed, a.raw[:0:e.Size])
	if err != nil || int64(len(raw)) != e.Size || sha256.Sum256(raw) != e.Hash {
		return malformed("an extent of the pack is damaged (%v)", err)
	}
	a.known.remember(e.Hash, Range{len(a.known.files) - 1, a.pos, e.Size})
	a.at += e.Packed
	return a.write(raw)
}
