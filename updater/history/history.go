// Package history keeps what became of updates: every attempt that has ended, with its letter, and the releases that are not
// tried again here. Files that are damaged cost no more than themselves.
package history

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"allotment/image"
	"allotment/init/durable"
	"allotment/updater/attempt"
	"allotment/updater/letter"
)

// Entry is one attempt that has ended.
type Entry struct {
	Attempt attempt.Attempt `json:"attempt"`
	Letter  letter.Letter   `json:"letter"`
	Ended   time.Time       `json:"ended"` // by the box's clock
}

// folder is where entries lie below the updater's folder.
const folder = "history"

// kept is how many entries there are at most; older ones go.
const kept = 100

// file is the name of an attempt's entry. One that was committed and later taken back by hand has one of each.
func file(a *attempt.Attempt) string { return fmt.Sprintf("%d-%s.json", a.Number, a.Stage) }

// Has tells whether the attempt's end is kept in dir, the updater's folder.
func Has(dir string, a *attempt.Attempt) bool {
	_, err := os.Stat(filepath.Join(dir, folder, file(a)))
	return err == nil
}

// Add keeps an entry, durably; doing so again is harmless.
func Add(dir string, e Entry) error {
	dir = filepath.Join(dir, folder)
	if err := durable.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot keep an update's history: %w", err)
	}
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot keep an update's history: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(dir, file(&e.Attempt)), b, 0o644); err != nil {
		return err
	}
	return forget(dir)
}

// forget removes the oldest entries beyond those kept.
func forget(dir string) error {
	names, err := list(dir)
	if err != nil {
		return err
	}
	for _, n := range names[min(kept, len(names)):] {
		if err := os.Remove(filepath.Join(dir, n)); err != nil {
			return fmt.Errorf("cannot forget an old update: %w", err)
		}
	}
	return nil
}

// list gives the names of the entries' files, the newest first.
func list(dir string) ([]string, error) {
	all, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot list past updates: %w", err)
	}
	var names []string
	for _, f := range all {
		if _, ok := number(f.Name()); ok {
			names = append(names, f.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		x, _ := number(a)
		y, _ := number(b)
		return cmp.Or(cmp.Compare(y, x), cmp.Compare(b, a)) // undone is after committed
	})
	return names, nil
}

func number(name string) (int, bool) {
	n, rest, ok := strings.Cut(name, "-")
	i, err := strconv.Atoi(n)
	return i, ok && err == nil && strings.HasSuffix(rest, ".json")
}

// All returns the entries, the newest first. The error tells of those that cannot be read.
func All(dir string) ([]Entry, error) {
	dir = filepath.Join(dir, folder)
	names, err := list(dir)
	errs := []error{err}
	var all []Entry
	for _, n := range names {
		var e Entry
		if err := read(filepath.Join(dir, n), &e); err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, e)
	}
	return all, errors.Join(errs...)
}

// Bad is a release that failed here and is not tried again.
type Bad struct {
	Release image.Digest  `json:"release"` // SHA-256 of its description
	Version image.Version `json:"version"`
	Why     string        `json:"why"`
	Time    time.Time     `json:"time"`
}

func badFile(dir string) string { return filepath.Join(dir, "bad.json") }

// BadReleases returns the releases that are not tried again. A list that cannot be read is an error and empty.
func BadReleases(dir string) ([]Bad, error) {
	var all []Bad
	if err := read(badFile(dir), &all); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return all, nil
}

// AddBad keeps a release from being tried again, durably. A list that cannot be read is begun anew.
func AddBad(dir string, b Bad) error {
	all, _ := BadReleases(dir)
	all = slices.DeleteFunc(all, func(o Bad) bool { return o.Release == b.Release })
	text, err := json.MarshalIndent(append(all, b), "", "  ")
	if err != nil {
		return fmt.Errorf("cannot remember a release that failed: %w", err)
	}
	return durable.WriteFile(badFile(dir), text, 0o644)
}

func read(path string, v any) error {
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return fmt.Errorf("cannot read %q: %w", path, err)
	}
	return nil
}
