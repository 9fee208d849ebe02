package schedule

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"allotment/init/durable"
)

// seedSize is the number of bytes of a device's seed.
const seedSize = 16

// Seed is the device's seed in the updater's folder. Where there is none, or half of one, it is drawn from random.
func Seed(dir string, random io.Reader) ([]byte, error) {
	path := filepath.Join(dir, "seed")
	seed, err := os.ReadFile(path)
	if err == nil && len(seed) == seedSize {
		return seed, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	seed = make([]byte, seedSize)
	if _, err := io.ReadFull(random, seed); err != nil {
		return nil, fmt.Errorf("cannot draw the device's place in the waves: %w", err)
	}
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return seed, durable.WriteFile(path, seed, 0o600)
}
