// Package delta makes the parts of a release (UKI, root, layers) out of those of another: the formats of docs/formats/delta.md
// and what reads them on the device. A delta leads from all parts of one release to those of another. A pack is one part in
// compressed extents, of which a device of any older version fetches only what it lacks.
//
// All of it streams: neither a part nor a delta is ever in memory as a whole, and nothing counts as done before its digest is
// that which the release names.
package delta

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"allotment/image"
)

// Limits of the format. They bound what applying needs of memory, whatever the delta says.
const (
	MaxSpan  = 16 << 20 // bytes of old or of new content that a DIFF or a DATA may concern
	MaxPatch = 2 << 20  // bytes of old or of new content that a PATCH may concern: the old is in memory
	Window   = 2 << 20  // bytes of window that a zstd frame may ask for

	maxPacked = MaxSpan + 1<<16 // bytes of one operation's frames: what does not shrink grows by little
	maxHeader = 1 << 20
	maxParts  = 4096
)

const (
	magic   = "allotdlt"
	version = 1
)

// Kinds of operation, as the first byte of each.
const (
	opCopy  = 1
	opDiff  = 2
	opPatch = 3
	opData  = 4
)

// ErrFormat is what every complaint about a delta, a pack or an index leads back to.
var ErrFormat = errors.New("not a sound delta")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// File is a part that a delta reads or makes.
type File struct {
	Name   string       `json:"name"`   // for people
	Digest image.Digest `json:"digest"` // SHA-256 of its bytes
	Size   int64        `json:"size"`   // bytes
}

// Header says what a delta needs and what it makes. Outputs are made in this order.
type Header struct {
	Sources []File `json:"sources"`
	Outputs []File `json:"outputs"`
}

// check tells whether sizes and numbers are such that sums of them cannot overflow.
func (h Header) check() error {
	if len(h.Sources) > maxParts || len(h.Outputs) > maxParts {
		return malformed("%d sources and %d outputs are too many", len(h.Sources), len(h.Outputs))
	}
	seen := map[image.Digest]bool{}
	for _, list := range [][]File{h.Sources, h.Outputs} {
		for _, f := range list {
			if f.Size < 0 || f.Size > 1<<40 {
				return malformed("part %q of %d bytes", f.Name, f.Size)
			}
			if _, err := image.ParseDigest(string(f.Digest)); err != nil {
				return malformed("part %q: %v", f.Name, err)
			}
			if seen[f.Digest] {
				return malformed("part %q is named twice", f.Name)
			}
			seen[f.Digest] = true
		}
	}
	return nil
}

// ReadHeader reads the header of a delta and leaves r at its first operation.
func ReadHeader(r io.Reader) (Header, error) {
	var h Header
	var fixed [len(magic) + 8]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return h, malformed("no header: %v", err)
	}
	if string(fixed[:len(magic)]) != magic {
		return h, malformed("it does not begin as one")
	}
	if v := binary.LittleEndian.Uint32(fixed[len(magic):]); v != version {
		return h, malformed("its version is %d, and this program knows %d", v, version)
	}
	n := binary.LittleEndian.Uint32(fixed[len(magic)+4:])
	if n > maxHeader {
		return h, malformed("header of %d bytes", n)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return h, malformed("no header: %v", err)
	}
	if err := json.Unmarshal(text, &h); err != nil {
		return h, malformed("header: %v", err)
	}
	return h, h.check()
}

// writeHeader is the inverse of ReadHeader.
func writeHeader(w io.Writer, h Header) error {
	if err := h.check(); err != nil {
		return err
	}
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	b := append([]byte(magic), 0, 0, 0, 0, 0, 0, 0, 0)
	binary.LittleEndian.PutUint32(b[len(magic):], version)
	binary.LittleEndian.PutUint32(b[len(magic)+4:], uint32(len(text)))
	_, err = w.Write(append(b, text...))
	return err
}
