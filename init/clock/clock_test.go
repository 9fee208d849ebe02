package clock

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func TestFloor(t *testing.T) {
	later := epoch.AddDate(0, 1, 0)
	for _, c := range []struct{ now, last, want time.Time }{
		{time.Unix(0, 0), time.Time{}, epoch}, // a board without a clock
		{time.Unix(0, 0), later, later},
		{later, epoch, later},
		{later, later.Add(time.Hour), later.Add(time.Hour)},
	} {
		if got := Floor(c.now, epoch, c.last); !got.Equal(c.want) {
			t.Errorf("clock %v, last %v: %v", c.now, c.last, got)
		}
	}
}

func TestAgree(t *testing.T) {
	now := epoch.AddDate(0, 0, 20)
	ms := time.Millisecond
	s := func(offset, err time.Duration) Sample { return Sample{Offset: offset, Error: err} }
	for _, c := range []struct {
		name     string
		samples  []Sample
		from, to time.Duration
		fails    bool
	}{
		{name: "none", fails: true},
		{name: "one", samples: []Sample{s(70*ms, 10*ms)}, from: 60 * ms, to: 80 * ms},
		{name: "three", samples: []Sample{s(70*ms, 10*ms), s(75*ms, 10*ms), s(72*ms, 1*ms)}, from: 71 * ms, to: 73 * ms},
		{name: "one lies", samples: []Sample{s(70*ms, 10*ms), s(75*ms, 10*ms), s(time.Hour, ms)}, from: 65 * ms, to: 80 * ms},
		{name: "one of two lies", samples: []Sample{s(70*ms, 10*ms), s(time.Hour, ms)}, fails: true},
		{name: "two pairs", samples: []Sample{s(0, ms), s(0, ms), s(time.Hour, ms), s(time.Hour, ms)}, fails: true},
		{name: "before the epoch", samples: []Sample{s(-21*24*time.Hour, ms)}, fails: true},
		{name: "two before the epoch", samples: []Sample{s(0, ms), s(-21*24*time.Hour, ms), s(-21*24*time.Hour, ms)}, fails: true},
		{name: "far future", samples: []Sample{s(25*365*24*time.Hour, ms)}, fails: true},
	} {
		got, err := Agree(c.samples, now, epoch)
		if c.fails {
			if !errors.Is(err, errDisagree) {
				t.Errorf("%s: %v, %v", c.name, got, err)
			}
			continue
		}
		if err != nil || got < c.from || got > c.to {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		offset time.Duration
		first  bool
		want   Correction
	}{
		{100 * time.Microsecond, true, Leave},
		{-100 * time.Millisecond, true, Step},
		{-100 * time.Millisecond, false, Slew},
		{time.Hour, false, Step},
		{-time.Hour, true, Step},
	} {
		if got := Decide(c.offset, c.first); got != c.want {
			t.Errorf("%v first=%v: %v", c.offset, c.first, got)
		}
	}
}

func TestLastTimeIsKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "time")
	c := New(epoch, nil, nil, func(error) {})
	c.file = file
	if err := c.Save(); err != nil {
		t.Fatal(err)
	}
	got, err := readTime(file)
	if err != nil || time.Since(got) > time.Minute {
		t.Errorf("read %v, %v", got, err)
	}
	if err := os.WriteFile(file, []byte("yesterday"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readTime(file); err == nil {
		t.Error("nonsense was taken for a time")
	}
}
