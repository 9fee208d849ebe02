package fetch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"allotment/image"
	"allotment/init/durable"
)

const (
	attempts = 3       // at a file from its first byte
	settle   = 8 << 20 // bytes after which what was written goes to the disk and out of memory
)

// File has the blob in the folder dir under its digest's name and returns the path. A part of it that lies there, as
// DIGEST.part, is gone on from; it stays when an error ends the call. The file that is returned is durable and has the
// digest.
// Report, if not nil, is told how many bytes there are, now and then.
func File(ctx context.Context, s Source, b image.Blob, dir string, report func(int64)) (path string, err error) {
	path = filepath.Join(dir, b.Digest.Hex())
	if whole(path, b) {
		return path, nil
	}
	part := path + ".part"
	for range attempts {
		if err = download(ctx, s, b, part, report); !errors.Is(err, ErrDigest) && !errors.Is(err, errNoRanges) {
			break
		}
		if err := os.Remove(part); err != nil {
			return "", err
		}
	}
	if err == nil {
		err = os.Rename(part, path)
	}
	if err == nil {
		err = durable.SyncDir(dir)
	}
	if err != nil {
		return "", fmt.Errorf("cannot fetch blob %s: %w", b.Digest.Short(), err)
	}
	return path, nil
}

// whole tells whether the file is there and is the blob.
func whole(path string, b image.Blob) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	d, _, err := image.DigestOf(io.LimitReader(f, b.Size+1))
	return err == nil && d == b.Digest
}

// download appends to part what it lacks.
func download(ctx context.Context, s Source, b image.Blob, part string, report func(int64)) (err error) {
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := &writer{f: f, sum: sha256.New(), report: report}
	if err := w.resume(b.Size); err != nil {
		return err
	}
	r, err := s.Get(ctx, Path(b), w.n, b.Size)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.CopyBuffer(w, struct{ io.Reader }{io.LimitReader(r, b.Size-w.n)}, make([]byte, 64<<10)); err != nil {
		return errors.Join(err, f.Sync())
	}
	if err := w.settle(); err != nil {
		return err
	}
	if image.NewDigest([sha256.Size]byte(w.sum.Sum(nil))) == b.Digest {
		return nil
	}
	Reject(r)
	return ErrDigest
}

// writer appends to a file and hashes, and keeps no more of it in memory than settle.
type writer struct {
	f       *os.File
	sum     hash.Hash
	n       int64 // bytes there are
	settled int64 // of them on the disk
	report  func(int64)
}

// resume hashes what is there, and cuts off what is too much.
func (w *writer) resume(size int64) error {
	st, err := w.f.Stat()
	if err != nil {
		return err
	}
	if st.Size() > size {
		if err := w.f.Truncate(size); err != nil {
			return err
		}
	}
	w.n, err = io.Copy(w.sum, w.f)
	if err != nil {
		return err
	}
	return w.settle()
}

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.sum.Write(p[:n])
	w.n += int64(n)
	if err == nil && w.n-w.settled >= settle {
		err = w.settle()
	}
	return n, err
}

// settle makes durable what was written, and lets the kernel forget it: the updater's memory is counted with its page cache.
func (w *writer) settle() error {
	if err := w.f.Sync(); err != nil {
		return err
	}
	w.settled = w.n
	if w.report != nil {
		w.report(w.n)
	}
	if err := unix.Fadvise(int(w.f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil && !errors.Is(err, unix.ESPIPE) {
		return err
	}
	return nil
}
