package attempt

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"allotment/image"
	"allotment/init/durable"
)

// fileName is the record's name in the folder of the updater's state.
const fileName = "attempt.json"

// maxSize bounds the record in bytes: a journey's output is bounded by who runs it.
const maxSize = 4 << 20

// ErrDamaged says that the record is there and cannot be understood. The box goes on with what runs; the boot loader's
// counter ends a trial of which nothing is known.
var ErrDamaged = errors.New("the record of the last update is damaged")

var stages = []Stage{Fetching, Staged, Armed, Trial, Committed, Undoing, Undone}

// Load reads the record in the folder; nil if there is none.
func Load(dir string) (*Attempt, error) {
	path := filepath.Join(dir, fileName)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err == nil && info.Size() > maxSize:
		return nil, fmt.Errorf("cannot read %q: %w: it has %d bytes", path, ErrDamaged, info.Size())
	case err != nil:
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	a, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("cannot read %q: %w: %w", path, ErrDamaged, err)
	}
	return a, nil
}

// parse takes keys that it does not know: the record passes between two releases, and either can be the newer one.
func parse(b []byte) (*Attempt, error) {
	a := &Attempt{}
	if err := json.Unmarshal(b, a); err != nil {
		return nil, err
	}
	switch {
	case !slices.Contains(stages, a.Stage):
		return nil, fmt.Errorf("there is no stage %q", a.Stage)
	case a.Number < 1 || a.Starts < 0 || a.Untried < 0 || a.Forwards < 0:
		return nil, errors.New("a number is less than it can be")
	case a.From.RootHash == a.To.RootHash || !a.From.named() || !a.To.named():
		return nil, errors.New("it does not lead from a release to another")
	}
	return a, nil
}

func (s System) named() bool {
	return s.Version != "" && (s.Slot == image.SlotA || s.Slot == image.SlotB)
}

// Save makes a the record in the folder, durably: when it returns without error, the record is a for good; if the power
// is cut before, it is a or what it was.
func (a *Attempt) Save(dir string) error {
	b, err := json.MarshalIndent(a, "", "\t")
	if err != nil {
		return err
	}
	if _, err := parse(b); err != nil {
		return fmt.Errorf("cannot record the attempt: %w", err)
	}
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, fileName), append(b, '\n'), 0o600)
}

// Reach notes that a stage is reached at the time now.
func (a *Attempt) Reach(stage Stage, now time.Time) {
	a.Stage = stage
	a.Marks = append(a.Marks, Mark{stage, now})
}
