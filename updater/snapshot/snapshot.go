// Package snapshot keeps the data of all modules as it was before an update, and brings it back. A snapshot is a folder
// below /state/snapshots: read-only btrfs snapshots of every volume, copies of settings and secrets, and at last the mark
// that makes it complete. See docs/formats/update-state.md.
package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"allotment/init/durable"
	"allotment/init/state/btrfs"
)

const (
	folder  = "snapshots"
	volumes = "volumes"
	mark    = "complete.json" // of a snapshot; written last, removed first
)

// Names of snapshots that are not an update's: what a backup reads, and what a full restore has fetched.
const (
	Backup   = "backup"
	Restored = "restored"
)

// plain are the folders of the state that are copied, as they are no subvolumes.
var plain = []string{"settings", "secrets"}

// content is what a snapshot's mark says of it.
type content struct {
	Volumes []volume `json:"volumes"`
}

// volume is a module's volume.
type volume struct {
	Module string `json:"module"`
	Name   string `json:"name"`
	Limit  int64  `json:"limit"` // bytes, 0: none
}

func (v volume) path(base string) string { return filepath.Join(base, volumes, v.Module, v.Name) }

// store is the mounted state. Its methods call step before each change of the disk, so that a test can cut there.
type store struct {
	root string
	step func() error
}

func open(root string) *store { return &store{root: root, step: func() error { return nil }} }

func (s *store) path(name string) string { return filepath.Join(s.root, folder, name) }

// Take makes the snapshot called name of the state that is mounted at root. Nothing may write to it meanwhile: modules stand
// still. The snapshot is complete and durable when Take returns; one of the same name, or what a cut left of it, is replaced.
func Take(root, name string) error { return open(root).take(name) }

func (s *store) take(name string) error {
	if err := s.takeAll(name); err != nil {
		return fmt.Errorf("cannot take snapshot %q: %w", name, err)
	}
	return nil
}

func (s *store) takeAll(name string) error {
	if err := s.remove(name); err != nil {
		return err
	}
	var c content
	var err error
	if c.Volumes, err = s.volumes(s.root); err != nil {
		return err
	}
	dir := s.path(name)
	if err := s.mkdir(dir); err != nil {
		return err
	}
	for i := range c.Volumes {
		if err := s.takeVolume(dir, &c.Volumes[i]); err != nil {
			return err
		}
	}
	for _, p := range plain {
		if err := s.copyTree(filepath.Join(s.root, p), filepath.Join(dir, p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return s.complete(name, c)
}

// complete writes the mark, once all else is durable.
func (s *store) complete(name string, c content) error {
	text, err := json.Marshal(c)
	if err == nil {
		err = s.step()
	}
	if err == nil {
		err = btrfs.Sync(s.root)
	}
	if err == nil {
		err = s.step()
	}
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(s.path(name), mark), text, 0o600)
}

func (s *store) takeVolume(dir string, v *volume) error {
	from, to := v.path(s.root), v.path(dir)
	id, err := btrfs.SubvolumeID(from)
	if err == nil {
		_, v.Limit, err = btrfs.Usage(s.root, id)
	}
	if err == nil {
		err = s.mkdir(filepath.Dir(to))
	}
	if err == nil {
		err = s.step()
	}
	if err != nil {
		return err
	}
	return btrfs.Snapshot(from, to, true)
}

// volumes lists the volumes of the state, or of a snapshot, whose folder is base. Hidden names are no volumes yet.
func (s *store) volumes(base string) ([]volume, error) {
	var all []volume
	paths, err := filepath.Glob(filepath.Join(base, volumes, "*", "*"))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		name := filepath.Base(path)
		if strings.HasPrefix(name, ".") {
			continue
		}
		if is, err := btrfs.IsSubvolume(path); err != nil {
			return nil, err
		} else if is {
			all = append(all, volume{Module: filepath.Base(filepath.Dir(path)), Name: name})
		}
	}
	return all, nil
}

func (s *store) mkdir(dir string) error {
	if err := s.step(); err != nil {
		return err
	}
	return os.MkdirAll(dir, 0o700)
}

// Path is the folder of the snapshot called name.
func Path(root, name string) string { return open(root).path(name) }

// Finish makes a complete snapshot of the folder called name, which somebody else has filled as Take does, durably.
func Finish(root, name string) error {
	s := open(root)
	var c content
	all, err := s.volumes(s.path(name))
	if err == nil {
		c.Volumes = all
		err = s.complete(name, c)
	}
	if err != nil {
		return fmt.Errorf("cannot finish snapshot %q: %w", name, err)
	}
	return nil
}

// Exists tells whether there is a complete snapshot called name.
func Exists(root, name string) bool {
	_, err := open(root).content(name)
	return err == nil
}

// content reads what a complete snapshot has.
func (s *store) content(name string) (content, error) {
	var c content
	if err := checkName(name); err != nil {
		return c, err
	}
	b, err := os.ReadFile(filepath.Join(s.path(name), mark))
	if errors.Is(err, fs.ErrNotExist) {
		return c, errors.New("there is no complete one")
	}
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("its mark is damaged: %w", err)
	}
	for _, v := range c.Volumes {
		if err := errors.Join(checkName(v.Module), checkName(v.Name)); err != nil {
			return c, fmt.Errorf("its mark is damaged: %w", err)
		}
	}
	return c, nil
}

// checkName is an error for what is no name of one folder.
func checkName(name string) error {
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("cannot use the name %q", name)
	}
	return nil
}

// List returns the names of all snapshots, complete or not.
func List(root string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(root, folder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// Remove removes the snapshot called name, complete or not; it does nothing if there is none.
func Remove(root, name string) error {
	if err := open(root).remove(name); err != nil {
		return fmt.Errorf("cannot remove snapshot %q: %w", name, err)
	}
	return nil
}

func (s *store) remove(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	dir := s.path(name)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := s.step(); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, mark)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := btrfs.Sync(s.root); err != nil { // from now on it is not taken for a whole one
		return err
	}
	all, err := s.volumes(dir)
	if err != nil {
		return err
	}
	for _, v := range all {
		if err := s.step(); err != nil {
			return err
		}
		if err := btrfs.Delete(v.path(dir)); err != nil {
			return err
		}
	}
	if err := s.step(); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}
