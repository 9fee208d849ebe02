// Package cutdisk is a disk in memory whose power can be cut at any write, for tests. It forgets or keeps each sector that
// was written since the last sync on its own, as real disks do.
package cutdisk

import (
	"errors"
	"maps"
)

const sectorSize = 512

// ErrCut is what every call gives once the power is cut.
var ErrCut = errors.New("the power is cut")

// Disk is a disk of unbounded size that holds zeros at first.
type Disk struct {
	base    map[int64][sectorSize]byte // shared with copies, never changed
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
	c.base, c.own = d.base, maps.Clone(d.own)
	return c
}

// Freeze makes what the medium holds the part that copies share.
func (d *Disk) Freeze() {
	all := maps.Clone(d.own)
	for s, b := range d.base {
		if _, ok := all[s]; !ok {
			all[s] = b
		}
	}
	d.base, d.own = all, map[int64][sectorSize]byte{}
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
	for done := 0; done < len(b); {
		at := off + int64(done)
		s := d.sector(at / sectorSize)
		done += copy(b[done:], s[at%sectorSize:])
	}
	return len(b), nil
}

func (d *Disk) sector(n int64) [sectorSize]byte {
	if b, ok := d.cache[n]; ok {
		return b
	}
	if b, ok := d.own[n]; ok {
		return b
	}
	return d.base[n]
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
