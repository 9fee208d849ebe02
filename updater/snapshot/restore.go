package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"allotment/init/state/btrfs"
)

// unfinished ends the hidden names of what is to be exchanged with a volume or folder, or was. Whichever of the two it is,
// it can be deleted: a restore that is cut is done again from the start.
const unfinished = ".restore"

// Restore brings back the data of the complete snapshot called name: volumes, settings and secrets become what they were
// when it was taken, volumes that did not exist then are removed. The snapshot itself stays. It can be cut at any point and
// called again. No module may run, and nobody may have settings or secrets open.
func Restore(root, name string) error { return open(root).restore(name) }

func (s *store) restore(name string) error {
	if err := s.restoreAll(name); err != nil {
		return fmt.Errorf("cannot restore snapshot %q: %w", name, err)
	}
	return nil
}

func (s *store) restoreAll(name string) error {
	c, err := s.content(name)
	if err != nil {
		return err
	}
	for _, v := range c.Volumes {
		if err := s.restoreVolume(s.path(name), v); err != nil {
			return fmt.Errorf("volume %q of module %q: %w", v.Name, v.Module, err)
		}
	}
	for _, p := range plain {
		if err := s.restoreFolder(filepath.Join(s.path(name), p), filepath.Join(s.root, p)); err != nil {
			return err
		}
	}
	if err := s.step(); err != nil {
		return err
	}
	if err := btrfs.Sync(s.root); err != nil { // what was restored is durable before anything is deleted
		return err
	}
	if err := s.deleteOthers(c.Volumes); err != nil {
		return err
	}
	return btrfs.Sync(s.root)
}

// restoreVolume puts a writable snapshot of the snapshot in dir in the volume's place.
func (s *store) restoreVolume(dir string, v volume) error {
	path := v.path(s.root)
	next := filepath.Join(filepath.Dir(path), "."+v.Name+unfinished)
	if err := s.step(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := btrfs.Delete(next); err != nil {
		return err
	}
	if err := s.step(); err != nil {
		return err
	}
	if err := btrfs.Snapshot(v.path(dir), next, false); err != nil {
		return err
	}
	// A snapshot has no limit, and the data that it holds for the volume must not escape the volume's.
	id, err := btrfs.SubvolumeID(next)
	if err == nil && v.Limit > 0 {
		err = btrfs.SetLimit(s.root, id, v.Limit)
	}
	if err != nil {
		return err
	}
	return s.exchange(next, path)
}

// exchange gives the name path to what next is called, and the name next to what was there.
func (s *store) exchange(next, path string) error {
	if err := s.step(); err != nil {
		return err
	}
	err := btrfs.Exchange(next, path)
	if errors.Is(err, fs.ErrNotExist) { // nothing was there
		err = os.Rename(next, path)
	}
	return err
}

// restoreFolder makes the folder at path a copy of from, or removes it if there is no from.
func (s *store) restoreFolder(from, path string) error {
	next := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+unfinished)
	if err := s.step(); err != nil {
		return err
	}
	if err := os.RemoveAll(next); err != nil {
		return err
	}
	err := s.copyTree(from, next)
	if err == nil {
		err = s.step()
	}
	if err == nil {
		err = btrfs.Sync(s.root) // so that no log of a single file tells less than the exchange
	}
	if err == nil {
		err = s.exchange(next, path)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = os.Rename(path, next)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	if err == nil {
		err = s.step()
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(next)
}

// deleteOthers deletes every volume that is none of those to be kept, and what the exchange left.
func (s *store) deleteOthers(keep []volume) error {
	wanted := map[string]bool{}
	for _, v := range keep {
		wanted[v.path(s.root)] = true
	}
	paths, err := filepath.Glob(filepath.Join(s.root, volumes, "*", "*")) // hidden names too
	if err != nil {
		return err
	}
	for _, path := range paths {
		is, err := btrfs.IsSubvolume(path)
		if err == nil && is && !wanted[path] {
			if err = s.step(); err == nil {
				err = btrfs.Delete(path)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
