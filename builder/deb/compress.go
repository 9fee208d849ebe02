package deb

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"path"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// open returns the unpacked content of a member, by the compression that its name says.
func (p *Package) open(m member) (io.ReadCloser, error) {
	raw := bufio.NewReaderSize(io.NewSectionReader(p.f, m.offset, m.size), 256<<10)
	r, err := Decompress(raw, path.Ext(m.name))
	if err != nil {
		return nil, faultIn(m.name, err)
	}
	return &namedReader{r, m.name}, nil
}

// Decompress unpacks r by a file name's extension: .xz, .zst, .gz, or .tar and the empty one for plain bytes.
func Decompress(r io.Reader, ext string) (io.ReadCloser, error) {
	switch ext {
	case ".xz":
		x, err := xz.NewReader(r)
		return io.NopCloser(x), err
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case ".gz":
		return gzip.NewReader(r)
	case ".tar", "":
		return io.NopCloser(r), nil
	}
	return nil, fmt.Errorf("cannot unpack compression %q: want .xz, .zst, .gz or none", ext)
}

// namedReader says in errors what was being read.
type namedReader struct {
	io.ReadCloser
	name string
}

func (r *namedReader) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%s: %w", r.name, err)
	}
	return n, err
}
