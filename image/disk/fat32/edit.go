package fat32

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"syscall"
	"time"
)

// Device is what a volume that is changed lies on. It writes sectors of 512 bytes whole or not at all; what is written
// between two calls of Sync may reach the medium in any order.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error // everything that was written is on the medium
}

// Editor changes a volume in place, and so that a cut of the power leaves it good: every change ends with the write of one
// sector that makes it visible, after all that it needs is on the medium. A file appears whole or not at all, and a rename
// within one sector has no state between the two names. What a cut leaves of clusters that no name leads to is free again
// when the volume is opened the next time. All calls are durable when they return. Nothing else may use the volume.
type Editor struct {
	v     *Volume
	dev   Device
	now   time.Time
	root  uint32
	stale map[int64]bool // sectors of the FAT that the medium lacks
}

// Edit opens the volume of size bytes on dev. New entries bear the time now. Of FATs that differ the first counts, as it
// does for firmware.
func Edit(dev Device, size int64, now time.Time) (*Editor, error) {
	e := &Editor{v: &Volume{r: dev}, dev: dev, now: now, stale: map[int64]bool{}}
	var err error
	if e.root, err = e.v.readBoot(size); err != nil {
		return nil, fmt.Errorf("cannot open FAT32 volume: %w", err)
	}
	second, err := e.v.readFATs()
	if err != nil {
		return nil, fmt.Errorf("cannot open FAT32 volume: %w", err)
	}
	for at := 0; at < len(second); at += sectorSize {
		if string(second[at:at+sectorSize]) != string(e.v.fat[at:at+sectorSize]) {
			e.stale[int64(at/sectorSize)] = true
		}
	}
	e.sweep()
	return e, nil
}

// Free is the number of bytes in clusters that nothing uses.
func (e *Editor) Free() int64 { return e.v.Free }

// List returns what is in the folder at path, "" being the root. A folder that is not there has nothing in it.
func (e *Editor) List(path string) ([]Item, error) {
	f, err := e.folder(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return f.items, nil
}

// Open returns the content of a file.
func (e *Editor) Open(path string) (*io.SectionReader, error) {
	_, item, err := e.find(path)
	if err != nil {
		return nil, err
	}
	chain, err := e.v.chain(item.Cluster)
	if err != nil || item.Folder || item.Size > int64(len(chain))*e.v.clusterSize {
		return nil, fmt.Errorf("cannot open %q: it is a folder or damaged", path)
	}
	return io.NewSectionReader(clusters{e.v, chain}, 0, item.Size), nil
}

// Create writes a file of size bytes with what content gives. It appears when all of it is on the medium.
func (e *Editor) Create(path string, size int64, content io.Reader) error {
	if err := e.create(path, size, content); err != nil {
		e.sweep()
		return fmt.Errorf("cannot write %q: %w", path, err)
	}
	return nil
}

func (e *Editor) create(path string, size int64, content io.Reader) error {
	f, name, err := e.vacant(path)
	if err != nil {
		return err
	}
	chain, err := e.allocate(size)
	if err != nil {
		return err
	}
	buf := make([]byte, e.v.clusterSize)
	for i, c := range chain {
		clear(buf)
		if _, err := io.ReadFull(content, buf[:min(e.v.clusterSize, size-int64(i)*e.v.clusterSize)]); err != nil {
			return err
		}
		if _, err := e.dev.WriteAt(buf, e.v.offset(c)); err != nil {
			return err
		}
	}
	if err := e.flush(); err != nil {
		return err
	}
	return e.name(f, nil, name, attrArchive, first(chain), uint32(size))
}

// Mkdir makes an empty folder.
func (e *Editor) Mkdir(path string) error {
	if err := e.mkdir(path); err != nil {
		e.sweep()
		return fmt.Errorf("cannot make folder %q: %w", path, err)
	}
	return nil
}

func (e *Editor) mkdir(path string) error {
	f, name, err := e.vacant(path)
	if err != nil {
		return err
	}
	chain, err := e.allocate(1)
	if err != nil {
		return err
	}
	up := f.clusters[0]
	if up == e.root {
		up = 0
	}
	b := make([]byte, e.v.clusterSize)
	copy(b, entry(padName("."), attrDirectory, chain[0], 0, e.now))
	copy(b[entrySize:], entry(padName(".."), attrDirectory, up, 0, e.now))
	if _, err := e.dev.WriteAt(b, e.v.offset(chain[0])); err != nil {
		return err
	}
	if err := e.flush(); err != nil {
		return err
	}
	return e.name(f, nil, name, attrDirectory, chain[0], 0)
}

// Rename gives the file at path another name in its folder, which nothing has yet. Where the entries of either name do not
// fit one sector, a cut can leave both names, with the same first cluster; nothing is ever lost.
func (e *Editor) Rename(from, name string) error {
	f, item, err := e.find(from)
	if err == nil {
		_, _, err = e.vacant(path.Join(path.Dir(from), name))
	}
	if err == nil {
		err = e.name(f, item, name, attrArchive, item.Cluster, uint32(item.Size))
	}
	if err != nil {
		return fmt.Errorf("cannot rename %q to %q: %w", from, name, err)
	}
	return nil
}

// Remove takes the name of a file or of an empty folder away, and frees the clusters that no other name leads to.
func (e *Editor) Remove(path string) error {
	f, item, err := e.find(path)
	if err != nil {
		return fmt.Errorf("cannot remove %q: %w", path, err)
	}
	if item.Folder {
		if inside, err := e.readFolder(item.Cluster); err != nil || len(inside.items) > 0 {
			return fmt.Errorf("cannot remove %q: it is a folder with files, or damaged", path)
		}
	}
	if err := e.unname(f, item); err != nil {
		return fmt.Errorf("cannot remove %q: %w", path, err)
	}
	e.sweep()
	return e.flush()
}

// WriteSector replaces the i-th sector of a file by b, in one write.
func (e *Editor) WriteSector(path string, i int64, b [sectorSize]byte) error {
	_, item, err := e.find(path)
	if err != nil {
		return err
	}
	chain, err := e.v.chain(item.Cluster)
	at := i * sectorSize
	if err != nil || at+sectorSize > item.Size || at/e.v.clusterSize >= int64(len(chain)) {
		return fmt.Errorf("cannot write %q: it has no sector %d", path, i)
	}
	_, err = e.dev.WriteAt(b[:], e.v.offset(chain[at/e.v.clusterSize])+at%e.v.clusterSize)
	if err := errors.Join(err, e.dev.Sync()); err != nil {
		return fmt.Errorf("cannot write %q: %w", path, err)
	}
	return nil
}

// find looks a path up.
func (e *Editor) find(name string) (*folder, *Item, error) {
	f, err := e.folder(path.Dir(name))
	if err != nil {
		return nil, nil, err
	}
	for i := range f.items {
		if strings.EqualFold(f.items[i].Name, path.Base(name)) {
			return f, &f.items[i], nil
		}
	}
	return nil, nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// vacant is the folder of a path that has no such name yet, and the name.
func (e *Editor) vacant(name string) (*folder, string, error) {
	base := path.Base(name)
	if err := checkName(base); err != nil {
		return nil, "", err
	}
	if _, _, err := e.find(name); err == nil {
		return nil, "", fs.ErrExist
	}
	f, err := e.folder(path.Dir(name))
	return f, base, err
}

// allocate takes clusters for size bytes, one behind the other where there is such room. The medium learns of it by flush.
func (e *Editor) allocate(size int64) ([]uint32, error) {
	n := int((size + e.v.clusterSize - 1) / e.v.clusterSize)
	if size > e.v.Free || size >= 1<<32 {
		return nil, fmt.Errorf("%d MiB are free, %d MiB are needed: %w", e.v.Free>>20, size>>20+1, syscall.ENOSPC)
	}
	var run, any []uint32
	for c := uint32(rootCluster); int64(c) < e.v.clusters+rootCluster && len(run) < n; c++ {
		if e.v.link(c) != 0 {
			run = run[:0]
			continue
		}
		run = append(run, c)
		if len(any) < n {
			any = append(any, c)
		}
	}
	if len(run) < n {
		run = any
	}
	if len(run) < n {
		return nil, syscall.ENOSPC
	}
	e.v.Free -= int64(n) * e.v.clusterSize
	for i, c := range run {
		next := uint32(endOfChain)
		if i+1 < n {
			next = run[i+1]
		}
		e.setLink(c, next)
	}
	return run, nil
}

// setLink changes the FAT in memory.
func (e *Editor) setLink(cluster, next uint32) {
	at := int64(cluster) * 4
	reserved := binary.LittleEndian.Uint32(e.v.fat[at:]) & 0xf0000000
	binary.LittleEndian.PutUint32(e.v.fat[at:], reserved|next)
	e.stale[at/sectorSize] = true
}

// flush brings what was written and the FATs onto the medium.
func (e *Editor) flush() error {
	for sector := range e.stale {
		b := e.v.fat[sector*sectorSize:][:sectorSize]
		for _, fat := range e.v.fats {
			if _, err := e.dev.WriteAt(b, fat+sector*sectorSize); err != nil {
				return err
			}
		}
	}
	info := infoBlock(geometry{clusters: e.v.Free / e.v.clusterSize}, rootCluster)
	if _, err := e.dev.WriteAt(info, e.v.info); err != nil {
		return err
	}
	if err := e.dev.Sync(); err != nil {
		return err
	}
	clear(e.stale)
	return nil
}

// sweep frees the clusters that no name leads to, in memory; the medium learns of it by the next flush. It frees none where
// a folder cannot be read, for then a file in it would be lost.
func (e *Editor) sweep() {
	used := make([]bool, e.v.clusters+rootCluster)
	sound := e.mark(e.root, used, 0)
	e.v.Free = 0
	for c := uint32(rootCluster); int64(c) < e.v.clusters+rootCluster; c++ {
		if link := e.v.link(c); sound && link != 0 && link != badCluster && !used[c] {
			e.setLink(c, 0)
		}
		if e.v.link(c) == 0 {
			e.v.Free += e.v.clusterSize
		}
	}
}

// mark notes the clusters of the folder that begins at a cluster and of all in it, and tells whether every folder could be
// read.
func (e *Editor) mark(cluster uint32, used []bool, depth int) bool {
	f, err := e.readFolder(cluster)
	if err != nil || depth > maxDepth {
		return false
	}
	for _, c := range f.clusters {
		if used[c] {
			return false // a loop, or two folders on one chain
		}
		used[c] = true
	}
	sound := true
	for _, item := range f.items {
		if item.Folder {
			sound = e.mark(item.Cluster, used, depth+1) && sound
			continue
		}
		chain, _ := e.v.chain(item.Cluster) // of a damaged file, what there is
		for _, c := range chain {
			used[c] = true
		}
	}
	return sound
}

func first(chain []uint32) uint32 {
	if len(chain) == 0 {
		return 0
	}
	return chain[0]
}
