package release

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"allotment/image"
)

// Store is a place that holds a repository's files under names with slashes.
type Store interface {
	// Get reads a small file whole; the error is fs.ErrNotExist if there is none.
	Get(ctx context.Context, name string) ([]byte, error)
	// Size is a file's size in bytes; the error is fs.ErrNotExist if there is none.
	Size(ctx context.Context, name string) (int64, error)
	// Put writes a file whole or not at all, in place of one that is there.
	Put(ctx context.Context, name string, r io.Reader, size int64) error
	// List names the files of a folder and of those below it.
	List(ctx context.Context, folder string) ([]string, error)
	// Remove removes a file.
	Remove(ctx context.Context, name string) error
	// Replace is Put for a file that must still have the bytes old, which are nil if there was none.
	Replace(ctx context.Context, name string, old, data []byte) error
}

// folder is a Store of files. Each gets its name by a rename, so that a reader finds the old or the new one.
type folder struct {
	dir    string
	rename func(from, to string) error
}

// workPattern names unfinished files and folders; they begin with a dot, which is not published.
const workPattern = ".work-*"

func newFolder(dir string) *folder { return &folder{dir, os.Rename} }

func (f *folder) path(name string) string { return filepath.Join(f.dir, filepath.FromSlash(name)) }

// Get implements Store.
func (f *folder) Get(_ context.Context, name string) ([]byte, error) {
	return os.ReadFile(f.path(name))
}

// Size implements Store.
func (f *folder) Size(_ context.Context, name string) (int64, error) {
	info, err := os.Stat(f.path(name))
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Put implements Store.
func (f *folder) Put(ctx context.Context, name string, r io.Reader, size int64) error {
	_, err := f.write(ctx, func(image.Digest) string { return name }, func(w io.Writer) error {
		n, err := io.Copy(w, r)
		if err == nil && n != size {
			err = fmt.Errorf("has %d bytes, want %d", n, size)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot write %q: %w", f.path(name), err)
	}
	return nil
}

// Replace implements Store. Whoever writes to the folder holds its lock, so that nothing changes between the two steps.
func (f *folder) Replace(ctx context.Context, name string, old, data []byte) error {
	now, err := f.Get(ctx, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if string(now) != string(old) {
		return errChanged
	}
	return f.Put(ctx, name, bytes.NewReader(data), int64(len(data)))
}

// List implements Store.
func (f *folder) List(_ context.Context, folder string) ([]string, error) {
	var names []string
	err := fs.WalkDir(os.DirFS(f.dir), folder, func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			names = append(names, name)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return names, err
}

// Remove implements Store.
func (f *folder) Remove(_ context.Context, name string) error { return os.Remove(f.path(name)) }

// write makes a durable file out of what fill writes, under the name that follows from its digest.
func (f *folder) write(ctx context.Context, name func(image.Digest) string, fill func(io.Writer) error) (image.Blob, error) {
	if err := ctx.Err(); err != nil {
		return image.Blob{}, err
	}
	tmp, err := os.CreateTemp(f.dir, workPattern)
	if err != nil {
		return image.Blob{}, err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	hash := sha256.New()
	if err := fill(io.MultiWriter(contextWriter{ctx, tmp}, hash)); err != nil {
		return image.Blob{}, err
	}
	if err := tmp.Chmod(0o644); err != nil {
		return image.Blob{}, err
	}
	if err := tmp.Sync(); err != nil {
		return image.Blob{}, err
	}
	info, err := tmp.Stat()
	if err != nil {
		return image.Blob{}, err
	}
	b := image.Blob{Digest: image.NewDigest([sha256.Size]byte(hash.Sum(nil))), Size: info.Size()}
	to := f.path(name(b.Digest))
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return image.Blob{}, err
	}
	if err := f.rename(tmp.Name(), to); err != nil {
		return image.Blob{}, err
	}
	return b, syncFolder(filepath.Dir(to))
}

// clean removes what an interrupted run has left.
func (f *folder) clean() error {
	left, err := filepath.Glob(filepath.Join(f.dir, workPattern))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// syncFolder makes the names in a folder durable.
func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// contextWriter ends a long writing when its context does.
type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

// Write implements io.Writer.
func (w contextWriter) Write(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.w.Write(b)
}
