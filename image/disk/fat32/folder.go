package fat32

import (
	"encoding/binary"
	"fmt"
	"io"
	"path"
	"syscall"
)

const (
	badCluster       = 0x0ffffff7
	deleted          = 0xe5 // first byte of an entry that is free
	entriesPerSector = sectorSize / entrySize
	maxFolder        = 2 << 20 // bytes; the specification allows no more
)

// Item is what a folder has under one name.
type Item struct {
	Name    string
	Size    int64 // bytes, of a file
	Folder  bool
	Cluster uint32 // where its content begins; names with the same one are of the same file

	from, to int // its entries in the folder: the long name's, and at to-1 its own
}

// folder is a folder that is changed.
type folder struct {
	clusters []uint32
	raw      []byte
	items    []Item
	end      int // number of entries before the first that was never used
}

// chain lists the clusters from the given one to the chain's end. With an error, what it could follow.
func (v *Volume) chain(cluster uint32) ([]uint32, error) {
	var out []uint32
	for c := cluster; cluster != 0; {
		if c < rootCluster || int64(c) >= v.clusters+rootCluster || int64(len(out)) >= v.clusters {
			return out, fmt.Errorf("chain leads to cluster %d of %d, or in a circle", c, v.clusters)
		}
		out = append(out, c)
		if c = v.link(c); c >= 0x0ffffff8 {
			break
		}
	}
	return out, nil
}

// offset is where a cluster begins, in bytes.
func (v *Volume) offset(cluster uint32) int64 {
	return v.data + int64(cluster-rootCluster)*v.clusterSize
}

// clusters reads a file cluster by cluster.
type clusters struct {
	v     *Volume
	chain []uint32
}

// ReadAt implements io.ReaderAt.
func (c clusters) ReadAt(b []byte, off int64) (int, error) {
	done := 0
	for done < len(b) {
		i, in := off/c.v.clusterSize, off%c.v.clusterSize
		if i >= int64(len(c.chain)) {
			return done, io.EOF
		}
		part := b[done:][:min(int64(len(b)-done), c.v.clusterSize-in)]
		if err := readFull(c.v.r, part, c.v.offset(c.chain[i])+in); err != nil {
			return done, err
		}
		done += len(part)
		off += int64(len(part))
	}
	return done, nil
}

// folder looks a folder up; "", "." and "/" are the root.
func (e *Editor) folder(name string) (*folder, error) {
	if name == "" || name == "." || name == "/" {
		return e.readFolder(e.root)
	}
	_, item, err := e.find(name)
	if err != nil {
		return nil, err
	}
	if !item.Folder {
		return nil, fmt.Errorf("cannot open folder %q: %w", path.Clean(name), syscall.ENOTDIR)
	}
	return e.readFolder(item.Cluster)
}

// readFolder reads the folder that begins at a cluster. Unlike Read it bears what a cut within firmware's or another
// system's rename leaves: parts of a long name without the rest are nothing, and an entry without them has its short name.
func (e *Editor) readFolder(cluster uint32) (*folder, error) {
	chain, err := e.v.chain(cluster)
	if err == nil && (len(chain) == 0 || int64(len(chain))*e.v.clusterSize > maxFolder) {
		err = fmt.Errorf("it has %d clusters", len(chain))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the folder at cluster %d: %w", cluster, err)
	}
	f := &folder{clusters: chain, raw: make([]byte, int64(len(chain))*e.v.clusterSize)}
	if _, err := (clusters{e.v, chain}).ReadAt(f.raw, 0); err != nil {
		return nil, err
	}
	f.parse()
	return f, nil
}

// parse fills items and end from raw.
func (f *folder) parse() {
	f.items, f.end = nil, len(f.raw)/entrySize
	var long longName
	start := 0
	for i := range f.end {
		b := f.raw[i*entrySize:][:entrySize]
		short := [11]byte(b)
		if long.next == 0 && len(long.units) == 0 {
			start = i
		}
		switch {
		case b[0] == 0:
			f.end = i
			return
		case b[0] == deleted:
			long = longName{}
		case b[11]&0x3f == attrLongName:
			if b[0]&lastLongName != 0 {
				start = i
			}
			if long.add(b) != nil {
				long = longName{}
			}
		case b[11]&attrLabel != 0, short == padName("."), short == padName(".."):
			long = longName{}
		default:
			name, err := long.take(short)
			if err != nil {
				name, start = shortText(short), i
			}
			f.items = append(f.items, Item{
				Name: name, Size: int64(binary.LittleEndian.Uint32(b[28:])), Folder: b[11]&attrDirectory != 0,
				Cluster: firstCluster(b), from: start, to: i + 1,
			})
		}
	}
}

// name gives content the name in folder f, in place of old where that is not nil. The write of one sector makes it
// visible; the same one takes the old name away if its entries are there too.
func (e *Editor) name(f *folder, old *Item, name string, attr byte, cluster, size uint32) error {
	taken := map[[11]byte]bool{}
	for i := range f.end {
		taken[[11]byte(f.raw[i*entrySize:])] = true
	}
	short, exact := shortName(name, taken)
	var entries []byte
	if !exact {
		entries = longNameEntries(name, short)
	}
	entries = append(entries, entry(short, attr, cluster, size, e.now)...)
	at, same := f.room(old, len(entries)/entrySize)
	if at < 0 {
		return fmt.Errorf("its folder is full: %w", syscall.ENOSPC)
	}
	if same {
		f.erase(old.from, old.to)
	}
	if err := e.show(f, at, entries); err != nil {
		return err
	}
	if old != nil && !same {
		return e.unname(f, old)
	}
	return nil
}

// room finds n free entries in one sector: in that of the old name if all of that lies there, which are then counted as
// free; else in one that holds nothing, so that later names of the file have room there too; else in any.
func (f *folder) room(old *Item, n int) (at int, same bool) {
	if old != nil && old.from/entriesPerSector == (old.to-1)/entriesPerSector {
		if at := f.run(old.from/entriesPerSector, old, n); at >= 0 {
			return at, true
		}
	}
	anywhere := -1
	for s := range len(f.raw) / sectorSize {
		if f.run(s, nil, entriesPerSector) >= 0 {
			return s * entriesPerSector, false
		}
		if anywhere < 0 {
			anywhere = f.run(s, nil, n)
		}
	}
	return anywhere, false
}

// run is the first of n free entries in a sector, or -1.
func (f *folder) run(sector int, old *Item, n int) int {
	free := 0
	for i := sector * entriesPerSector; i < (sector+1)*entriesPerSector; i++ {
		mine := old != nil && i >= old.from && i < old.to
		if free++; i < f.end && f.raw[i*entrySize] != deleted && !mine {
			free = 0
		}
		if free == n {
			return i + 1 - n
		}
	}
	return -1
}

// erase marks entries as free, in memory.
func (f *folder) erase(from, to int) {
	for i := from; i < to; i++ {
		f.raw[i*entrySize] = deleted
	}
}

// show writes entries at a place in one sector. Where that is behind the folder's end, all in between is marked as free,
// the sector that held the end last: that one makes the entries visible.
func (e *Editor) show(f *folder, at int, entries []byte) error {
	end := at + len(entries)/entrySize
	copy(f.raw[at*entrySize:], entries)
	sector := at / entriesPerSector
	if end <= f.end {
		return e.writeSectors(f, sector, sector)
	}
	clear(f.raw[end*entrySize:])
	f.erase(f.end, at)
	last := f.end / entriesPerSector
	if next := sector + 1; next < len(f.raw)/sectorSize { // what lies behind the end may be anything
		if err := e.writeSectors(f, next, next); err != nil {
			return err
		}
	}
	for s := sector; s >= last; s-- {
		if err := e.writeSectors(f, s, s); err != nil {
			return err
		}
	}
	f.end = end
	return nil
}

// unname takes an item's entries away, its own before those of its long name, which mean nothing without it.
func (e *Editor) unname(f *folder, item *Item) error {
	f.erase(item.to-1, item.to)
	if err := e.writeSectors(f, (item.to-1)/entriesPerSector, (item.to-1)/entriesPerSector); err != nil {
		return err
	}
	f.erase(item.from, item.to)
	return e.writeSectors(f, item.from/entriesPerSector, (item.to-1)/entriesPerSector)
}

// writeSectors brings sectors of a folder onto the medium.
func (e *Editor) writeSectors(f *folder, from, to int) error {
	for s := from; s <= to; s++ {
		off := int64(s) * sectorSize
		at := e.v.offset(f.clusters[off/e.v.clusterSize]) + off%e.v.clusterSize
		if _, err := e.dev.WriteAt(f.raw[off:][:sectorSize], at); err != nil {
			return err
		}
	}
	return e.dev.Sync()
}
