package delta

import (
	"bufio"
	"encoding/binary"
	"io"
)

// diff does a DIFF: for each step of the control stream it skips old bytes, adds bytes of the diff stream to the next ones, and
// inserts bytes of the extra stream.
func (a *applier) diff() error {
	from, err := a.seek(MaxSpan)
	if err != nil {
		return err
	}
	size, err := a.size(min(MaxSpan, a.room()))
	if err != nil {
		return err
	}
	frames, err := a.frames(3)
	if err != nil {
		return err
	}
	var streams [3]io.Reader
	for i := range streams {
		if streams[i], err = a.codec.open(i, frames[i]); err != nil {
			return err
		}
	}
	d := differ{
		sink: &a.sink, old: a.files[from.File], from: from,
		control: bufio.NewReaderSize(streams[0], 4<<10), diff: streams[1], extra: streams[2],
	}
	for left := size; left > 0; {
		n, err := d.step(left)
		if err != nil {
			return err
		}
		left -= n
	}
	for _, r := range []io.Reader{d.control, d.diff, d.extra} {
		if err := atEnd(r); err != nil {
			return err
		}
	}
	return nil
}

// differ is a DIFF under way.
type differ struct {
	sink        *sink
	old         io.ReaderAt
	from        Range
	pos         int64 // in the range
	control     *bufio.Reader
	diff, extra io.Reader
}

// step does one step of at most left bytes and returns how many it made.
func (d *differ) step(left int64) (int64, error) {
	skip, err := binary.ReadVarint(d.control)
	if err != nil || skip < -d.pos || skip > d.from.Size-d.pos {
		return 0, malformed("skips %d bytes at %d of %d (%v)", skip, d.pos, d.from.Size, err)
	}
	d.pos += skip
	add, err := binary.ReadUvarint(d.control)
	if err != nil || add > uint64(min(left, d.from.Size-d.pos)) {
		return 0, malformed("adds %d bytes at %d of %d (%v)", add, d.pos, d.from.Size, err)
	}
	insert, err := binary.ReadUvarint(d.control)
	if err != nil || insert > uint64(left)-add || add+insert == 0 {
		return 0, malformed("inserts %d bytes where %d are missing (%v)", insert, uint64(left)-add, err)
	}
	if err := d.add(int64(add)); err != nil {
		return 0, err
	}
	if err := d.insert(int64(insert)); err != nil {
		return 0, err
	}
	d.pos += int64(add)
	return int64(add + insert), nil
}

// add writes n old bytes with those of the diff stream added to them.
func (d *differ) add(n int64) error {
	const half = chunk / 2
	for off := d.from.Offset + d.pos; n > 0; {
		m := min(n, half)
		p, q := d.sink.buf[:m], d.sink.buf[half:half+m]
		if err := readAt(d.old, p, off); err != nil {
			return err
		}
		if _, err := io.ReadFull(d.diff, q); err != nil {
			return malformed("%v", err)
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

// insert writes n bytes of the extra stream.
func (d *differ) insert(n int64) error {
	for n > 0 {
		p := d.sink.buf[:min(n, chunk)]
		if _, err := io.ReadFull(d.extra, p); err != nil {
			return malformed("%v", err)
		}
		if err := d.sink.write(p); err != nil {
			return err
		}
		n -= int64(len(p))
	}
	return nil
}
