// Package settings keeps what officers have set: the organisation's own fields and those of each module's form. What
// counts is, field by field, what was stored, else what the profile says, else the module's default.
package settings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"allotment/image"
	"allotment/init/durable"
)

// stored is the file's content, see docs/formats/settings.md. What this release does not know stays in it.
type stored struct {
	Format       int                       `json:"format"`
	Organisation map[string]string         `json:"organisation"`
	Modules      map[string]map[string]any `json:"modules"`
}

const (
	format   = 1
	fileName = "settings.json"
	lastName = "settings.last.json" // the state before, to fall back to
	maxFile  = 8 << 20              // bytes
)

// Store is the settings in the state partition.
type Store struct {
	dir string

	mu  sync.Mutex
	now Values
}

// Open reads the settings in dir, which is made if it is not there. A file that cannot be read is put aside with the
// ending ".damaged", log is told, and the state before the last change is taken, or else no settings at all.
func Open(dir string, m *image.Manifest, log *slog.Logger) (*Store, error) {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot open the settings: %w", err)
	}
	s := &Store{dir: dir, now: Values{manifest: m, stored: stored{Format: format}}}
	for _, name := range []string{fileName, lastName} {
		path := filepath.Join(dir, name)
		got, err := readFile(path)
		if err == nil {
			s.now.stored = got
			break
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		log.Error("settings cannot be read, the state before is taken", "file", path, "error", err)
		if err := os.Rename(path, path+".damaged"); err != nil {
			return nil, fmt.Errorf("cannot put damaged settings aside: %w", err)
		}
	}
	return s, nil
}

// Values returns the settings as they are.
func (s *Store) Values() Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// Save makes v the settings, for good when it returns. After an error the old ones count.
func (s *Store) Save(v Values) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, file := range []struct {
		name   string
		stored stored
	}{{lastName, s.now.stored}, {fileName, v.stored}} { // in this order there is always a whole one
		b, err := json.MarshalIndent(file.stored, "", "  ")
		if err == nil && len(b) >= maxFile {
			err = fmt.Errorf("%d bytes are too many", len(b))
		}
		if err == nil {
			err = durable.WriteFile(filepath.Join(s.dir, file.name), append(b, '\n'), 0o600)
		}
		if err != nil {
			return fmt.Errorf("cannot save the settings: %w", err)
		}
	}
	s.now = v
	return nil
}

func readFile(path string) (stored, error) {
	f, err := os.Open(path)
	if err != nil {
		return stored{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return stored{}, err
	}
	if len(b) > maxFile {
		return stored{}, fmt.Errorf("%q has more than %d bytes", path, maxFile)
	}
	return parse(b)
}

// parse reads the file's content. Keys beside the three are an error: only a later format would have some.
func parse(b []byte) (stored, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	d.DisallowUnknownFields()
	var s stored
	if err := d.Decode(&s); err != nil {
		return stored{}, err
	}
	if _, err := d.Token(); err != io.EOF {
		return stored{}, errors.New("there is more than one value")
	}
	if s.Format != format {
		return stored{}, fmt.Errorf("the format is %d, and this release reads %d", s.Format, format)
	}
	return s, nil
}
