package delta

import (
	"bufio"
	"cmp"
	"errors"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"

	"allotment/image/delta"
)

const (
	piece  = 8 << 20       // bytes of new content that are compared at once
	window = delta.MaxSpan // bytes of old content that they are compared with, at most
)

// key is by what an extent is found again in another release.
type key struct {
	part string
	path string
	meta bool // what lies behind the file of that path
}

var digits = regexp.MustCompile(`[0-9]+`)

// masked is the key with versions in the path left out.
func (k key) masked() key { k.path = digits.ReplaceAllString(k.path, "0"); return k }

// base is the masked name of the file alone, in any part.
func (k key) base() key { return key{path: path.Base(k.masked().path), meta: k.meta} }

// anywhere is the path in any part.
func (k key) anywhere() key { k.part = ""; return k }

// catalogue is the extents of the older release by what they are found by.
type catalogue struct {
	extents []extent
	by      map[key][]int // indices, under every key that an extent has
	alike   map[uint64][]int
}

func newCatalogue() *catalogue { return &catalogue{by: map[key][]int{}} }

func (c *catalogue) add(e extent) {
	i := len(c.extents)
	c.extents = append(c.extents, e)
	for k := range names(e.key) {
		c.by[k] = append(c.by[k], i)
	}
}

// names are the keys of an extent, each once.
func names(k key) map[key]bool {
	return map[key]bool{k: true, k.masked(): true, k.anywhere(): true, k.base(): true}
}

// find returns the extent that goes by the most telling of k's names; of several, the one whose size is nearest.
func (c *catalogue) find(k key, size int64) (extent, bool) {
	for _, name := range []key{k, k.masked(), k.anywhere(), k.base()} {
		if found := c.by[name]; len(found) > 0 {
			best := slices.MinFunc(found, func(a, b int) int {
				return cmp.Compare(distance(c.extents[a].Size, size), distance(c.extents[b].Size, size))
			})
			return c.extents[best], true
		}
	}
	return extent{}, false
}

func distance(a, b int64) int64 { return max(a-b, b-a) }

// pair finds older ranges for every range that is no copy.
func (p *plan) pair() error {
	for i := range p.ranges {
		c := &p.ranges[i]
		if c.copy != nil {
			continue
		}
		if old, ok := p.old.find(c.key, c.whole.Size); ok {
			c.old = append(c.old, around(old.Range, c.Offset-c.whole.Offset, c.Size, c.whole.Size))
		}
		old, err := p.similar(c.Range)
		if err != nil {
			return err
		}
		for _, r := range old {
			if !slices.Contains(c.old, r) {
				c.old = append(c.old, r)
			}
		}
	}
	return nil
}

// around returns the part of an older extent where the content at pos of a new one of size bytes, n bytes long, most likely
// lies: all of it, or a window about the same share of it.
func around(old delta.Range, pos, n, size int64) delta.Range {
	if old.Size <= window {
		return old
	}
	middle := (pos + n/2) * old.Size / size
	start := min(max(0, middle-window/2), old.Size-window)
	return delta.Range{File: old.File, Offset: old.Offset + start, Size: window}
}

const (
	sketch  = 16  // features of an extent that are kept: the smallest
	sampled = 512 // one position in so many is a feature
)

// similar returns the older ranges that share most features with a new one. The older release is read for this when it is
// first needed.
func (p *plan) similar(r delta.Range) ([]delta.Range, error) {
	if p.old.alike == nil {
		p.old.alike = map[uint64][]int{}
		for i, e := range p.old.extents {
			features, err := p.features(e.Range)
			if err != nil {
				return nil, err
			}
			for _, f := range features {
				p.old.alike[f] = append(p.old.alike[f], i)
			}
		}
	}
	features, err := p.features(r)
	if err != nil {
		return nil, err
	}
	shared := map[int]int{}
	for _, f := range features {
		for _, i := range p.old.alike[f] {
			shared[i]++
		}
	}
	best := slices.SortedFunc(maps.Keys(shared), func(a, b int) int {
		return cmp.Or(cmp.Compare(shared[b], shared[a]), cmp.Compare(a, b))
	})
	var found []delta.Range
	for _, i := range best[:min(1, len(best))] {
		found = append(found, around(p.old.extents[i].Range, 0, r.Size, r.Size))
	}
	return found, nil
}

// features returns hashes of pieces of 64 bytes of a range, chosen by the content alone, so that ranges with content in
// common have some in common wherever it lies: the smallest of those that a rolling hash picks.
func (p *plan) features(r delta.Range) ([]uint64, error) {
	in := bufio.NewReaderSize(io.NewSectionReader(p.parts[r.File], r.Offset, r.Size), 256<<10)
	var smallest []uint64
	var hash uint64
	for n := 0; ; n++ {
		b, err := in.ReadByte()
		if errors.Is(err, io.EOF) {
			return smallest, nil
		}
		if err != nil {
			return nil, err
		}
		hash = hash<<1 + scatter(uint64(b))
		if n >= 64 && hash>>32%sampled == 0 {
			smallest = keepSmallest(smallest, scatter(hash))
		}
	}
}

// keepSmallest adds f to a sorted list that keeps no more than a sketch.
func keepSmallest(list []uint64, f uint64) []uint64 {
	i, found := slices.BinarySearch(list, f)
	if found || i == sketch {
		return list
	}
	list = slices.Insert(list, i, f)
	return list[:min(len(list), sketch)]
}

// scatter is the finaliser of splitmix64 (Steele, Lea and Flood, 2014).
func scatter(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
