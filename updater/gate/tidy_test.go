package gate

import (
	"maps"
	"slices"
	"testing"
	"time"

	"allotment/updater/attempt"
)

// TestTidy keeps what a way back needs, and nothing else but what is not an update's.
func TestTidy(t *testing.T) {
	now := time.Unix(1e9, 0) // of the gate
	for _, c := range []struct {
		stage attempt.Stage
		at    time.Time
		runs  attempt.System
		want  []string
	}{
		{attempt.Committed, now.AddDate(0, 0, -6), newer, []string{"2.0", "backup", "restored"}},
		{attempt.Committed, now.AddDate(0, 0, -8), newer, []string{"backup", "restored"}},
		{attempt.Committed, now, old, []string{"backup", "restored"}},
		{attempt.Fetching, now, old, []string{"backup", "restored"}},
		{attempt.Undone, now, old, []string{"backup", "restored"}},
		{attempt.Armed, now, old, []string{"1.0", "2.0", "backup", "restored"}},
		{attempt.Trial, now, newer, []string{"1.0", "2.0", "backup", "restored"}},
		{attempt.Undoing, now, old, []string{"1.0", "2.0", "backup", "restored"}},
	} {
		m := newMachine(t)
		m.copies = map[string]string{"1.0": "", "2.0": "", "backup": "", "restored": ""}
		a := &attempt.Attempt{Number: 1, From: old, To: newer, Release: release}
		a.Reach(c.stage, c.at)
		if err := a.Save(m.dir); err != nil {
			t.Fatal(err)
		}
		err := m.gate(c.runs).Tidy()
		if got := slices.Sorted(maps.Keys(m.copies)); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s at %v: %q are left, %v; want %q", c.stage, c.at, got, err, c.want)
		}
	}
	m := newMachine(t)
	m.copies, m.broken = map[string]string{"1.0": ""}, []string{"remove"}
	if err := m.gate(old).Tidy(); err == nil {
		t.Error("what cannot be removed is no error")
	}
}
