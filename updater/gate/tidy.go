package gate

import (
	"errors"
	"slices"
	"time"

	"allotment/updater/attempt"
	"allotment/updater/letter"
	"allotment/updater/snapshot"
)

// Tidy removes the copies of data that no way back needs any more. While an attempt is armed, on trial or being undone, it
// removes none.
func (g *Gate) Tidy() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	keep := []string{snapshot.Backup, snapshot.Restored}
	switch a := g.Attempt(); {
	case a == nil:
	case a.Stage == attempt.Armed || a.Stage == attempt.Trial || a.Stage == attempt.Undoing:
		return nil
	case a.Stage == attempt.Committed && a.To == g.config.Running && g.config.Now().Before(backUntil(a)):
		keep = append(keep, string(a.To.Version))
	}
	names, err := g.config.Snapshots.List()
	for _, name := range names {
		if !slices.Contains(keep, name) {
			err = errors.Join(err, g.config.Snapshots.Remove(name))
		}
	}
	return err
}

// backUntil is until when an officer can go back from the update.
func backUntil(a *attempt.Attempt) time.Time {
	i := slices.IndexFunc(a.Marks, func(m attempt.Mark) bool { return m.Stage == attempt.Committed })
	if i < 0 {
		return time.Time{}
	}
	return a.Marks[i].Time.AddDate(0, 0, letter.KeptDays)
}
