package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"allotment/init/plan"
	"allotment/init/state/btrfs"
)

func (s *Store) volumePath(module, volume string) string {
	return filepath.Join(s.Root, "volumes", module, volume)
}

// Volume returns the folder of a module's volume, with its limit set. A new one is a subvolume that the declared user owns,
// with mode 0750: it appears whole or not at all.
func (s *Store) Volume(module string, v plan.Volume) (string, error) {
	path := s.volumePath(module, v.Name)
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = s.makeVolume(path, v)
	}
	if err == nil {
		err = s.limitVolume(path, v)
	}
	if err != nil {
		return "", fmt.Errorf("cannot open volume %q of module %q: %w", v.Name, module, err)
	}
	return path, nil
}

func (s *Store) makeVolume(path string, v plan.Volume) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp := filepath.Join(dir, "."+v.Name+".new") // may be left from a cut
	if err := btrfs.CreateSubvolume(tmp); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Chmod(tmp, 0o750); err != nil {
		return err
	}
	if err := os.Chown(tmp, int(v.UID), int(v.GID)); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// limitVolume gives the volume at path what this release declares, which may differ from what it had.
func (s *Store) limitVolume(path string, v plan.Volume) error {
	if err := btrfs.SetNoCOW(path, v.NoCOW); err != nil {
		return err
	}
	id, err := btrfs.SubvolumeID(path)
	if err != nil {
		return err
	}
	if err := btrfs.Assign(s.Root, id); err != nil {
		return err
	}
	return btrfs.SetLimit(s.Root, id, v.Quota)
}

// formatAttribute is the extended attribute of a volume's folder that holds the version of its content. Modules can
// neither read nor write attributes whose names begin with "trusted.".
const formatAttribute = "trusted.allotment.format"

// Format returns the version of a volume's content that migrations have led to, 0 at first.
func (s *Store) Format(module, volume string) (int, error) {
	path := s.volumePath(module, volume)
	b := make([]byte, 16)
	n, err := unix.Getxattr(path, formatAttribute, b)
	if errors.Is(err, unix.ENODATA) {
		return 0, nil
	}
	var format int
	if err == nil {
		format, err = strconv.Atoi(string(b[:n]))
	}
	if err != nil {
		return 0, fmt.Errorf("cannot read the format of %q: %w", path, err)
	}
	return format, nil
}

// SetFormat notes the version of a volume's content, durably: what a migration has written is on the disk before the
// note is.
func (s *Store) SetFormat(module, volume string, format int) error {
	path := s.volumePath(module, volume)
	err := btrfs.Sync(path)
	if err == nil {
		err = unix.Setxattr(path, formatAttribute, []byte(strconv.Itoa(format)), 0)
	}
	if err == nil {
		err = btrfs.Sync(path)
	}
	if err != nil {
		return fmt.Errorf("cannot note format %d of %q: %w", format, path, err)
	}
	return nil
}
