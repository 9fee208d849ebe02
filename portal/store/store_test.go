package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

type thing struct{ Number int }

var things = NewBucket[thing]("things")

func open(t *testing.T, path string) *DB {
	t.Helper()
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestKeepsValues(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder", "portal.db")
	db := open(t, path)
	fill := func(tx *Tx) error { return errors.Join(things.Put(tx, "b", thing{2}), things.Put(tx, "a", thing{1})) }
	if err := db.Update(fill); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	err := open(t, path).View(func(tx *Tx) error {
		v, err := things.Get(tx, "b")
		if v.Number != 2 {
			t.Errorf("b is %d", v.Number)
		}
		if _, err := things.Get(tx, "c"); !errors.Is(err, ErrNotFound) {
			t.Errorf("a value that is not there: %v", err)
		}
		if _, err := NewBucket[thing]("others").Get(tx, "b"); !errors.Is(err, ErrNotFound) {
			t.Errorf("a bucket that is not there: %v", err)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestAllOrNothing(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "portal.db"))
	failure := errors.New("failure")
	err := db.Update(func(tx *Tx) error {
		if err := things.Put(tx, "a", thing{1}); err != nil {
			return err
		}
		return failure
	})
	if !errors.Is(err, failure) {
		t.Errorf("error %v", err)
	}
	if got := keys(t, db, ""); got != "" {
		t.Errorf("%q was stored", got)
	}
	if err := db.View(func(tx *Tx) error { return things.Put(tx, "a", thing{1}) }); err == nil {
		t.Error("View can write")
	}
}

func keys(t *testing.T, db *DB, prefix string) string {
	t.Helper()
	var found []string
	if err := db.View(func(tx *Tx) error {
		return things.All(tx, prefix, func(key string, _ thing) bool {
			found = append(found, key)
			return true
		})
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(found, " ")
}

// TestAllWhileRemoving removes what it walks over, of so many values that the tree has several pages.
func TestAllWhileRemoving(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "portal.db"))
	const n = 1000
	seen := 0
	err := db.Update(func(tx *Tx) error {
		for i := range n {
			if err := things.Put(tx, fmt.Sprintf("p/%04d", i), thing{i}); err != nil {
				return err
			}
		}
		return errors.Join(things.Put(tx, "o", thing{}), things.Put(tx, "q", thing{}))
	})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *Tx) error {
		return things.All(tx, "p/", func(key string, v thing) bool {
			seen++
			return things.Delete(tx, key) == nil
		})
	})
	if err != nil || seen != n {
		t.Errorf("saw %d, error %v", seen, err)
	}
	if got := keys(t, db, ""); got != "o q" {
		t.Errorf("left are %q", got)
	}
}

func TestBackwards(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "portal.db"))
	if err := db.Update(func(tx *Tx) error {
		for _, k := range []string{"a", "c", "e"} {
			if err := things.Put(tx, k, thing{}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for before, want := range map[string]string{"": "eca", "a": "", "b": "a", "c": "a", "e": "ca", "f": "eca"} {
		got := ""
		if err := db.View(func(tx *Tx) error {
			return things.Backwards(tx, before, func(key string, _ thing) bool { got += key; return true })
		}); err != nil || got != want {
			t.Errorf("before %q: %q, error %v; want %q", before, got, err, want)
		}
	}
}

func TestNumbers(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "portal.db"))
	for want := uint64(1); want < 4; want++ {
		if err := db.Update(func(tx *Tx) error {
			n, err := things.Next(tx)
			if n != want {
				t.Errorf("number %d, want %d", n, want)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}
