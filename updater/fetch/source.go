// Package fetch gets the files of an update from where they lie: web servers, of which none is believed, or a folder such as
// that of a USB stick. It knows nothing of signatures; what it promises is that it ends, within bounds of size, memory and
// time, and that File gives only a file of the digest that was asked for.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"

	"allotment/image"
)

// Source gives the files of an update repository.
type Source interface {
	// Get opens the file at path, which is relative, with slashes, and escaped as in a URL. The reader gives the bytes from
	// offset from up to but without offset to; if to is negative, to the end. A missing file is fs.ErrNotExist, from Get or,
	// where several mirrors are asked, from the first Read.
	Get(ctx context.Context, path string, from, to int64) (io.ReadCloser, error)
}

// Errors that callers tell apart.
var (
	ErrTooLarge = errors.New("more bytes than allowed")
	ErrDigest   = errors.New("the bytes do not have the digest that they are named by")
)

// Path is where a repository keeps a blob.
func Path(b image.Blob) string { return "blobs/" + b.Digest.Hex() }

// Bytes reads the whole file at path, which must not have more than limit bytes.
func Bytes(ctx context.Context, s Source, path string, limit int64) ([]byte, error) {
	r, err := s.Get(ctx, path, 0, -1)
	if err != nil {
		return nil, fmt.Errorf("cannot fetch %q: %w", path, err)
	}
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	err = errors.Join(err, r.Close())
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%w: %d", ErrTooLarge, limit)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot fetch %q: %w", path, err)
	}
	return b, nil
}

// Range opens the bytes of a blob from offset from up to but without offset to.
func Range(ctx context.Context, s Source, b image.Blob, from, to int64) (io.ReadCloser, error) {
	if from < 0 || from > to || to > b.Size {
		return nil, fmt.Errorf("cannot fetch bytes %d to %d of blob %s: it has %d", from, to, b.Digest.Short(), b.Size)
	}
	return s.Get(ctx, Path(b), from, to)
}

// Reject says that the bytes of a reader that a Source gave were wrong: where there are other mirrors, they are preferred from
// now on.
func Reject(r io.Reader) {
	if liar, ok := r.(interface{ Reject() }); ok {
		liar.Reject()
	}
}

// Dir is the Source of a folder with a repository's files. Links that lead out of it are not followed.
func Dir(path string) Source { return dir(path) }

type dir string

func (d dir) Get(_ context.Context, path string, from, to int64) (io.ReadCloser, error) {
	name, err := url.PathUnescape(path)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(string(d))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errors.New("not a file")}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if to < 0 {
		to = st.Size()
	}
	return &section{io.NewSectionReader(f, from, to-from), to - from, f}, nil
}

// section is a part of a file, whole or an error.
type section struct {
	r    io.Reader
	left int64
	io.Closer
}

func (s *section) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if s.left -= int64(n); err == io.EOF && s.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
