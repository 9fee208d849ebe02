package delta

import (
	"encoding/binary"
	"io"
)

// Range is a range of bytes of one of a delta's files.
type Range struct {
	File   int   // index of a source; or the number of sources plus the index of an output
	Offset int64 // bytes
	Size   int64 // bytes
}

// Writer writes a delta. The operations of the first output come first, in the order of its bytes, then those of the next
// one. It does not check that they lead to the outputs' digests: Apply does.
type Writer struct {
	w      io.Writer
	cursor []int64 // of each file: where the last operation that read it ended
}

// NewWriter writes the header of a delta to w.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	return &Writer{w: w, cursor: make([]int64, len(h.Sources)+len(h.Outputs))}, writeHeader(w, h)
}

// Copy writes the operation that takes a range as it is.
func (w *Writer) Copy(from Range) error {
	b := w.seek([]byte{opCopy}, from)
	return w.put(binary.AppendUvarint(b, uint64(from.Size)))
}

// Frames are the streams of a DIFF, each one zstd frame. Numbers in them are varints.
type Frames struct {
	Steps   []byte // of each step: signed bytes to skip in the old ones, bytes to change, bytes to insert
	Same    []byte // how many bytes stay as they are, then
	Changed []byte // how many do not; and so on
	Add     []byte // to be added to those that do not
	Insert  []byte
}

func (f Frames) list() [][]byte { return [][]byte{f.Steps, f.Same, f.Changed, f.Add, f.Insert} }

// Diff writes the operation that makes size bytes of a range by bsdiff's steps.
func (w *Writer) Diff(from Range, size int64, f Frames) error {
	b := w.seek([]byte{opDiff}, from)
	b = binary.AppendUvarint(b, uint64(from.Size))
	b = binary.AppendUvarint(b, uint64(size))
	for _, frame := range f.list() {
		b = binary.AppendUvarint(b, uint64(len(frame)))
	}
	return w.put(append([][]byte{b}, f.list()...)...)
}

// Patch writes the operation that makes size bytes by a zstd frame whose raw dictionary is a range.
func (w *Writer) Patch(from Range, size int64, frame []byte) error {
	b := w.seek([]byte{opPatch}, from)
	b = binary.AppendUvarint(b, uint64(from.Size))
	b = binary.AppendUvarint(b, uint64(size))
	return w.put(binary.AppendUvarint(b, uint64(len(frame))), frame)
}

// Data writes the operation that makes size bytes by a zstd frame.
func (w *Writer) Data(size int64, frame []byte) error {
	b := binary.AppendUvarint([]byte{opData}, uint64(size))
	return w.put(binary.AppendUvarint(b, uint64(len(frame))), frame)
}

// seek appends where a range begins: the file, and how far that is from where the file was last read.
func (w *Writer) seek(b []byte, from Range) []byte {
	b = binary.AppendUvarint(b, uint64(from.File))
	b = binary.AppendVarint(b, from.Offset-w.cursor[from.File])
	w.cursor[from.File] = from.Offset + from.Size
	return b
}

func (w *Writer) put(parts ...[]byte) error {
	for _, p := range parts {
		if _, err := w.w.Write(p); err != nil {
			return err
		}
	}
	return nil
}
