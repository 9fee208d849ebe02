package verity

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// Verify checks a hash device and the data that it covers against a root hash, whole. The error names what is corrupt:
// the superblock, a block of the tree, or the first block of data that does not fit.
func Verify(data, hash io.ReaderAt, root RootHash) error {
	sb, err := ReadSuperblock(hash)
	if err != nil {
		return err
	}
	if sb.UUID != root.HashUUID() {
		return fmt.Errorf("verity superblock has UUID %s, but root hash %s asks for %s", sb.UUID, root, root.HashUUID())
	}
	low, err := verifyTree(hash, sb, root)
	if err != nil {
		return err
	}
	sums, err := hashBlocks(data, sb.DataBlocks, sb.Salt)
	if err != nil {
		return fmt.Errorf("cannot read verity data: %w", err)
	}
	for i := range sb.DataBlocks {
		if at := i * sha256.Size; [sha256.Size]byte(sums[at:]) != [sha256.Size]byte(low[at:]) {
			return fmt.Errorf("data block %d (bytes from %d) does not fit its hash", i, i*BlockSize)
		}
	}
	// The root hash does not cover the number of blocks, but the tree shows it.
	if !allZero(low[sb.DataBlocks*sha256.Size:]) {
		return fmt.Errorf("verity superblock has %d data blocks, but the tree has hashes of more", sb.DataBlocks)
	}
	return nil
}

// verifyTree checks the tree from the top down and returns its lowest level.
func verifyTree(hash io.ReaderAt, sb Superblock, root RootHash) ([]byte, error) {
	above := root[:]
	ls := levels(sb.DataBlocks)
	for i := len(ls) - 1; i >= 0; i-- {
		this, err := readBlocks(hash, ls[i])
		if err != nil {
			return nil, fmt.Errorf("cannot read verity tree: %w", err)
		}
		for b := range ls[i].blocks {
			sum := hashBlock(sb.Salt, this[b*BlockSize:(b+1)*BlockSize])
			if sum == [sha256.Size]byte(above[b*sha256.Size:]) {
				continue
			}
			if i == len(ls)-1 {
				return nil, fmt.Errorf("top block of the verity tree has hash %x, but root hash is %s", sum, root)
			}
			return nil, fmt.Errorf("verity tree is corrupt: block %d of the hash device does not fit its hash", ls[i].first+b)
		}
		above = this
	}
	return above, nil
}

// readBlocks reads a level piece by piece, so that a forged superblock costs no more memory than the device has bytes.
func readBlocks(r io.ReaderAt, l level) ([]byte, error) {
	b, err := io.ReadAll(io.NewSectionReader(r, l.first*BlockSize, l.blocks*BlockSize))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) != l.blocks*BlockSize {
		return nil, errors.New("hash device ends inside the tree")
	}
	return b, nil
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
