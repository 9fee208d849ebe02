// Package cutdisk is a disk in memory whose power can be cut at any write, for tests. It forgets or keeps each sector that
// was written since the last sync on its own, as real disks do.
package cutdisk

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
)

const sectorSize = 512

// ErrCut is what every call gives once the power is cut.
var ErrCut = errors.New("the power is cut")

// Disk is a disk of unbounded size that holds zeros at first.
type Disk struct {
	head    []byte                     // shared with copies, never changed; zeros behind it
	own     map[int64][sectorSize]byte // on the medium
	pending []write                    // not on the medium yet
	cache   map[int64][sectorSize]byte // what reads give of pending
	left    int                        // writes until the cut; negative: never
	Writes  int                        // sectors written so far
}

type write struct {
	sector int64
	data   [sectorSize]byte
}

// New returns an empty disk.
func New() *Disk {
	return &Disk{own: map[int64][sectorSize]byte{}, cache: map[int64][sectorSize]byte{}, left: -1}
}

// Copy returns a disk with what is on the medium of d now.
func (d *Disk) Copy() *Disk {
	c := New()
	c.head, c.own = d.head, maps.Clone(d.own)
	return c
}

// Freeze makes what the medium holds the part that copies share.
func (d *Disk) Freeze() {
	end := int64(len(d.head))
	for s := range d.own {
		end = max(end, (s+1)*sectorSize)
	}
	head := make([]byte, end)
	copy(head, d.head)
	for s, b := range d.own {
		copy(head[s*sectorSize:], b[:])
	}
	d.head, d.own = head, map[int64][sectorSize]byte{}
}

// CutAfter cuts the power after so many more sectors were written.
func (d *Disk) CutAfter(writes int) { d.left = writes }

// IsCut tells whether the power was cut.
func (d *Disk) IsCut() bool { return d.left == 0 }

// ReadAt implements io.ReaderAt.
func (d *Disk) ReadAt(b []byte, off int64) (int, error) {
	if d.left == 0 {
		return 0, ErrCut
	}
	clear(b[copy(b, d.head[min(off, int64(len(d.head))):]):])
	for _, changed := range []map[int64][sectorSize]byte{d.own, d.cache} {
		for s, data := range changed {
			switch at := s*sectorSize - off; {
			case at >= 0 && at < int64(len(b)):
				copy(b[at:], data[:])
			case at < 0 && at > -sectorSize:
				copy(b, data[-at:])
			}
		}
	}
	return len(b), nil
}

// WriteAt implements io.WriterAt for whole sectors.
func (d *Disk) WriteAt(b []byte, off int64) (int, error) {
	if off%sectorSize != 0 || len(b)%sectorSize != 0 {
		return 0, errors.New("cutdisk: not whole sectors")
	}
	for done := 0; done < len(b); done += sectorSize {
		if d.left == 0 {
			return done, ErrCut
		}
		w := write{(off + int64(done)) / sectorSize, [sectorSize]byte(b[done:])}
		d.pending = append(d.pending, w)
		d.cache[w.sector] = w.data
		d.Writes++
		d.left--
		if d.left == 0 {
			return done, ErrCut
		}
	}
	return len(b), nil
}

// Sync makes all that was written last.
func (d *Disk) Sync() error {
	if d.left == 0 {
		return ErrCut
	}
	for _, w := range d.pending {
		d.own[w.sector] = w.data
	}
	d.pending = nil
	clear(d.cache)
	return nil
}

// maxSubsets is up to how many pending writes every subset of them is tried; of more: none, all, each alone, and all but each.
const maxSubsets = 5

// Found returns the disks that may be found after the cut: with the pending writes that reached the medium, in every
// combination.
func (d *Disk) Found() []*Disk {
	n := len(d.pending)
	if n <= maxSubsets {
		var out []*Disk
		for set := range 1 << n {
			out = append(out, d.with(func(i int) bool { return set>>i&1 == 1 }))
		}
		return out
	}
	out := []*Disk{d.with(func(int) bool { return false }), d.with(func(int) bool { return true })}
	for one := range n {
		out = append(out, d.with(func(i int) bool { return i == one }), d.with(func(i int) bool { return i != one }))
	}
	return out
}

func (d *Disk) with(kept func(i int) bool) *Disk {
	c := d.Copy()
	for i, w := range d.pending {
		if kept(i) {
			c.own[w.sector] = w.data
		}
	}
	return c
}

// Sum identifies what the medium holds, among the copies of one disk.
func (d *Disk) Sum() [sha256.Size]byte {
	h := sha256.New()
	for _, s := range slices.Sorted(maps.Keys(d.own)) {
		b := d.own[s]
		var was [sectorSize]byte
		if at := s * sectorSize; at < int64(len(d.head)) {
			copy(was[:], d.head[at:])
		}
		if b != was {
			h.Write(binary.LittleEndian.AppendUint64(nil, uint64(s)))
			h.Write(b[:])
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}
