// Package bsdiff says how one range of bytes is made of another, by Colin Percival's algorithm ("Naive differences of
// executable code", 2003): matches are extended over single bytes that differ, so that code whose addresses have moved costs
// a few bytes that repeat, which a compressor then removes.
package bsdiff

import (
	"encoding/binary"
	"math/bits"
)

// Streams is how new bytes are made of old ones.
type Streams struct {
	Control []byte // for each step, as varints: signed bytes to skip in the old, bytes to add, bytes to insert
	Diff    []byte // to be added to old bytes
	Extra   []byte // to be inserted
}

// Index finds bytes in old ones. Several goroutines may use it at once.
type Index struct {
	old    []byte
	sorted []int32 // starts of the suffixes, in the order of those
}

// NewIndex sorts the suffixes of old, of at most 1 GiB. It needs up to 14 times the memory of old while it sorts.
func NewIndex(old []byte) *Index { return &Index{old, suffixes(old, 255)} }

// farEnough is how long a match is looked at: a longer one is as good, and looking at all of it would take quadratic time.
const farEnough = 4 << 10

// better is by how many bytes a new match must beat what going on with the last one gives.
const better = 8

// Diff returns how to make b of what x indexes.
func (x *Index) Diff(b []byte) Streams {
	d := differ{x: x, new: b}
	for d.scan < len(b) {
		d.find()
		if d.n != d.score || d.scan == len(b) {
			d.emit()
		}
	}
	return d.out
}

// differ is the state of the scan. What is before last is in the streams already.
type differ struct {
	x   *Index
	new []byte
	out Streams

	scan    int // in new
	pos, n  int // the best match for scan: where in old, and how long
	score   int // how many of these bytes the last match, gone on with, has right
	last    int // in new: where the last match began
	lastOld int // in old, likewise
	read    int // in old: where the last step ended
}

// find goes on until there is a match that is better than going on with the last one.
func (d *differ) find() {
	old, offset := d.x.old, d.lastOld-d.last
	right := func(i int) bool { // whether the last match, gone on with, has byte i right
		return i+offset < len(old) && i+offset >= 0 && old[i+offset] == d.new[i]
	}
	d.score = 0
	d.scan += d.n
	for counted := d.scan; d.scan < len(d.new); d.scan++ {
		d.pos, d.n = d.x.longest(d.new[d.scan:min(len(d.new), d.scan+farEnough)])
		for ; counted < d.scan+d.n; counted++ {
			if right(counted) {
				d.score++
			}
		}
		if d.n == d.score && d.n != 0 || d.n > d.score+better {
			return
		}
		if right(d.scan) && counted > d.scan {
			d.score--
		}
		counted = max(counted, d.scan+1)
	}
	d.n = 0
}

// emit ends the last match: it is extended forward, the new one backward, and what lies between them is inserted.
func (d *differ) emit() {
	forward := d.forward()
	backward := 0
	if d.scan < len(d.new) {
		backward = d.backward()
	}
	if over := d.last + forward - (d.scan - backward); over > 0 {
		cut := d.divide(forward, backward, over)
		forward, backward = forward-over+cut, backward-cut
	}
	for i := range forward {
		d.out.Diff = append(d.out.Diff, d.new[d.last+i]-d.x.old[d.lastOld+i])
	}
	extra := d.new[d.last+forward : d.scan-backward]
	d.out.Extra = append(d.out.Extra, extra...)
	if forward+len(extra) > 0 {
		d.out.Control = binary.AppendVarint(d.out.Control, int64(d.lastOld-d.read))
		d.out.Control = binary.AppendUvarint(d.out.Control, uint64(forward))
		d.out.Control = binary.AppendUvarint(d.out.Control, uint64(len(extra)))
		d.read = d.lastOld + forward
	}
	d.last, d.lastOld = d.scan-backward, d.pos-backward
}

// forward is how far the last match is worth extending: as long as more bytes are right than wrong.
func (d *differ) forward() int {
	right, best, length := 0, 0, 0
	for i := 0; d.last+i < d.scan && d.lastOld+i < len(d.x.old); {
		if d.x.old[d.lastOld+i] == d.new[d.last+i] {
			right++
		}
		i++
		if right*2-i > best*2-length {
			best, length = right, i
		}
	}
	return length
}

// backward is the same for the new match, towards the last one.
func (d *differ) backward() int {
	right, best, length := 0, 0, 0
	for i := 1; d.scan-i >= d.last && d.pos-i >= 0; i++ {
		if d.x.old[d.pos-i] == d.new[d.scan-i] {
			right++
		}
		if right*2-i > best*2-length {
			best, length = right, i
		}
	}
	return length
}

// divide returns how many of the bytes that both matches reach are better left to the last one.
func (d *differ) divide(forward, backward, over int) int {
	score, best, cut := 0, 0, 0
	for i := range over {
		b := d.new[d.last+forward-over+i]
		if b == d.x.old[d.lastOld+forward-over+i] {
			score++
		}
		if b == d.x.old[d.pos-backward+i] {
			score--
		}
		if score > best {
			best, cut = score, i+1
		}
	}
	return cut
}

// longest returns where in old the longest beginning of b is, and how long it is. The search halves the sorted suffixes; what
// b shares with both ends of what is left, it shares with all between them.
func (x *Index) longest(b []byte) (pos, n int) {
	low, high := -1, len(x.sorted)
	var lowN, highN int
	for high-low > 1 {
		mid := low + (high-low)/2
		at := int(x.sorted[mid])
		m := min(lowN, highN)
		m += common(x.old[at+m:], b[m:])
		if m > n {
			pos, n = at, m
		}
		if m == len(b) {
			return pos, n
		}
		if at+m == len(x.old) || x.old[at+m] < b[m] {
			low, lowN = mid, m
		} else {
			high, highN = mid, m
		}
	}
	return pos, n
}

// common is how many bytes a and b have in common at their beginnings.
func common(a, b []byte) int {
	n, i := min(len(a), len(b)), 0
	for ; i+8 <= n; i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}
