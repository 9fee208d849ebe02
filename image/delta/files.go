package delta

import (
	"io"
	"os"

	"golang.org/x/sys/unix"

	"allotment/image"
)

// Files is Sources and Outputs that are files: the reader and writer of deltas where nothing else is asked for.
type Files struct {
	Open   map[image.Digest]*os.File        // the parts that are there; outputs are added when they are begun
	Create func(File) (*os.File, error)     // begins an output
	Finish func(f File, out *os.File) error // is called when the output is whole and right
}

// Source implements Sources.
func (s Files) Source(f File) (io.ReaderAt, error) {
	file, ok := s.Open[f.Digest]
	if !ok {
		return nil, os.ErrNotExist
	}
	return file, nil
}

// Output implements Outputs.
func (s Files) Output(f File) (Output, error) {
	file, err := s.Create(f)
	if err != nil {
		return nil, err
	}
	s.Open[f.Digest] = file
	return output{file, f, s}, nil
}

type output struct {
	*os.File
	part  File
	files Files
}

func (o output) Done() error { return o.files.Finish(o.part, o.File) }

// Clone has the file system share storage between two files (FICLONERANGE, ioctl_ficlonerange(2)).
func (o output) Clone(off int64, from image.Digest, fromOff, n int64) bool {
	src, ok := o.files.Open[from]
	return ok && CloneRange(o.File, off, src, fromOff, n)
}

// CloneRange has the file system share n bytes of from's storage with to, and tells whether it did. Offsets and n must be
// multiples of the file system's blocks.
func CloneRange(to *os.File, off int64, from *os.File, fromOff, n int64) bool {
	err := unix.IoctlFileCloneRange(int(to.Fd()), &unix.FileCloneRange{
		Src_fd: int64(from.Fd()), Src_offset: uint64(fromOff), Src_length: uint64(n), Dest_offset: uint64(off),
	})
	return err == nil
}
