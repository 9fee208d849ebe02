package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"allotment/builder/tools"
	"allotment/internal/run"
)

// CopySparse copies a file so that its holes stay holes; where the file system can, the copy shares its blocks.
func CopySparse(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	if err := copyData(dst, src); err != nil {
		dst.Close()
		return fmt.Errorf("cannot copy %q to %q: %w", from, to, err)
	}
	return dst.Close()
}

func copyData(dst, src *os.File) error {
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
		return nil
	}
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if err := dst.Truncate(info.Size()); err != nil {
		return err
	}
	for at := int64(0); at < info.Size(); {
		start, err := unix.Seek(int(src.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // only a hole is left
			return nil
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(int(src.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(dst, start), io.NewSectionReader(src, start, end-start)); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// FlipByte inverts all bits of the byte at an offset of a file.
func FlipByte(path string, offset int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], offset); err != nil {
		return fmt.Errorf("cannot read byte %d of %q: %w", offset, path, err)
	}
	b[0] ^= 0xff
	if _, err := f.WriteAt(b[:], offset); err != nil {
		return fmt.Errorf("cannot flip byte %d of %q: %w", offset, path, err)
	}
	return f.Close()
}

// Flatten writes the disk of a machine that does not run, as it is now, to a raw image. The folder of the image that the
// disk began with must be one that the tool root sees (tools.Root.With).
func Flatten(ctx context.Context, t *tools.Root, dir, to string) error {
	return t.With(dir, filepath.Dir(to)).Run(ctx, run.Command{Name: "qemu-img", Args: []string{"convert", "-O", "raw", overlayFile(dir), to}})
}
