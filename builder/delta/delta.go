// Package delta makes what package image/delta applies: the shortest way from all parts of one release to those of another.
// Content that both have is copied, content that changed is paired with the older content most like it, and what is like
// nothing is sent, once for the whole release.
package delta

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"allotment/image/delta"
	"allotment/internal/progress"
)

// Part is one part of a release: UKI, root or layer.
type Part struct {
	delta.File
	io.ReaderAt // its bytes, which several goroutines read
}

// Options says how to make a delta. They do not change its bytes.
type Options struct {
	Workers  int // how many ranges are compared at once; each needs up to 400 MiB. At least 1
	Progress progress.Reporter
}

// Stats says what a delta consists of. Sizes are in bytes, of the outputs.
type Stats struct {
	Copied, Diffed, Patched, Sent int64
	Operations                    int
}

// Make writes the delta that leads from the parts of one release to those of another that are not among them. The same parts
// give the same bytes.
func Make(ctx context.Context, w io.Writer, from, to []Part, o Options) (Stats, error) {
	p, err := newPlan(ctx, from, to, o)
	if err != nil {
		return Stats{}, fmt.Errorf("cannot compare releases: %w", err)
	}
	step := o.Progress.Step(fmt.Sprintf("make a delta to %d parts", len(p.outputs)), p.size())
	stats, err := p.write(ctx, w, step)
	step.Done(err)
	return stats, err
}

// plan is what is known of both releases before anything is compared byte by byte.
type plan struct {
	Options
	parts   []Part // sources, then outputs, as the delta counts them
	header  delta.Header
	outputs []Part
	old     *catalogue
	ranges  []change
}

// change is how to make the next range of the outputs.
type change struct {
	extent
	whole delta.Range   // the extent that it was cut out of
	copy  *delta.Range  // if not nil, it is a copy of this
	old   []delta.Range // else it is like one of these, the most promising first
}

// extent is an extent of one of the parts.
type extent struct {
	delta.Range
	key key
}

// newPlan lists the extents of all parts and finds out where those of the outputs come from.
func newPlan(ctx context.Context, from, to []Part, o Options) (*plan, error) {
	p := &plan{Options: o, old: newCatalogue()}
	there := map[string]bool{}
	for _, part := range from {
		if !there[string(part.Digest)] {
			there[string(part.Digest)] = true
			p.parts = append(p.parts, part)
			p.header.Sources = append(p.header.Sources, part.File)
		}
	}
	for _, part := range to {
		if !there[string(part.Digest)] {
			there[string(part.Digest)] = true
			p.outputs = append(p.outputs, part)
			p.header.Outputs = append(p.header.Outputs, part.File)
		}
	}
	p.parts = append(p.parts, p.outputs...)
	known := map[delta.Hash]delta.Range{}
	for i := range p.parts {
		extents, err := p.extents(i)
		if err != nil {
			return nil, err
		}
		for _, e := range extents {
			hash, err := p.hash(ctx, e.Range)
			if err != nil {
				return nil, err
			}
			if i < len(p.header.Sources) {
				p.old.add(e)
			} else {
				p.change(e, hash, known)
			}
			if _, ok := known[hash]; !ok {
				known[hash] = e.Range
			}
		}
	}
	return p, p.pair()
}

// change adds how to make an extent of an output.
func (p *plan) change(e extent, hash delta.Hash, known map[delta.Hash]delta.Range) {
	if at, ok := known[hash]; ok {
		p.ranges = append(p.ranges, change{extent: e, whole: e.Range, copy: &at})
		return
	}
	for pos := int64(0); pos < e.Size; pos += piece {
		cut := e
		cut.Offset, cut.Size = e.Offset+pos, min(piece, e.Size-pos)
		p.ranges = append(p.ranges, change{extent: cut, whole: e.Range})
	}
}

// extents lists the extents of a part. What lies behind a file's blocks, inodes and small files, goes by the file's name.
func (p *plan) extents(i int) ([]extent, error) {
	list, err := delta.Extents(p.parts[i], p.parts[i].Size)
	if err != nil {
		return nil, fmt.Errorf("cannot list the files of %q: %w", p.parts[i].Name, err)
	}
	var all []extent
	last := ""
	for _, e := range list {
		k := key{part: p.parts[i].Name, path: e.Path, meta: e.Path == ""}
		if k.meta {
			k.path = last
		}
		last = k.path
		all = append(all, extent{delta.Range{File: i, Offset: e.Offset, Size: e.Size}, k})
	}
	return all, nil
}

func (p *plan) hash(ctx context.Context, r delta.Range) (delta.Hash, error) {
	h := sha256.New()
	_, err := io.Copy(h, io.NewSectionReader(p.parts[r.File], r.Offset, r.Size))
	if err == nil {
		err = ctx.Err()
	}
	return delta.Hash(h.Sum(nil)), err
}

// read returns the bytes of a range.
func (p *plan) read(r delta.Range) ([]byte, error) {
	b := make([]byte, r.Size)
	_, err := io.ReadFull(io.NewSectionReader(p.parts[r.File], r.Offset, r.Size), b)
	return b, err
}

func (p *plan) size() int64 {
	var n int64
	for _, c := range p.ranges {
		n += c.Size
	}
	return n
}
