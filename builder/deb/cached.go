package deb

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"

	"allotment/builder/npm"
	"allotment/image"
	"allotment/internal/cache"
)

// DataTarCached returns the path of the unpacked data.tar of the package at path, which the cache keeps under the hash
// of the package. A package of the npm registry has one too, as package npm writes it. The caller has verified that the package has this hash.
func DataTarCached(ctx context.Context, c cache.Dir, path string, sha256 image.Digest) (string, error) {
	return c.Make(ctx, "data", sha256.Hex(), func(tmp string) error { return unpackData(ctx, path, tmp) })
}

// unpackData writes the data.tar of the package at path to a new file.
func unpackData(ctx context.Context, path, to string) error {
	is, err := npm.Is(path)
	switch {
	case err != nil:
		return err
	case is:
		return unpackNPM(ctx, path, to)
	}
	p, err := Open(path)
	if err != nil {
		return err
	}
	defer p.Close()
	r, err := p.DataTar()
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.Create(to)
	if err != nil {
		return fmt.Errorf("cannot unpack %q: %w", path, err)
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	if _, err := io.CopyBuffer(f, &untilCancelled{ctx, r}, buf); err != nil {
		return err
	}
	return f.Close()
}

// unpackNPM writes the files of the npm package at path to a new tar file.
func unpackNPM(ctx context.Context, path, to string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return fmt.Errorf("cannot unpack %q: %w", path, err)
	}
	defer out.Close()
	if err := npm.WriteTar(ctx, bufio.NewReaderSize(in, 1<<20), out); err != nil {
		return err
	}
	return out.Close()
}

// untilCancelled is r until ctx ends. It hides r's WriterTo, so that every read asks.
type untilCancelled struct {
	ctx context.Context
	r   io.Reader
}

func (u *untilCancelled) Read(b []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(b)
}
