package history

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"allotment/image"
	"allotment/updater/attempt"
	"allotment/updater/letter"
)

func digest(digit string) image.Digest { return image.Digest("sha256:" + strings.Repeat(digit, 64)) }

func entry(n int, s attempt.Stage) Entry {
	return Entry{Attempt: attempt.Attempt{Number: n, Stage: s, Release: digest("a"), From: attempt.System{Version: "1.0"},
		To: attempt.System{Version: "2.0"}}, Letter: letter.Letter{Subject: "about it"}, Ended: time.Unix(int64(n), 0)}
}

func TestHistory(t *testing.T) {
	dir := t.TempDir()
	if all, err := All(dir); err != nil || len(all) != 0 {
		t.Errorf("before any: %v, %v", all, err)
	}
	for _, e := range []Entry{entry(9, attempt.Undone), entry(10, attempt.Committed), entry(10, attempt.Undone), entry(10, attempt.Undone)} {
		if Has(dir, &e.Attempt) && e.Attempt.Stage == attempt.Committed {
			t.Error("it is there before it was added")
		}
		if err := Add(dir, e); err != nil {
			t.Fatal(err)
		}
		if !Has(dir, &e.Attempt) {
			t.Error("it is not there after it was added")
		}
	}
	all, err := All(dir)
	if err != nil || len(all) != 3 || all[0].Attempt.Stage != attempt.Undone || all[1].Attempt.Stage != attempt.Committed ||
		all[2].Attempt.Number != 9 || all[0].Letter.Subject != "about it" {
		t.Errorf("%+v, %v", all, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "history", "10-committed.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if all, err := All(dir); err == nil || len(all) != 2 {
		t.Errorf("with a damaged one: %d, %v", len(all), err)
	}
}

// The history does not grow for ever, and the newest is what is kept.
func TestHistoryIsBounded(t *testing.T) {
	dir := t.TempDir()
	for n := range kept + 3 {
		if err := Add(dir, entry(n+1, attempt.Committed)); err != nil {
			t.Fatal(err)
		}
	}
	all, err := All(dir)
	if err != nil || len(all) != kept || all[0].Attempt.Number != kept+3 {
		t.Errorf("%d kept, %v", len(all), err)
	}
}

func TestBadReleases(t *testing.T) {
	dir := t.TempDir()
	for _, b := range []Bad{{Release: digest("a"), Version: "1.0"}, {Release: digest("b"), Version: "2.0"}, {Release: digest("a"), Version: "1.0", Why: "again"}} {
		if err := AddBad(dir, b); err != nil {
			t.Fatal(err)
		}
	}
	all, err := BadReleases(dir)
	if err != nil || len(all) != 2 || all[1].Release != digest("a") || all[1].Why != "again" {
		t.Errorf("%+v, %v", all, err)
	}
	if err := os.WriteFile(badFile(dir), []byte("[{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := BadReleases(dir); err == nil {
		t.Error("a damaged list is taken")
	}
	if err := AddBad(dir, Bad{Release: digest("c"), Version: "3.0"}); err != nil {
		t.Fatal(err)
	}
	if all, err := BadReleases(dir); err != nil || len(all) != 1 {
		t.Errorf("begun anew: %+v, %v", all, err)
	}
}
