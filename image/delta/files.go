package delta

import (
	"io"
	"os"

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

// Clone implements Output: nothing is shared, all is copied.
func (output) Clone(int64, image.Digest, int64, int64) bool { return false }
