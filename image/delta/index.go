package delta

import (
	"encoding/binary"
	"fmt"
	"io"

	"allotment/image"
)

const (
	indexMagic   = "allotidx"
	indexVersion = 1

	maxExtent  = 1 << 20 // bytes of one extent of a pack: two of them are in memory, packed and not
	maxExtents = 1 << 20
)

// Hash is the SHA-256 of an extent's bytes.
type Hash [32]byte

// Index lists the extents of a part in the order of its bytes. It is a blob of its own, since the digest of the pack cannot
// vouch for ranges of it: the release names the index by digest, the index every extent, and the release the whole part.
type Index struct {
	Digest  image.Digest // SHA-256 of the part
	Size    int64        // of the part, bytes
	Extents []Packed
}

// Packed is an extent of a pack: one zstd frame.
type Packed struct {
	Hash   Hash  // of the bytes unpacked
	Size   int64 // bytes, unpacked
	Packed int64 // bytes, packed; in the pack they follow those of the extent before
}

// PackSize is how long the pack is, in bytes.
func (x Index) PackSize() int64 {
	var n int64
	for _, e := range x.Extents {
		n += e.Packed
	}
	return n
}

// Write writes the index in its one form.
func (x Index) Write(w io.Writer) error {
	b := append([]byte(indexMagic), 0, 0, 0, 0)
	binary.LittleEndian.PutUint32(b[len(indexMagic):], indexVersion)
	b = append(b, x.Digest.Bytes()...)
	b = binary.LittleEndian.AppendUint64(b, uint64(x.Size))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(x.Extents)))
	for _, e := range x.Extents {
		b = binary.LittleEndian.AppendUint32(b, uint32(e.Size))
		b = binary.LittleEndian.AppendUint32(b, uint32(e.Packed))
		b = append(b, e.Hash[:]...)
	}
	_, err := w.Write(b)
	return err
}

// ReadIndex reads an index to its end. Whether it is the one that the release names is for the caller to have checked.
func ReadIndex(r io.Reader) (Index, error) {
	var x Index
	var fixed [len(indexMagic) + 4 + 32 + 8 + 4]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return x, malformed("no index: %v", err)
	}
	b := fixed[len(indexMagic):]
	if v := binary.LittleEndian.Uint32(b); string(fixed[:len(indexMagic)]) != indexMagic || v != indexVersion {
		return x, malformed("no index of version %d", indexVersion)
	}
	x.Digest = image.NewDigest([32]byte(b[4:36]))
	x.Size = int64(binary.LittleEndian.Uint64(b[36:]))
	n := binary.LittleEndian.Uint32(b[44:])
	if n > maxExtents {
		return x, malformed("index of %d extents", n)
	}
	var sum int64
	var entry [40]byte
	for range n {
		if _, err := io.ReadFull(r, entry[:]); err != nil {
			return x, malformed("the index ends too early: %v", err)
		}
		e := Packed{
			Size: int64(binary.LittleEndian.Uint32(entry[:])), Packed: int64(binary.LittleEndian.Uint32(entry[4:])),
			Hash: Hash(entry[8:]),
		}
		if e.Size < 1 || e.Size > maxExtent || e.Packed < 1 || e.Packed > maxExtent+1<<12 {
			return x, malformed("extent of %d bytes in %d", e.Size, e.Packed)
		}
		sum += e.Size
		x.Extents = append(x.Extents, e)
	}
	if sum != x.Size {
		return x, malformed("extents of %d bytes make no part of %d", sum, x.Size)
	}
	return x, atEnd(r)
}

// String says what it is of, for people.
func (x Index) String() string {
	return fmt.Sprintf("%s in %d extents, %d of %d bytes", x.Digest.Short(), len(x.Extents), x.PackSize(), x.Size)
}
