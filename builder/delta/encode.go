package delta

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"allotment/builder/delta/bsdiff"
	"allotment/image/delta"
	"allotment/internal/progress"
)

// operation is one range of an output as the delta has it: a copy, or frames by what kind they are.
type operation struct {
	kind   kind
	from   delta.Range // of copy, diff and patch
	size   int64       // bytes that it makes
	frames [][]byte
}

type kind int

const (
	copied kind = iota
	diffed
	patched
	sent
)

// cost is about how many bytes of the delta it takes.
func (o operation) cost() int {
	n := 8
	for _, f := range o.frames {
		n += len(f) + 2
	}
	return n
}

// write compares all ranges, several at once, and writes the operations in order.
func (p *plan) write(ctx context.Context, w io.Writer, step progress.Step) (Stats, error) {
	out, err := delta.NewWriter(w, p.header)
	if err != nil {
		return Stats{}, err
	}
	z, err := encoder(p.Workers)
	if err != nil {
		return Stats{}, err
	}
	defer z.Close()
	group, ctx := errgroup.WithContext(ctx)
	queue := make(chan chan operation, 64*p.Workers)
	group.Go(func() error {
		defer close(queue)
		workers, ctx := errgroup.WithContext(ctx)
		workers.SetLimit(p.Workers)
		for i := range p.ranges {
			result := make(chan operation, 1)
			select {
			case queue <- result:
			case <-ctx.Done():
				return workers.Wait()
			}
			workers.Go(func() error {
				op, err := p.encode(ctx, z, &p.ranges[i])
				if err == nil {
					result <- op
				}
				return err
			})
		}
		return workers.Wait()
	})
	m := merger{out: out, step: step}
	group.Go(func() error {
		for i := range p.ranges {
			select {
			case result := <-queue:
				if err := m.next(ctx, p.ranges[i].File, result); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return m.flush()
	})
	err = group.Wait()
	return m.stats, err
}

// merger writes operations, copies that follow each other as one.
type merger struct {
	out     *delta.Writer
	step    progress.Step
	stats   Stats
	pending operation // a copy that may go on; none if its size is 0
	file    int       // the output that it is for
}

func (m *merger) next(ctx context.Context, file int, result chan operation) error {
	var op operation
	select {
	case op = <-result:
	case <-ctx.Done():
		return ctx.Err()
	}
	m.step.Add(op.size)
	last := &m.pending
	if op.kind == copied && last.size > 0 && m.file == file && op.from.File == last.from.File &&
		op.from.Offset == last.from.Offset+last.from.Size {
		last.size += op.size
		last.from.Size += op.size
		return nil
	}
	if err := m.flush(); err != nil {
		return err
	}
	if op.kind == copied {
		m.pending, m.file = op, file
		return nil
	}
	return m.put(op)
}

func (m *merger) flush() error {
	op := m.pending
	m.pending = operation{}
	if op.size == 0 {
		return nil
	}
	return m.put(op)
}

func (m *merger) put(op operation) error {
	m.stats.Operations++
	switch op.kind {
	case copied:
		m.stats.Copied += op.size
		return m.out.Copy(op.from)
	case diffed:
		m.stats.Diffed += op.size
		f := delta.Frames{Steps: op.frames[0], Same: op.frames[1], Changed: op.frames[2], Add: op.frames[3], Insert: op.frames[4]}
		return m.out.Diff(op.from, op.size, f)
	case patched:
		m.stats.Patched += op.size
		return m.out.Patch(op.from, op.size, op.frames[0])
	default:
		m.stats.Sent += op.size
		return m.out.Data(op.size, op.frames[0])
	}
}

// good is the share of its bytes below which a way to make a range is short enough: looking for shorter ones costs more than it
// saves.
const good = 1.0 / 20

// encode finds a short way to make a range, the most promising first.
func (p *plan) encode(ctx context.Context, z *zstd.Encoder, c *change) (operation, error) {
	if c.copy != nil {
		return operation{kind: copied, from: *c.copy, size: c.Size}, nil
	}
	b, err := p.read(c.Range)
	if err != nil {
		return operation{}, fmt.Errorf("cannot read %q: %w", p.parts[c.File].Name, err)
	}
	var best operation
	enough := func(op operation) bool {
		if op.frames != nil && (best.frames == nil || op.cost() < best.cost()) {
			best = op
		}
		return best.frames != nil && float64(best.cost()) < good*float64(len(b))
	}
	for _, r := range c.old {
		if err := ctx.Err(); err != nil {
			return operation{}, err
		}
		old, err := p.read(r)
		if err != nil {
			return operation{}, fmt.Errorf("cannot read %q: %w", p.parts[r.File].Name, err)
		}
		if enough(diff(z, r, old, b)) || enough(patch(r, old, b)) {
			return best, nil
		}
	}
	enough(operation{kind: sent, size: c.Size, frames: [][]byte{z.EncodeAll(b, nil)}})
	return best, nil
}

func diff(z *zstd.Encoder, r delta.Range, old, b []byte) operation {
	s := bsdiff.NewIndex(old).Diff(b)
	op := operation{kind: diffed, from: r, size: int64(len(b))}
	same, changed, add := runs(s.Diff)
	for _, stream := range [][]byte{s.Control, same, changed, add, s.Extra} {
		op.frames = append(op.frames, z.EncodeAll(stream, nil))
	}
	return op
}

// runs splits what is to be added to old bytes, most of it zeros, into lengths of runs of zeros, lengths of the runs between
// them, and those. Apart, they pack a sixth shorter.
func runs(diff []byte) (same, changed, add []byte) {
	for len(diff) > 0 {
		n := 0
		for n < len(diff) && diff[n] == 0 {
			n++
		}
		m := n
		for m < len(diff) && diff[m] != 0 {
			m++
		}
		same, changed = binary.AppendUvarint(same, uint64(n)), binary.AppendUvarint(changed, uint64(m-n))
		add, diff = append(add, diff[n:m]...), diff[m:]
	}
	return same, changed, add
}

// patch packs b with old as its dictionary. It gives no operation where that is not possible.
func patch(r delta.Range, old, b []byte) operation {
	if len(old) > delta.MaxPatch || len(b) > delta.MaxPatch {
		return operation{}
	}
	z, err := encoder(1, zstd.WithEncoderDictRaw(0, old))
	if err != nil {
		return operation{}
	}
	defer z.Close()
	return operation{kind: patched, from: r, size: int64(len(b)), frames: [][]byte{z.EncodeAll(b, nil)}}
}

// encoder packs frames that package image/delta unpacks.
func encoder(workers int, more ...zstd.EOption) (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, append(more, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithZeroFrames(true),
		zstd.WithWindowSize(delta.Window), zstd.WithEncoderCRC(false), zstd.WithEncoderConcurrency(workers))...)
}
