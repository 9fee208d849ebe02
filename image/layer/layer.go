// Package layer names and checks the files of the module store. A layer is an EROFS image that is called by its fs-verity
// digest, so that the kernel itself can prove every block of it.
package layer

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"allotment/image"
)

// blockSize is that of fs-verity's Merkle tree, in bytes.
const blockSize = 4096

// FileName is the name of the layer with fs-verity digest d in a store.
func FileName(d image.Digest) string { return d.Hex() + ".erofs" }

// Digest reads r to its end and returns its fs-verity digest (SHA-256, 4 KiB blocks, no salt) and its size in bytes. It
// is what FS_IOC_MEASURE_VERITY tells of a file with these bytes; see fs-verity in the kernel's documentation.
func Digest(r io.Reader) (image.Digest, int64, error) {
	var t tree
	block := make([]byte, blockSize)
	var size int64
	for {
		n, err := io.ReadFull(r, block)
		if n > 0 {
			clear(block[n:])
			size += int64(n)
			t.add(0, sha256.Sum256(block))
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return descriptor(size, t.root()), size, nil
		}
		if err != nil {
			return "", size, err
		}
	}
}

// tree is a Merkle tree under way: of every level only the block that is not full yet, so memory does not grow with the
// file.
type tree struct {
	levels [][]byte // hashes of each level, lowest first, at most a block each
}

// add appends a hash to a level; a full block goes up as one hash.
func (t *tree) add(level int, sum [sha256.Size]byte) {
	if level == len(t.levels) {
		t.levels = append(t.levels, make([]byte, 0, blockSize))
	}
	if len(t.levels[level]) == blockSize {
		t.carry(level)
	}
	t.levels[level] = append(t.levels[level], sum[:]...)
}

// carry hashes what a level has, padded with zeros to a block, into the level above.
func (t *tree) carry(level int) {
	block := t.levels[level]
	t.levels[level] = block[:0]
	t.add(level+1, sha256.Sum256(block[:blockSize]))
}

// root is the hash at the top: that of the single data block, or of the single block of the highest level. It is all
// zeros for an empty file.
func (t *tree) root() [sha256.Size]byte {
	for level := 0; level < len(t.levels); level++ {
		block := t.levels[level]
		top := level == len(t.levels)-1
		if top && len(block) == sha256.Size {
			return [sha256.Size]byte(block)
		}
		clear(block[len(block):cap(block)])
		t.carry(level)
	}
	return [sha256.Size]byte{}
}

// descriptor hashes struct fsverity_descriptor, version 1, which binds the root hash to the size and the parameters.
func descriptor(size int64, root [sha256.Size]byte) image.Digest {
	d := make([]byte, 256)
	d[0] = 1  // version
	d[1] = 1  // hash algorithm: SHA-256
	d[2] = 12 // log2 of the block size
	binary.LittleEndian.PutUint64(d[8:], uint64(size))
	copy(d[16:80], root[:])
	return image.NewDigest(sha256.Sum256(d))
}

// Verify reads the layer at path and checks that it has the digest and size that l names.
func Verify(path string, l image.Layer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	d, size, err := Digest(f)
	if err != nil {
		return fmt.Errorf("cannot read layer %q: %w", l.Name, err)
	}
	if size != l.Size {
		return fmt.Errorf("cannot use layer %q: it has %d bytes, want %d", l.Name, size, l.Size)
	}
	if d != l.Digest {
		return fmt.Errorf("cannot use layer %q: its fs-verity digest is %s, want %s", l.Name, d, l.Digest)
	}
	return nil
}
