package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Change is what a volume has got since a snapshot, and would lose if that were restored.
type Change struct {
	Module, Volume string
	Files          int       // that are new or other than they were
	Newest         time.Time // when the newest of them was written
	Bytes          int64     // their sizes
}

// Changes lists the volumes that hold new or changed files since the complete snapshot called name. It reads names and times,
// no contents; files that were only deleted do not count, as they would come back.
func Changes(root, name string) ([]Change, error) {
	s := open(root)
	if _, err := s.content(name); err != nil {
		return nil, fmt.Errorf("cannot compare with snapshot %q: %w", name, err)
	}
	now, err := s.volumes(root)
	if err != nil {
		return nil, err
	}
	var all []Change
	for _, v := range now {
		c := Change{Module: v.Module, Volume: v.Name}
		if err := c.count(v.path(root), v.path(s.path(name))); err != nil {
			return nil, fmt.Errorf("cannot compare volume %q of module %q: %w", v.Name, v.Module, err)
		}
		if c.Files > 0 {
			all = append(all, c)
		}
	}
	return all, nil
}

// count walks a volume and compares it with how it was.
func (c *Change) count(now, then string) error {
	return filepath.WalkDir(now, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && !e.Type().IsRegular() {
			return nil // it may go while we walk
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(now, path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		old, err := os.Lstat(filepath.Join(then, rel))
		if err == nil && old.Size() == info.Size() && old.ModTime().Equal(info.ModTime()) {
			return nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return err
		}
		c.Files++
		c.Bytes += info.Size()
		if info.ModTime().After(c.Newest) {
			c.Newest = info.ModTime()
		}
		return nil
	})
}
