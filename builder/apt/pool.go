package apt

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"allotment/image"
	"allotment/internal/progress"
)

// poolName is the name of a package in a pool folder.
func poolName(p Package) string { return p.SHA256.Hex() + ".deb" }

// Keep copies packages into the folder dir, which can then be used as a pool. It fetches what the cache lacks.
func (c *Client) Keep(ctx context.Context, packages []Package, dir string, to progress.Reporter) error {
	paths, err := c.Fetch(ctx, packages, to)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot make pool: %w", err)
	}
	for i, p := range packages {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := keep(paths[i], filepath.Join(dir, poolName(p)), p); err != nil {
			return fmt.Errorf("cannot keep package %s in pool %q: %w", p, dir, err)
		}
	}
	return nil
}

// keep copies a package to path, where it appears when it is whole.
func keep(from, path string, p Package) error {
	if _, err := os.Stat(path); err == nil && !damaged(path, p) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".keep-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	if err := copyExact(from, f.Name(), p); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// copyExact copies a file to another, which must then have the size and hash of p. The error wraps fs.ErrNotExist when
// there is no such file, and errWrong when it has other bytes.
func copyExact(from, to string, p Package) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if info, err := in.Stat(); err == nil && info.Size() != p.Size {
		return fmt.Errorf("%w in %q: %d bytes where %d are due", errWrong, from, info.Size(), p.Size)
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(out, h), in); err != nil {
		return err
	}
	if got := image.NewDigest([sha256.Size]byte(h.Sum(nil))); got != p.SHA256 {
		return fmt.Errorf("%w in %q: hash is %s, want %s", errWrong, from, got, p.SHA256)
	}
	return out.Close()
}

// inPool copies a package from the pool folder to the new file tmp; the error wraps errMissing where it is not there.
func (c *Client) inPool(p Package, tmp string) error {
	err := copyExact(filepath.Join(c.places.Pool, poolName(p)), tmp, p)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s in pool %q", errMissing, poolName(p), c.places.Pool)
	}
	return err
}
