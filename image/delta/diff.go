package delta

import (
	"bufio"
	"encoding/binary"
	"io"
)

// diff does a DIFF: each step skips old bytes, changes the next ones and inserts others.
func (a *applier) diff() error {
	from, err := a.seek(MaxSpan)
	if err != nil {
		return err
	}
	size, err := a.size(min(MaxSpan, a.room()))
	if err != nil {
		return err
	}
	frames, err := a.frames(len(Frames{}.list()))
	if err != nil {
		return err
	}
	streams := make([]*bufio.Reader, len(frames))
	for i := range frames {
		r, err := a.codec.open(i, frames[i])
		if err != nil {
			return err
		}
		streams[i] = bufio.NewReaderSize(r, 8<<10)
	}
	d := differ{
		sink: &a.sink, old: a.files[from.File], from: from, steps: streams[0], insertion: streams[4],
		change: &sparse{same: streams[1], changed: streams[2], add: streams[3]},
	}
	for left := size; left > 0; {
		n, err := d.step(left)
		if err != nil {
			return err
		}
		left -= n
	}
	if d.change.zeros+d.change.others > 0 {
		return malformed("a DIFF changes more than it makes")
	}
	for _, r := range streams {
		if err := atEnd(r); err != nil {
			return err
		}
	}
	return nil
}

// differ is a DIFF under way.
type differ struct {
	sink      *sink
	old       io.ReaderAt
	from      Range
	pos       int64 // in the range
	steps     *bufio.Reader
	change    *sparse
	insertion io.Reader
}

// step does one step of at most left bytes and returns how many it made.
func (d *differ) step(left int64) (int64, error) {
	skip, err := binary.ReadVarint(d.steps)
	if err != nil || skip < -d.pos || skip > d.from.Size-d.pos {
		return 0, malformed("skips %d bytes at %d of %d (%v)", skip, d.pos, d.from.Size, err)
	}
	d.pos += skip
	change, err := binary.ReadUvarint(d.steps)
	if err != nil || change > uint64(min(left, d.from.Size-d.pos)) {
		return 0, malformed("changes %d bytes at %d of %d (%v)", change, d.pos, d.from.Size, err)
	}
	insert, err := binary.ReadUvarint(d.steps)
	if err != nil || insert > uint64(left)-change || change+insert == 0 {
		return 0, malformed("inserts %d bytes where %d are missing (%v)", insert, uint64(left)-change, err)
	}
	if err := d.changeNext(int64(change)); err != nil {
		return 0, err
	}
	if err := d.insertNext(int64(insert)); err != nil {
		return 0, err
	}
	d.pos += int64(change)
	return int64(change + insert), nil
}

// changeNext writes n old bytes as they are changed.
func (d *differ) changeNext(n int64) error {
	const half = chunk / 2
	for off := d.from.Offset + d.pos; n > 0; {
		m := min(n, half)
		p, q := d.sink.buf[:m], d.sink.buf[half:half+m]
		if err := readAt(d.old, p, off); err != nil {
			return err
		}
		if err := d.change.read(q); err != nil {
			return err
		}
		for i := range p {
			p[i] += q[i]
		}
		if err := d.sink.write(p); err != nil {
			return err
		}
		off, n = off+m, n-m
	}
	return nil
}

// insertNext writes n bytes of the insertion.
func (d *differ) insertNext(n int64) error {
	for n > 0 {
		p := d.sink.buf[:min(n, chunk)]
		if _, err := io.ReadFull(d.insertion, p); err != nil {
			return malformed("%v", err)
		}
		if err := d.sink.write(p); err != nil {
			return err
		}
		n -= int64(len(p))
	}
	return nil
}

// sparse gives what is to be added to bytes most of which stay as they are.
type sparse struct {
	same, changed *bufio.Reader // lengths of runs
	add           io.Reader
	zeros, others uint64 // what is left of the runs under way
}

// read fills p.
func (s *sparse) read(p []byte) error {
	for len(p) > 0 {
		if s.zeros+s.others == 0 {
			if err := s.next(); err != nil {
				return err
			}
		}
		zeros := p[:min(uint64(len(p)), s.zeros)]
		clear(zeros)
		p, s.zeros = p[len(zeros):], s.zeros-uint64(len(zeros))
		if s.zeros > 0 {
			return nil
		}
		others := p[:min(uint64(len(p)), s.others)]
		if _, err := io.ReadFull(s.add, others); err != nil {
			return malformed("%v", err)
		}
		p, s.others = p[len(others):], s.others-uint64(len(others))
	}
	return nil
}

// next begins the next two runs, which are not both empty.
func (s *sparse) next() (err error) {
	if s.zeros, err = binary.ReadUvarint(s.same); err == nil {
		s.others, err = binary.ReadUvarint(s.changed)
	}
	if err != nil || s.zeros > MaxSpan || s.others > MaxSpan || s.zeros+s.others == 0 {
		return malformed("runs of %d and %d bytes (%v)", s.zeros, s.others, err)
	}
	return nil
}
