// Package fileset keeps a folder of small files that change all at once, for programs that see the folder through a bind
// mount. Such a mount holds on to the folder itself, so the folder is never replaced. In it, each name is a link through
// one other link, and exchanging that one exchanges all files:
//
//	prosody.cfg.lua -> .current/prosody.cfg.lua
//	.current        -> .set-2
//	.previous       -> .set-1
//	.set-1/prosody.cfg.lua
//	.set-2/prosody.cfg.lua
//
// The folder is meant for a tmpfs: nothing is synced.
package fileset

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// File is one file of a set. No name may have a slash, or begin with a dot.
type File struct {
	Name     string
	Content  []byte
	UID, GID int // the host's
	Mode     fs.FileMode
}

const (
	currentLink  = ".current"
	previousLink = ".previous"
	setPrefix    = ".set-"
)

// Exchange makes the files those of the folder, all at once, and remembers the set that was there as the previous one.
// Names that are not in the set any more vanish a moment later, and new ones come a moment sooner. The folder is made if
// it is not there.
func Exchange(dir string, files []File) error {
	if err := exchange(dir, files); err != nil {
		return fmt.Errorf("cannot exchange the files of %q: %w", dir, err)
	}
	return nil
}

func exchange(dir string, files []File) error {
	for i, f := range files {
		if !validName(f.Name) || slices.ContainsFunc(files[:i], func(o File) bool { return o.Name == f.Name }) {
			return fmt.Errorf("the file name %q cannot be used, or is there twice", f.Name)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	next, err := nextSet(dir)
	if err != nil {
		return err
	}
	if err := writeSet(filepath.Join(dir, next), files); err != nil {
		return errors.Join(err, os.RemoveAll(filepath.Join(dir, next)))
	}
	current, err := os.Readlink(filepath.Join(dir, currentLink))
	if err == nil {
		err = relink(current, filepath.Join(dir, previousLink))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := addNames(dir, next); err != nil {
		return err
	}
	if err := relink(next, filepath.Join(dir, currentLink)); err != nil {
		return err
	}
	return tidy(dir)
}

// Restore makes the previous set the current one again. It is an error if there is none.
func Restore(dir string) error {
	if err := restore(dir); err != nil {
		return fmt.Errorf("cannot restore the files of %q: %w", dir, err)
	}
	return nil
}

func restore(dir string) error {
	previous, err := os.Readlink(filepath.Join(dir, previousLink))
	if err != nil {
		return err
	}
	if err := addNames(dir, previous); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, previousLink), filepath.Join(dir, currentLink)); err != nil {
		return err
	}
	return tidy(dir)
}

// Read returns the contents of the current set by its names; of none if there is none.
func Read(dir string) (map[string][]byte, error) {
	all := map[string][]byte{}
	names, err := os.ReadDir(filepath.Join(dir, currentLink))
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the files of %q: %w", dir, err)
	}
	for _, e := range names {
		if all[e.Name()], err = os.ReadFile(filepath.Join(dir, currentLink, e.Name())); err != nil {
			return nil, fmt.Errorf("cannot read the files of %q: %w", dir, err)
		}
	}
	return all, nil
}

func validName(name string) bool {
	return name != "" && len(name) < 256 && name[0] != '.' && !strings.ContainsAny(name, "/\x00")
}

// nextSet is a name that no set of the folder has.
func nextSet(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	highest := 0
	for _, e := range entries {
		if digits, ok := strings.CutPrefix(e.Name(), setPrefix); ok {
			if n, err := strconv.Atoi(digits); err == nil {
				highest = max(highest, n)
			}
		}
	}
	return setPrefix + strconv.Itoa(highest+1), nil
}

func writeSet(set string, files []File) error {
	if err := os.Mkdir(set, 0o755); err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(set, f.Name)
		if err := os.WriteFile(path, f.Content, 0o600); err != nil {
			return err
		}
		if err := errors.Join(os.Chown(path, f.UID, f.GID), os.Chmod(path, f.Mode)); err != nil {
			return err
		}
	}
	return nil
}

// relink makes a link at path that leads to target, in place of what is there.
func relink(target, path string) error {
	next := filepath.Join(filepath.Dir(path), ".new")
	if err := os.Symlink(target, next); errors.Is(err, fs.ErrExist) { // left by a process that ended there
		if err := os.Remove(next); err != nil {
			return err
		}
		return relink(target, path)
	} else if err != nil {
		return err
	}
	return os.Rename(next, path)
}

// addNames makes the links of the set's names. Until the set is the current one, new ones lead nowhere.
func addNames(dir, set string) error {
	entries, err := os.ReadDir(filepath.Join(dir, set))
	if err != nil {
		return err
	}
	for _, e := range entries {
		err := os.Symlink(filepath.Join(currentLink, e.Name()), filepath.Join(dir, e.Name()))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// tidy removes sets that are neither current nor previous, and names that the current set does not have.
func tidy(dir string) error {
	current, err := os.Readlink(filepath.Join(dir, currentLink))
	if err != nil {
		return err
	}
	previous, err := os.Readlink(filepath.Join(dir, previousLink))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), setPrefix) && e.Name() != current && e.Name() != previous {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
		if e.Name()[0] == '.' {
			continue
		}
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}
