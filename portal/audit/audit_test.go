package audit

import (
	"path/filepath"
	"testing"
	"time"

	"allotment/portal/store"
)

func newLog(t *testing.T, now *time.Time) *Log {
	t.Helper()
	db, err := store.Open(filepath.Join(t.TempDir(), "portal.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return New(db, func() time.Time { return *now })
}

func record(t *testing.T, l *Log, kinds ...string) {
	t.Helper()
	for _, kind := range kinds {
		e := Entry{Actor: "anna", Kind: kind, Subject: "bert", Args: map[string]string{"group": "garden"}}
		if err := l.Record(e); err != nil {
			t.Fatal(err)
		}
	}
}

func recent(t *testing.T, l *Log, n int, before string) (kinds, last string) {
	t.Helper()
	found, err := l.Recent(n, before)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range found {
		kinds, last = kinds+e.Kind, e.ID
	}
	return kinds, last
}

func TestRecentInPages(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	l := newLog(t, &now)
	record(t, l, "a", "b")
	now = now.Add(-time.Hour) // a clock that is put back changes the times, not the order
	record(t, l, "c")
	kinds, last := recent(t, l, 2, "")
	if kinds != "cb" {
		t.Errorf("first page %q", kinds)
	}
	if kinds, _ := recent(t, l, 2, last); kinds != "a" {
		t.Errorf("second page %q", kinds)
	}
	if kinds, _ := recent(t, l, 0, ""); kinds != "" {
		t.Errorf("none of them are %q", kinds)
	}
	found, err := l.Recent(1, "")
	if err != nil || found[0].Actor != "anna" || found[0].Subject != "bert" || found[0].Args["group"] != "garden" ||
		!found[0].Time.Equal(now) {
		t.Errorf("%+v, error %v", found, err)
	}
}

func TestForgets(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	l := newLog(t, &now)
	record(t, l, "a", "b")
	now = now.Add(keep - time.Hour)
	record(t, l, "c")
	if kinds, _ := recent(t, l, 9, ""); kinds != "cba" {
		t.Errorf("before the time: %q", kinds)
	}
	now = now.Add(2 * time.Hour)
	record(t, l, "d")
	if kinds, _ := recent(t, l, 9, ""); kinds != "dc" {
		t.Errorf("after the time: %q", kinds)
	}
}
