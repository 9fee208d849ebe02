package fat32

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// Limits of what the reader takes, so that no volume costs more time or memory than its size can explain.
const (
	maxFATSize = 64 << 20
	maxEntries = 10000 // files, and folders, and entries of one folder
	maxDepth   = 16
)

// Entry is a file of a volume.
type Entry struct {
	Path string
	Size int64

	cluster uint32
}

// Volume is a FAT32 volume that is read.
type Volume struct {
	Label string
	Free  int64 // bytes in free clusters
	Files []Entry

	r           io.ReaderAt
	fat         []byte
	fats        [2]int64 // offsets in bytes of the two FATs
	info        int64    // offset in bytes of the FSInfo sector
	data        int64    // offset in bytes of cluster 2
	clusterSize int64
	clusters    int64
	folders     int // read so far
}

// Read reads the structure of the volume of size bytes in r: both FATs, which must be equal, and all folders.
func Read(r io.ReaderAt, size int64) (*Volume, error) {
	v := &Volume{r: r}
	root, err := v.readBoot(size)
	if err != nil {
		return nil, fmt.Errorf("cannot read FAT32 volume: %w", err)
	}
	second, err := v.readFATs()
	if err == nil && !bytes.Equal(v.fat, second) {
		err = errors.New("the two FATs differ")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read FAT32 volume: %w", err)
	}
	for c := int64(rootCluster); c < v.clusters+rootCluster; c++ {
		if v.link(uint32(c)) == 0 {
			v.Free += v.clusterSize
		}
	}
	if err := v.readFolder("", root, 0); err != nil {
		return nil, fmt.Errorf("cannot read FAT32 volume: %w", err)
	}
	return v, nil
}

// readBoot reads the boot sector and returns the first cluster of the root folder.
func (v *Volume) readBoot(size int64) (uint32, error) {
	b := make([]byte, sectorSize)
	if err := readFull(v.r, b, 0); err != nil {
		return 0, err
	}
	word := func(off int) int64 { return int64(binary.LittleEndian.Uint16(b[off:])) }
	long := func(off int) int64 { return int64(binary.LittleEndian.Uint32(b[off:])) }
	if string(b[510:]) != "\x55\xaa" || string(b[82:90]) != "FAT32   " {
		return 0, errors.New("no FAT32 boot sector")
	}
	reserved, fatSize, sectors, perCluster := word(14)*sectorSize, long(36)*sectorSize, long(32), int64(b[13])
	v.clusterSize = perCluster * sectorSize
	v.data = reserved + 2*fatSize
	if word(11) != sectorSize || b[16] != 2 || perCluster == 0 || perCluster&(perCluster-1) != 0 || reserved == 0 {
		return 0, errors.New("boot sector: unusual sector size, cluster size or number of FATs")
	}
	if sectors*sectorSize > size || v.data > sectors*sectorSize || fatSize > maxFATSize {
		return 0, fmt.Errorf("boot sector: %d sectors and a FAT of %d bytes do not fit %d bytes", sectors, fatSize, size)
	}
	v.clusters = (sectors*sectorSize - v.data) / v.clusterSize
	if (v.clusters+rootCluster)*4 > fatSize || v.clusters < minClusters {
		return 0, fmt.Errorf("boot sector: %d clusters and a FAT of %d bytes make no FAT32", v.clusters, fatSize)
	}
	v.fats, v.info = [2]int64{reserved, reserved + fatSize}, word(48)*sectorSize
	return uint32(long(44)), nil
}

// readFATs keeps the first FAT and returns the second.
func (v *Volume) readFATs() ([]byte, error) {
	size := v.fats[1] - v.fats[0]
	v.fat = make([]byte, size)
	second := make([]byte, size)
	return second, errors.Join(readFull(v.r, v.fat, v.fats[0]), readFull(v.r, second, v.fats[1]))
}

// link is the FAT's entry for a cluster, without its reserved bits.
func (v *Volume) link(cluster uint32) uint32 {
	return binary.LittleEndian.Uint32(v.fat[int64(cluster)*4:]) & 0x0fffffff
}

// readChain reads the clusters from the given one to the chain's end, at most limit bytes.
func (v *Volume) readChain(cluster uint32, limit int64) ([]byte, error) {
	var out []byte
	for int64(len(out)) < limit {
		if cluster < rootCluster || int64(cluster) >= v.clusters+rootCluster {
			return nil, fmt.Errorf("chain leads to cluster %d of %d", cluster, v.clusters)
		}
		part := make([]byte, min(v.clusterSize, limit-int64(len(out))))
		if err := readFull(v.r, part, v.data+int64(cluster-rootCluster)*v.clusterSize); err != nil {
			return nil, err
		}
		out = append(out, part...)
		if cluster = v.link(cluster); cluster >= 0x0ffffff8 {
			return out, nil
		}
	}
	return out, nil
}

// readFolder adds the files of a folder and of those in it.
func (v *Volume) readFolder(path string, cluster uint32, depth int) error {
	if v.folders++; depth > maxDepth || v.folders > maxEntries/10 {
		return fmt.Errorf("folder %q: more than %d levels or %d folders", path, maxDepth, maxEntries/10)
	}
	b, err := v.readChain(cluster, maxEntries*entrySize)
	if err != nil {
		return fmt.Errorf("folder %q: %w", path, err)
	}
	var long longName
	for ; len(b) >= entrySize && b[0] != 0; b = b[entrySize:] {
		if err := v.readEntry(path, b[:entrySize], &long, depth); err != nil {
			return err
		}
	}
	return nil
}

// readEntry takes one entry of the folder path.
func (v *Volume) readEntry(path string, e []byte, long *longName, depth int) error {
	short, attr := [11]byte(e), e[11]
	switch {
	case e[0] == 0xe5: // deleted
		*long = longName{}
		return nil
	case attr&0x3f == attrLongName:
		if err := long.add(e); err != nil {
			return fmt.Errorf("folder %q: %w", path, err)
		}
		return nil
	case attr&attrLabel != 0:
		v.Label = strings.TrimRight(string(short[:]), " ")
		return nil
	case short == padName(".") || short == padName(".."):
		return nil
	}
	name, err := long.take(short)
	if err != nil {
		return fmt.Errorf("folder %q: %w", path, err)
	}
	full := strings.TrimPrefix(path+"/"+name, "/")
	cluster := firstCluster(e)
	if attr&attrDirectory != 0 {
		return v.readFolder(full, cluster, depth+1)
	}
	if len(v.Files) >= maxEntries {
		return fmt.Errorf("more than %d files", maxEntries)
	}
	v.Files = append(v.Files, Entry{Path: full, Size: int64(binary.LittleEndian.Uint32(e[28:])), cluster: cluster})
	return nil
}

// firstCluster is where an entry's content begins.
func firstCluster(e []byte) uint32 {
	return uint32(binary.LittleEndian.Uint16(e[20:]))<<16 | uint32(binary.LittleEndian.Uint16(e[26:]))
}

// ReadFile returns the content of a file; upper and lower case are the same, as FAT has it.
func (v *Volume) ReadFile(path string) ([]byte, error) {
	for _, e := range v.Files {
		if !strings.EqualFold(e.Path, path) {
			continue
		}
		if e.Size > v.clusters*v.clusterSize {
			return nil, fmt.Errorf("cannot read %q: it says that it is larger than the volume", path)
		}
		b, err := v.readChain(e.cluster, e.Size)
		if err != nil {
			return nil, fmt.Errorf("cannot read %q: %w", path, err)
		}
		if int64(len(b)) != e.Size {
			return nil, fmt.Errorf("cannot read %q: its chain ends after %d of %d bytes", path, len(b), e.Size)
		}
		return b, nil
	}
	return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
}

// readFull fills b from r at off; data that ends early is an error.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("cannot read %d bytes at %d: %w", len(b), off, err)
}
