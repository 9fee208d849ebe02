package state

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"allotment/image"
	"allotment/image/layer"
	"allotment/init/state/btrfs"
)

// Layer returns the path of a layer whose fs-verity digest was measured, so that the kernel gives no other bytes.
func (s *Store) Layer(d image.Digest) (string, error) {
	name := layer.FileName(d)
	if err := s.broken[name]; err != nil {
		return "", err
	}
	for _, l := range s.Layers {
		if l.Digest == d {
			return s.layerPath(name), nil
		}
	}
	return "", fmt.Errorf("cannot find layer %s: the system does not name it", d.Short())
}

// allLayers is an error if any layer cannot be used.
func (s *Store) allLayers() error {
	var errs []error
	for _, err := range s.broken {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (s *Store) layerPath(name string) string { return filepath.Join(s.Root, "layers", name) }

// checkLayers measures every layer, and restores those that are missing or damaged. Only a cancelled context and a store
// that cannot be read are errors.
func (s *Store) checkLayers(ctx context.Context) error {
	if err := s.removeUnfinished(); err != nil {
		return fmt.Errorf("cannot tidy the store of layers: %w", err)
	}
	offset := s.Seed.Offset
	for _, l := range s.Layers {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.checkLayer(ctx, l, offset); err != nil {
			s.Log.Error("layer cannot be used", "layer", l.Name, "digest", l.Digest.Short(), "error", err)
			s.broken[layer.FileName(l.Digest)] = fmt.Errorf("cannot use layer %s (%s): %w", l.Name, l.Digest.Short(), err)
		}
		offset += l.Size
	}
	return ctx.Err()
}

// removeUnfinished removes what a cut left: files whose names are not final.
func (s *Store) removeUnfinished() error {
	entries, err := os.ReadDir(s.layerPath(""))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), unfinished) {
			if err := os.Remove(s.layerPath(e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// unfinished ends the names of files that are not layers yet.
const unfinished = ".new"

// checkLayer makes sure of one layer, which a fresh image has at offset of the partition.
func (s *Store) checkLayer(ctx context.Context, l image.Layer, offset int64) error {
	path := s.layerPath(layer.FileName(l.Digest))
	damage := btrfs.CheckVerity(path, l.Digest)
	if damage == nil {
		return btrfs.SetImmutable(path, true)
	}
	if !errors.Is(damage, fs.ErrNotExist) {
		s.Log.Warn("layer is damaged", "layer", l.Name, "digest", l.Digest.Short(), "error", damage)
		// The file stays until a whole one takes its name: what failed may have been the reading, and there is no other
		// copy once the seed is overwritten.
		_ = btrfs.SetImmutable(path, false)
	}
	if s.Seed.Size == 0 {
		return errors.Join(damage, errors.New("the image has no seed"))
	}
	if err := s.copyFromSeed(ctx, l, offset, path); err != nil {
		return fmt.Errorf("%w, and the seed does not have it: %w", damage, err)
	}
	s.Log.Info("layer taken from the seed", "layer", l.Name, "digest", l.Digest.Short(), "bytes", l.Size)
	return nil
}

// copyFromSeed makes the layer's file at path. The order matters: fs-verity is durable only after syncfs, fsync does not
// do, so that a file which is renamed before can be unreadable after a cut.
func (s *Store) copyFromSeed(ctx context.Context, l image.Layer, offset int64, path string) error {
	source, err := os.Open(s.device)
	if err != nil {
		return err
	}
	defer source.Close()
	tmp := path + unfinished
	defer os.Remove(tmp) // nothing is there after the rename
	if err := copyFile(ctx, tmp, io.NewSectionReader(source, offset, l.Size), l.Size); err != nil {
		return err
	}
	if err := btrfs.EnableVerity(tmp); err != nil {
		return err
	}
	if err := btrfs.CheckVerity(tmp, l.Digest); err != nil {
		return err
	}
	if err := btrfs.Sync(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return btrfs.SetImmutable(path, true) // not before: an immutable file cannot be renamed
}

// copyFile makes a file of size bytes, and stops when ctx ends.
func copyFile(ctx context.Context, path string, r io.Reader, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	defer f.Close()
	const step = 1 << 20
	for at := int64(0); at < size; at += step {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := io.CopyN(f, r, min(step, size-at)); err != nil {
			return fmt.Errorf("at byte %d of %d: %w", at, size, err)
		}
	}
	return f.Close() // fs-verity is not enabled while someone writes
}
