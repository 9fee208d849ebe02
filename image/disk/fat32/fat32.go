// Package fat32 writes FAT32 file systems from scratch, the same bytes for the same files, and reads them back. What it
// writes is what an EFI system partition needs: every file contiguous, names up to 255 characters, one time for all.
//
// Source: Microsoft, "FAT: General Overview of On-Disk Format", version 1.03. Why the project has its own writer:
// docs/decisions/0005-own-fat32.md.
package fat32

import (
	"encoding/binary"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
)

const (
	sectorSize        = 512
	sectorsPerCluster = 16
	// ClusterSize is the size in bytes of clusters that Write makes. GRUB reads large clusters much faster than small ones.
	ClusterSize = sectorsPerCluster * sectorSize

	minReserved   = 32 // sectors before the first FAT
	infoSector    = 1
	backupSector  = 6
	rootCluster   = 2
	minClusters   = 65525 // with fewer, the specification says that a volume is FAT16
	maxClusters   = 1<<28 - 16
	endOfChain    = 0x0fffffff
	entrySize     = 32
	attrDirectory = 0x10
	attrLabel     = 0x08
	attrArchive   = 0x20
	attrLongName  = 0x0f
)

// MinSize is the size in bytes of the smallest volume that Write makes, 513 MiB rounded up.
const MinSize = 513 << 20

// File is a file to write. Folders on its path are made.
type File struct {
	Path string // with slashes, without one at the start
	Data []byte
}

// Options are the properties of a volume that would else be left to chance.
type Options struct {
	Label  string // at most 11 upper-case characters
	Serial uint32
	Time   time.Time // of every file; FAT knows UTC from 1980 in steps of two seconds
}

// geometry is where the parts of a volume lie, in sectors.
type geometry struct {
	sectors, reserved, fat, data int64
	clusters                     int64
}

func newGeometry(size int64) (geometry, error) {
	g := geometry{sectors: size / sectorSize}
	// One entry of 4 bytes per cluster, and two more; a few clusters fewer than that fit beside the FATs.
	g.fat = (((g.sectors-minReserved)/sectorsPerCluster+2)*4 + sectorSize - 1) / sectorSize
	g.reserved = minReserved
	for (g.reserved+2*g.fat)%sectorsPerCluster != 0 {
		g.reserved++
	}
	g.data = g.reserved + 2*g.fat
	g.clusters = (g.sectors - g.data) / sectorsPerCluster
	if g.clusters < minClusters || g.clusters > maxClusters {
		return g, fmt.Errorf("cannot make a FAT32 volume of %d bytes: it has %d clusters, want %d to %d",
			size, g.clusters, minClusters, maxClusters)
	}
	return g, nil
}

// offset is where a cluster begins, in bytes.
func (g geometry) offset(cluster uint32) int64 {
	return (g.data + int64(cluster-rootCluster)*sectorsPerCluster) * sectorSize
}

// node is a file or folder to be written.
type node struct {
	name     string
	parent   *node
	children []*node // of a folder, sorted by name
	folder   bool
	data     []byte // a folder's entries, when they are known
	cluster  uint32 // first one, 0: none
	clusters uint32
}

// Write makes a volume of size bytes in w, which holds zeros, with the files.
func Write(w io.WriterAt, size int64, files []File, o Options) error {
	g, err := newGeometry(size)
	if err != nil {
		return err
	}
	root, err := newTree(files)
	if err != nil {
		return err
	}
	next := uint32(rootCluster)
	if err := allocate(root, &next, g, o); err != nil {
		return err
	}
	fat := make([]byte, g.fat*sectorSize)
	binary.LittleEndian.PutUint32(fat, 0x0ffffff8) // medium: fixed disk
	binary.LittleEndian.PutUint32(fat[4:], endOfChain)
	if err := root.write(w, g, fat, o); err != nil {
		return err
	}
	boot, info := bootSector(g, o), infoBlock(g, next)
	for _, part := range []struct {
		sector int64
		data   []byte
	}{
		{0, boot}, {infoSector, info}, {backupSector, boot}, {backupSector + infoSector, info},
		{g.reserved, fat}, {g.reserved + g.fat, fat},
	} {
		if _, err := w.WriteAt(part.data, part.sector*sectorSize); err != nil {
			return fmt.Errorf("cannot write FAT32 volume: %w", err)
		}
	}
	return nil
}

// newTree sorts the files into folders.
func newTree(files []File) (*node, error) {
	root := &node{folder: true}
	for _, f := range files {
		if f.Path == "" || f.Path != path.Clean(f.Path) || strings.HasPrefix(f.Path, "/") || strings.HasPrefix(f.Path, "..") {
			return nil, fmt.Errorf("cannot write file %q: not a clean relative path", f.Path)
		}
		dir := root
		elements := strings.Split(f.Path, "/")
		for i, name := range elements {
			last := i == len(elements)-1
			at := slices.IndexFunc(dir.children, func(n *node) bool { return strings.EqualFold(n.name, name) })
			if at < 0 {
				if err := checkName(name); err != nil {
					return nil, fmt.Errorf("cannot write file %q: %w", f.Path, err)
				}
				dir.children = append(dir.children, &node{name: name, parent: dir, folder: !last})
				at = len(dir.children) - 1
			} else if n := dir.children[at]; last || !n.folder || n.name != name {
				return nil, fmt.Errorf("cannot write file %q: %q is there already", f.Path, n.name)
			}
			dir = dir.children[at]
		}
		dir.data = f.Data
	}
	sortTree(root)
	return root, nil
}

func sortTree(n *node) {
	slices.SortFunc(n.children, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	for _, c := range n.children {
		sortTree(c)
	}
}

// allocate gives clusters to n and all below it, one after the other from next.
func allocate(n *node, next *uint32, g geometry, o Options) error {
	size := int64(len(n.data))
	if n.folder {
		size = int64(len(n.entries(o))) // with clusters still unknown: only the length counts
	}
	if size >= 1<<32 {
		return fmt.Errorf("cannot write file %q: %d bytes do not fit FAT", n.name, size)
	}
	n.clusters = uint32((size + ClusterSize - 1) / ClusterSize)
	if int64(*next-rootCluster)+int64(n.clusters) > g.clusters {
		return fmt.Errorf("cannot write file %q: the volume of %d MiB is full", n.name, g.sectors*sectorSize>>20)
	}
	if n.clusters > 0 {
		n.cluster = *next
		*next += n.clusters
	}
	for _, c := range n.children {
		if err := allocate(c, next, g, o); err != nil {
			return err
		}
	}
	return nil
}

// write writes n and all below it, and notes their chains in fat.
func (n *node) write(w io.WriterAt, g geometry, fat []byte, o Options) error {
	data := n.data
	if n.folder {
		data = n.entries(o)
	}
	for i := range n.clusters {
		link := n.cluster + i + 1
		if i == n.clusters-1 {
			link = endOfChain
		}
		binary.LittleEndian.PutUint32(fat[(n.cluster+i)*4:], link)
	}
	if len(data) > 0 {
		if _, err := w.WriteAt(data, g.offset(n.cluster)); err != nil {
			return fmt.Errorf("cannot write file %q: %w", n.name, err)
		}
	}
	for _, c := range n.children {
		if err := c.write(w, g, fat, o); err != nil {
			return err
		}
	}
	return nil
}

// entries is the content of folder n: the volume's label or the links to itself and its parent, and its children.
func (n *node) entries(o Options) []byte {
	var b []byte
	if n.parent == nil {
		b = append(b, entry(padName(o.Label), attrLabel, 0, 0, o.Time)...)
	} else {
		up := n.parent.cluster
		if n.parent.parent == nil {
			up = 0 // the root is always written as cluster 0 here
		}
		b = append(b, entry(padName("."), attrDirectory, n.cluster, 0, o.Time)...)
		b = append(b, entry(padName(".."), attrDirectory, up, 0, o.Time)...)
	}
	taken := map[[11]byte]bool{}
	for _, c := range n.children {
		short, exact := shortName(c.name, taken)
		taken[short] = true
		if !exact {
			b = append(b, longNameEntries(c.name, short)...)
		}
		attr, size := byte(attrArchive), uint32(len(c.data))
		if c.folder {
			attr, size = attrDirectory, 0
		}
		b = append(b, entry(short, attr, c.cluster, size, o.Time)...)
	}
	return b
}

// entry is one directory entry (FAT specification, "FAT Directory Structure").
func entry(name [11]byte, attr byte, cluster, size uint32, t time.Time) []byte {
	t = t.UTC()
	if t.Year() < 1980 {
		t = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	date := uint16(t.Year()-1980)<<9 | uint16(t.Month())<<5 | uint16(t.Day())
	clock := uint16(t.Hour())<<11 | uint16(t.Minute())<<5 | uint16(t.Second()/2)
	b := make([]byte, entrySize)
	copy(b, name[:])
	b[11] = attr
	binary.LittleEndian.PutUint16(b[14:], clock) // made
	binary.LittleEndian.PutUint16(b[16:], date)
	binary.LittleEndian.PutUint16(b[18:], date) // accessed
	binary.LittleEndian.PutUint16(b[20:], uint16(cluster>>16))
	binary.LittleEndian.PutUint16(b[22:], clock) // written
	binary.LittleEndian.PutUint16(b[24:], date)
	binary.LittleEndian.PutUint16(b[26:], uint16(cluster))
	binary.LittleEndian.PutUint32(b[28:], size)
	return b
}

// bootSector is the BIOS parameter block (FAT specification, "Boot Sector and BPB Structure").
func bootSector(g geometry, o Options) []byte {
	b := make([]byte, sectorSize)
	copy(b, "\xeb\x58\x90ALLOTMNT")
	binary.LittleEndian.PutUint16(b[11:], sectorSize)
	b[13] = sectorsPerCluster
	binary.LittleEndian.PutUint16(b[14:], uint16(g.reserved))
	b[16] = 2                                 // FATs
	b[21] = 0xf8                              // medium: fixed disk
	binary.LittleEndian.PutUint16(b[24:], 32) // sectors per track and heads: of no meaning for logical addresses
	binary.LittleEndian.PutUint16(b[26:], 64)
	binary.LittleEndian.PutUint32(b[32:], uint32(g.sectors))
	binary.LittleEndian.PutUint32(b[36:], uint32(g.fat))
	binary.LittleEndian.PutUint32(b[44:], rootCluster)
	binary.LittleEndian.PutUint16(b[48:], infoSector)
	binary.LittleEndian.PutUint16(b[50:], backupSector)
	b[64] = 0x80 // drive number
	b[66] = 0x29 // the next three fields are there
	binary.LittleEndian.PutUint32(b[67:], o.Serial)
	label := padName(o.Label)
	copy(b[71:], label[:])
	copy(b[82:], "FAT32   ")
	b[510], b[511] = 0x55, 0xaa
	return b
}

// infoBlock is the FSInfo sector: how many clusters are free, and where the search for one may begin.
func infoBlock(g geometry, next uint32) []byte {
	b := make([]byte, sectorSize)
	copy(b, "RRaA")
	copy(b[484:], "rrAa")
	binary.LittleEndian.PutUint32(b[488:], uint32(g.clusters)-(next-rootCluster))
	binary.LittleEndian.PutUint32(b[492:], next)
	b[510], b[511] = 0x55, 0xaa
	return b
}
