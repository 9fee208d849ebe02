// Package audit keeps who did what to whom in the portal. It stores kinds and names; the words are the languages'
// messages "audit.KIND" with {actor}, {subject} and the arguments' names in braces.
package audit

import (
	"fmt"
	"time"

	"allotment/portal/store"
)

// keep is how long an entry is kept, and keepMost how many there are at most.
const (
	keep     = 2 * 365 * 24 * time.Hour
	keepMost = 100_000
)

// Entry is one thing that was done.
type Entry struct {
	ID      string            `json:"id"` // later entries have greater ones
	Time    time.Time         `json:"time"`
	Actor   string            `json:"actor,omitempty"` // name of a person; empty: the box
	Kind    string            `json:"kind"`            // such as person.deactivated
	Subject string            `json:"subject,omitempty"`
	Args    map[string]string `json:"args,omitempty"`
}

// Log is the list of entries.
type Log struct {
	db  *store.DB
	now func() time.Time
}

var entries = store.NewBucket[Entry]("audit")

// New is the log in db.
func New(db *store.DB, now func() time.Time) *Log { return &Log{db, now} }

// Record adds an entry; the log gives it its ID and its time.
func (l *Log) Record(e Entry) error {
	err := l.db.Update(func(tx *store.Tx) error { return l.RecordIn(tx, e) })
	if err != nil {
		return fmt.Errorf("cannot record %q: %w", e.Kind, err)
	}
	return nil
}

// RecordIn adds an entry that counts if the transaction does.
func (l *Log) RecordIn(tx *store.Tx, e Entry) error {
	n, err := entries.Next(tx)
	if err != nil {
		return err
	}
	e.ID, e.Time = fmt.Sprintf("%016x", n), l.now().UTC()
	if err := entries.Put(tx, e.ID, e); err != nil {
		return err
	}
	return l.forget(tx, n)
}

// forget removes what is too old or too much: at most a few each time, for each time adds one.
func (l *Log) forget(tx *store.Tx, newest uint64) error {
	limit := l.now().Add(-keep)
	var failed error
	removed := 0
	err := entries.All(tx, "", func(id string, e Entry) bool {
		tooMuch := newest > keepMost && id <= fmt.Sprintf("%016x", newest-keepMost)
		if removed == 4 || !tooMuch && e.Time.After(limit) {
			return false
		}
		removed++
		failed = entries.Delete(tx, id)
		return failed == nil
	})
	if failed != nil {
		return failed
	}
	return err
}

// Recent returns up to n entries, the newest first, that are older than the one with ID before; empty: the newest.
func (l *Log) Recent(n int, before string) ([]Entry, error) {
	var found []Entry
	err := l.db.View(func(tx *store.Tx) error {
		return entries.Backwards(tx, before, func(_ string, e Entry) bool {
			if len(found) < n {
				found = append(found, e)
			}
			return len(found) < n
		})
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the audit log: %w", err)
	}
	return found, nil
}
