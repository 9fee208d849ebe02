// Package verity makes, reads and checks dm-verity hash devices: a superblock and a tree of SHA-256 hashes over 4 KiB
// blocks, byte for byte as veritysetup format writes them with a salt of 32 zero bytes. It imports the standard library
// only, because the first stage of init links it.
//
// The format is that of the kernel's Documentation/admin-guide/device-mapper/verity.rst and of cryptsetup's
// docs/on-disk-format-verity (superblock version 1, hash type 1).
package verity

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
)

// BlockSize is the size in bytes of data blocks and of hash blocks.
const BlockSize = 4096

const (
	digestsPerBlock = BlockSize / sha256.Size
	saltSize        = 32
	// maxDataBlocks bounds what is read from a superblock, so that a forged one cannot make a reader allocate without
	// end: 1 TiB of data.
	maxDataBlocks = 1 << 28
)

// RootHash is the hash of the top block of a tree; it vouches for every byte below.
type RootHash [sha256.Size]byte

// MarshalText implements encoding.TextMarshaler with String.
func (r RootHash) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler with ParseRootHash.
func (r *RootHash) UnmarshalText(b []byte) (err error) {
	*r, err = ParseRootHash(string(b))
	return err
}

// ParseRootHash reads the 64 hexadecimal digits that RootHash.String writes.
func ParseRootHash(s string) (RootHash, error) {
	var r RootHash
	if len(s) != 2*len(r) || strings.ToLower(s) != s {
		return r, fmt.Errorf("cannot use root hash %q: want %d lower-case hexadecimal digits", s, 2*len(r))
	}
	if _, err := hex.Decode(r[:], []byte(s)); err != nil {
		return r, fmt.Errorf("cannot use root hash %q: %w", s, err)
	}
	return r, nil
}

// String is the hash in lower-case hexadecimal digits, as the kernel command line carries it.
func (r RootHash) String() string { return hex.EncodeToString(r[:]) }

// DataUUID is the first half of the hash: the GUID of the data partition (Discoverable Partitions Specification).
func (r RootHash) DataUUID() UUID { return UUID(r[:16]) }

// HashUUID is the second half of the hash: the GUID of the hash partition (Discoverable Partitions Specification), and
// the UUID in our superblocks.
func (r RootHash) HashUUID() UUID { return UUID(r[16:]) }

// UUID is a universally unique identifier, most significant byte first.
type UUID [16]byte

// String is the form of RFC 9562, section 4.
func (u UUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// level is one level of a tree: blocks hash blocks that begin at block first of the hash device.
type level struct{ first, blocks int64 }

// levels lists the levels of a tree over dataBlocks blocks from the lowest, whose hashes are of data, to the top, which
// is one block. On the hash device the top comes first, behind the superblock's block.
func levels(dataBlocks int64) []level {
	var ls []level
	for n := dataBlocks; len(ls) == 0 || n > 1; {
		n = (n + digestsPerBlock - 1) / digestsPerBlock
		ls = append(ls, level{blocks: n})
	}
	next := int64(1)
	for i := len(ls) - 1; i >= 0; i-- {
		ls[i].first = next
		next += ls[i].blocks
	}
	return ls
}

// HashSize is the size in bytes of the hash device for dataSize bytes of data: superblock and tree.
func HashSize(dataSize int64) int64 {
	n := int64(1)
	for _, l := range levels((dataSize + BlockSize - 1) / BlockSize) {
		n += l.blocks
	}
	return n * BlockSize
}

// Format reads size bytes of data, writes the hash device to w and returns its root hash. Size is a multiple of
// BlockSize and at least two blocks: for a single block veritysetup and the kernel make a tree without levels.
func Format(data io.ReaderAt, size int64, w io.Writer) (RootHash, error) {
	if size%BlockSize != 0 || size < 2*BlockSize || size/BlockSize > maxDataBlocks {
		return RootHash{}, fmt.Errorf("cannot make a verity tree over %d bytes: want 2 to %d blocks of %d bytes",
			size, int64(maxDataBlocks), BlockSize)
	}
	tree, root, err := hashTree(data, size/BlockSize)
	if err != nil {
		return RootHash{}, err
	}
	sb := Superblock{UUID: root.HashUUID(), DataBlocks: size / BlockSize, Salt: make([]byte, saltSize)}
	if _, err := w.Write(sb.marshal()); err != nil {
		return RootHash{}, fmt.Errorf("cannot write verity superblock: %w", err)
	}
	for i := len(tree) - 1; i >= 0; i-- {
		if _, err := w.Write(tree[i]); err != nil {
			return RootHash{}, fmt.Errorf("cannot write verity tree: %w", err)
		}
	}
	return root, nil
}

// hashTree computes the levels of the tree, lowest first, with a salt of zeros. They take 1/127 of the data's size.
func hashTree(data io.ReaderAt, blocks int64) ([][]byte, RootHash, error) {
	salt := make([]byte, saltSize)
	low, err := hashBlocks(data, blocks, salt)
	if err != nil {
		return nil, RootHash{}, err
	}
	tree := [][]byte{padBlock(low)}
	for top := tree[0]; len(top) > BlockSize; top = tree[len(tree)-1] {
		next := make([]byte, 0, len(top)/digestsPerBlock+BlockSize)
		for ; len(top) > 0; top = top[BlockSize:] {
			sum := hashBlock(salt, top[:BlockSize])
			next = append(next, sum[:]...)
		}
		tree = append(tree, padBlock(next))
	}
	return tree, hashBlock(salt, tree[len(tree)-1]), nil
}

// hashBlocks returns the hashes of the blocks of data end to end, computed on all processors.
func hashBlocks(data io.ReaderAt, blocks int64, salt []byte) ([]byte, error) {
	const chunk = 256 // blocks of one read
	sums := make([]byte, blocks*sha256.Size)
	workers := int64(runtime.GOMAXPROCS(0))
	errs := make([]error, workers)
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			buf := make([]byte, chunk*BlockSize)
			for at := w * chunk; at < blocks && errs[w] == nil; at += workers * chunk {
				n := min(chunk, blocks-at)
				errs[w] = readFull(data, buf[:n*BlockSize], at*BlockSize)
				for i := int64(0); i < n && errs[w] == nil; i++ {
					sum := hashBlock(salt, buf[i*BlockSize:(i+1)*BlockSize])
					copy(sums[(at+i)*sha256.Size:], sum[:])
				}
			}
		})
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return sums, nil
}

// hashBlock is the hash of one block; hash type 1 puts the salt first.
func hashBlock(salt, block []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write(salt)
	h.Write(block)
	return [sha256.Size]byte(h.Sum(nil))
}

// padBlock appends zeros up to the next multiple of BlockSize.
func padBlock(b []byte) []byte {
	return append(b, make([]byte, -len(b)&(BlockSize-1))...)
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
