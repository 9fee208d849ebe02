package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/klauspost/compress/zstd"

	"allotment/internal/run"
)

// File is a disk image opened for reading, whatever its format.
type File struct {
	Format Format
	Size   int64 // of the disk, bytes

	f *os.File
}

// ReadAt implements io.ReaderAt over the disk's bytes.
func (f *File) ReadAt(b []byte, off int64) (int, error) { return f.f.ReadAt(b, off) }

// NextData returns an offset at or behind off before which the disk has nothing but zeros from off on.
func (f *File) NextData(off int64) int64 {
	const seekData = 3 // SEEK_DATA of lseek(2)
	next, err := f.f.Seek(off, seekData)
	switch {
	case errors.Is(err, syscall.ENXIO): // zeros up to the end
		return f.Size
	case err != nil: // the file system does not know
		return off
	}
	return next
}

// Close ends the reading.
func (f *File) Close() error { return f.f.Close() }

// Open opens an image file of any of the formats. Unless it is raw, its disk is written to a nameless temporary file
// first. Tools has qemu-img; it is used, and must not be nil, only where Format.NeedsTools.
func Open(ctx context.Context, tools run.Runner, path string) (*File, error) {
	format, err := Detect(path)
	if err != nil {
		return nil, err
	}
	f, err := openRaw(ctx, tools, path, format)
	if err != nil {
		return nil, fmt.Errorf("cannot read image %q: %w", path, err)
	}
	return newFile(f, format)
}

// OpenPlain opens a file to be read as the bytes that it has, whatever its format, without reading its holes.
func OpenPlain(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return newFile(f, Raw)
}

// WriteTo writes the whole disk to w.
func (f *File) WriteTo(w io.Writer) (int64, error) {
	block := make([]byte, mib)
	for at := int64(0); at < f.Size; {
		b, err := f.readBlock(block, at)
		if err != nil {
			return at, err
		}
		n, err := w.Write(b)
		at += int64(n)
		if err != nil {
			return at, err
		}
	}
	return f.Size, nil
}

// readBlock reads the block at offset at, of which only the disk's last may be shorter. Holes are not read: reading one
// costs as much as reading data.
func (f *File) readBlock(block []byte, at int64) ([]byte, error) {
	block = block[:min(int64(len(block)), f.Size-at)]
	if f.NextData(at) >= at+int64(len(block)) {
		clear(block)
		return block, nil
	}
	_, err := f.ReadAt(block, at)
	return block, err
}

// newFile takes over f, which has the bytes of the disk.
func newFile(f *os.File, format Format) (*File, error) {
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &File{Format: format, Size: info.Size(), f: f}, nil
}

func openRaw(ctx context.Context, tools run.Runner, path string, format Format) (*os.File, error) {
	if format == Raw {
		return os.Open(path)
	}
	dir, err := os.MkdirTemp("", "allot-image-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) // the open file stays
	raw := filepath.Join(dir, "raw")
	if format == Zstd {
		return decompress(ctx, path, raw)
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	driver := string(format)
	if format == VHD {
		driver = "vpc"
	}
	err = tools.Run(ctx, run.Command{Name: "qemu-img", Args: []string{"convert", "-q", "-f", driver, "-O", "raw", path, raw}})
	if err != nil {
		return nil, err
	}
	return os.Open(raw)
}

// decompress unpacks a zstd file to a sparse one.
func decompress(ctx context.Context, path, raw string) (*os.File, error) {
	src, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	z, err := zstd.NewReader(&meter{ctx, src, nil}, zstd.WithDecoderMaxWindow(64*mib))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	f, err := os.Create(raw)
	if err != nil {
		return nil, err
	}
	w := &sparseWriter{w: f}
	if _, err = io.Copy(w, z); err == nil {
		err = f.Truncate(w.at)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
