// Package state opens the state partition: the one place of the device that is written. On the first boot it is grown to
// the disk and made a btrfs, and the layers that the image brought along are copied into its store. Every step can be cut
// off at any point and is taken up again by the next boot.
package state

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"allotment/image"
	"allotment/init/reaper"
	"allotment/init/state/btrfs"
)

// partitionName is the state partition's name in the partition table.
const partitionName = "state"

// seededMark exists once the store has had all layers of the seed, and the seed's place may be overwritten.
const seededMark = "system/seeded"

// Config says what to open.
type Config struct {
	Disk   string         // the boot disk, such as /dev/vda (boot.Facts)
	Root   string         // where to mount, /state
	Layers []image.Layer  // that the system needs, in the order of the seed (image.Manifest)
	Seed   image.Seed     // where a fresh image has them
	Reaper *reaper.Reaper // starts mkfs.btrfs
	Log    *slog.Logger
}

// Store is the mounted state.
type Store struct {
	Config
	device string           // of the partition
	broken map[string]error // why a layer, by its file name, cannot be used
}

// Open mounts the state and makes sure of every layer, each of which is measured. A layer that is damaged is taken from
// the seed again if that is still whole; otherwise Layer tells what is wrong with it, and the others can be used.
func Open(ctx context.Context, c Config) (*Store, error) {
	s := &Store{Config: c, broken: map[string]error{}}
	device, err := growPartition(c.Disk, c.Log)
	if err != nil {
		return nil, fmt.Errorf("cannot grow the state partition: %w", err)
	}
	s.device = device
	if err := s.makeFileSystem(ctx); err != nil {
		return nil, fmt.Errorf("cannot make the state's file system: %w", err)
	}
	err = unix.Mount(device, c.Root, "btrfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOATIME, "compress=zstd:3")
	if err != nil {
		return nil, fmt.Errorf("cannot mount the state %q: %w", device, err)
	}
	if err := s.fill(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// fill does what is to be done in the mounted file system.
func (s *Store) fill(ctx context.Context) error {
	for _, dir := range []string{"layers", "volumes", "logs", "system"} {
		if err := os.MkdirAll(filepath.Join(s.Root, dir), 0o755); err != nil {
			return fmt.Errorf("cannot lay out the state: %w", err)
		}
	}
	if err := btrfs.EnableQuota(s.Root); err != nil {
		return fmt.Errorf("cannot count what volumes take: %w", err)
	}
	if err := s.checkLayers(ctx); err != nil {
		return err
	}
	mark := filepath.Join(s.Root, seededMark)
	if _, err := os.Stat(mark); errors.Is(err, fs.ErrNotExist) {
		if err := s.allLayers(); err != nil {
			return fmt.Errorf("cannot seed the store: %w", err)
		}
		if err := os.WriteFile(mark, nil, 0o644); err != nil {
			return fmt.Errorf("cannot mark the store as seeded: %w", err)
		}
		if err := btrfs.Sync(s.Root); err != nil {
			return fmt.Errorf("cannot mark the store as seeded: %w", err)
		}
	}
	// Only now: growing gives the seed's place to the file system.
	if err := btrfs.ResizeMax(s.Root); err != nil {
		return fmt.Errorf("cannot grow the state's file system: %w", err)
	}
	if err := s.limitVolumes(); err != nil {
		return fmt.Errorf("cannot keep room for the system itself: %w", err)
	}
	return nil
}

// Close unmounts the state.
func (s *Store) Close() error {
	if err := unix.Unmount(s.Root, 0); err != nil {
		return fmt.Errorf("cannot unmount the state: %w", err)
	}
	return nil
}
