package schedule

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"allotment/image"
)

const digest = image.Digest("sha256:0000000000000000000000000000000000000000000000000000000000000001")

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func seedOf(n int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// The share of devices whose turn has come is the wave's, to 1 %, at any time; and the first of one release are not those of another.
func TestTurnIsUniform(t *testing.T) {
	const devices = 100000
	wave := image.Wave{Start: start.Unix(), Hours: 72, Kind: "default"}
	const steps = 24
	var come [steps + 1]int
	early := 0
	for n := range devices {
		turn := Turn(wave, seedOf(n), digest)
		if turn.Before(start) || !turn.Before(start.Add(72*time.Hour)) {
			t.Fatalf("turn of %d is %v", n, turn)
		}
		for s := range come {
			if !turn.After(start.Add(72 * time.Hour / steps * time.Duration(s))) {
				come[s]++
			}
		}
		if turn.Before(start.Add(7*time.Hour)) && Turn(wave, seedOf(n), digest+"2").Before(start.Add(7*time.Hour)) {
			early++
		}
	}
	for s, n := range come {
		if got, want := float64(n)/devices, float64(s)/steps; math.Abs(got-want) > 0.01 {
			t.Errorf("after %d of %d parts %.3f have their turn, want %.3f", s, steps, got, want)
		}
	}
	if want := devices * 7 / 72 * 7 / 72; math.Abs(float64(early-want)) > 100 {
		t.Errorf("%d are early for both releases, want %d", early, want)
	}
}

func TestTurnOfOddWaves(t *testing.T) {
	for _, hours := range []int{0, -1} {
		if turn := Turn(image.Wave{Start: start.Unix(), Hours: hours}, seedOf(1), digest); !turn.Equal(start) {
			t.Errorf("with %d hours the turn is %v", hours, turn)
		}
	}
	turn := Turn(image.Wave{Start: start.Unix(), Hours: math.MaxInt}, seedOf(1), digest)
	if turn.Before(start) || turn.After(start.AddDate(1, 0, 0)) {
		t.Errorf("turn in an endless wave is %v", turn)
	}
}

// Every device's moment lies in its window by the clock on the wall, not before its turn, and in the first window that can be:
// in zones with and without summer time, on both days of its change, in windows that go over midnight.
func TestMomentIsInTheWindow(t *testing.T) {
	windows := []Window{{}, {"02:00", "05:00"}, {"22:30", "04:00"}, {"23:00", "00:00"}, {"00:00", "24:61"},
		{"02:15", "02:45"}, {"13:00", "13:00"}}
	for _, name := range []string{"UTC", "Europe/London", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe",
		"Asia/Kolkata", "Africa/Cairo", "America/Santiago"} {
		z := zone(t, name)
		for _, w := range windows {
			for day := range 366 {
				now := time.Date(2027, 1, 1, 12, 0, 0, 0, z).AddDate(0, 0, day)
				seed := seedOf(day)
				wave := image.Wave{Start: now.Unix(), Hours: 5}
				when, why := Due(Policy{Window: w}, wave, seed, digest, now, z)
				if problem := misplaced(w, when.In(z)); problem != "" {
					t.Fatalf("%s, window %v, %v: moment %v: %s (%s)", name, w, now, when.In(z), problem, why)
				}
				turn := Turn(wave, seed, digest)
				if when.Before(turn) || when.After(turn.Add(73*time.Hour)) {
					t.Fatalf("%s, window %v: turn %v, moment %v", name, w, turn, when)
				}
				if when.After(now) == (why == "It is due: the maintenance window is open.") {
					t.Fatalf("%v at %v: %s", when, now, why)
				}
			}
		}
	}
}

// misplaced says what is wrong with a moment by its hour and minute alone.
func misplaced(w Window, moment time.Time) string {
	from, to := w.times()
	at, a, b := moment.Hour()*60+moment.Minute(), from.Hour()*60+from.Minute(), to.Hour()*60+to.Minute()
	if a < b && (at < a || at >= b) || a > b && at < a && at >= b {
		return fmt.Sprintf("not from %s to %s", from.Format("15:04"), to.Format("15:04"))
	}
	return ""
}

func TestMisplacedTwin(t *testing.T) {
	for _, hour := range []int{1, 5, 12} {
		if misplaced(Window{}, time.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC)) == "" {
			t.Errorf("%d o'clock counts as in the window", hour)
		}
	}
	if misplaced(Window{"22:00", "04:00"}, time.Date(2026, 1, 1, 21, 59, 0, 0, time.UTC)) == "" {
		t.Error("21:59 counts as in the window")
	}
}

// In summer's first night clocks jump from 01:00 to 02:00 UTC: the window is shorter, and shared by all devices alike.
func TestWindowOnTheDaysOfTheChange(t *testing.T) {
	z := zone(t, "Europe/Berlin")
	for day, length := range map[string]time.Duration{
		"2027-03-28": 2 * time.Hour, "2027-10-31": 4 * time.Hour, "2027-06-01": 3 * time.Hour} {
		noon, err := time.ParseInLocation(time.DateOnly+" 15", day+" 00", z)
		if err != nil {
			t.Fatal(err)
		}
		first, last := noon.Add(48*time.Hour), noon
		for n := range 5000 {
			when, _ := Due(Policy{}, image.Wave{Start: noon.Unix()}, seedOf(n), digest, noon, z)
			if when.Before(first) {
				first = when
			}
			if when.After(last) {
				last = when
			}
		}
		if got := last.Sub(first); got > length || got < length-5*time.Minute {
			t.Errorf("%s: moments are spread over %v, want %v", day, got, length)
		}
	}
}

// A device that is looked at after its moment, while the window is open, is due; once it has closed, it waits for the next.
func TestMomentMissed(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	wave := image.Wave{Start: now.Unix()}
	when, _ := Due(Policy{}, wave, seedOf(7), digest, now, time.UTC)
	closing := time.Date(2026, 11, 23, 5, 0, 0, 0, time.UTC)
	if again, _ := Due(Policy{}, wave, seedOf(7), digest, closing.Add(-time.Minute), time.UTC); !again.Equal(when) {
		t.Errorf("at 04:59 its moment is %v, was %v", again, when)
	}
	if next, why := Due(Policy{}, wave, seedOf(7), digest, closing, time.UTC); !next.Equal(when.AddDate(0, 0, 1)) {
		t.Errorf("at 05:00 its moment is %v, was %v: %s", next, when, why)
	}
}

func TestPolicy(t *testing.T) {
	now := start
	day := image.Wave{Start: now.Add(-time.Hour).Unix(), Hours: 0, Kind: "default"}
	urgent := image.Wave{Start: day.Start, Kind: Emergency}
	future := image.Wave{Start: now.Add(time.Hour).Unix(), Hours: 0, Kind: Emergency}
	for name, c := range map[string]struct {
		p    Policy
		wave image.Wave
		due  bool
		zero bool
		why  string
	}{
		"usual":             {Policy{}, day, false, false, "waits for the maintenance window, which opens on Monday 23 November at 02:00"},
		"now":               {Policy{Now: true}, day, true, false, "asked for it now"},
		"now beats paused":  {Policy{Now: true, Paused: true, Metered: true, DeferUntil: now.Add(time.Hour)}, day, true, false, "now"},
		"now, too early":    {Policy{Now: true}, future, false, false, "turn is on Sunday 22 November at 13:00"},
		"paused":            {Policy{Paused: true}, urgent, false, true, "paused"},
		"metered":           {Policy{Metered: true}, urgent, false, true, "metered"},
		"emergency":         {Policy{}, urgent, true, false, "emergency"},
		"emergency to come": {Policy{}, future, false, false, "one device after another"},
		"emergency and deferred": {Policy{DeferUntil: now.Add(49 * time.Hour)}, urgent, false, false,
			"earliest time is on Tuesday 24 November at 13:00"},
		"deferred, over": {Policy{DeferUntil: now.Add(-time.Minute)}, urgent, true, false, "emergency"},
	} {
		when, why := Due(c.p, c.wave, seedOf(1), digest, now, time.UTC)
		if due := !when.IsZero() && !when.After(now); due != c.due || when.IsZero() != c.zero || !strings.Contains(why, c.why) {
			t.Errorf("%s: %v, %q", name, when, why)
		}
	}
	when, _ := Due(Policy{DeferUntil: now.Add(24 * time.Hour)}, day, seedOf(1), digest, now, time.UTC)
	if when.Before(now.Add(24*time.Hour)) || misplaced(Window{}, when) != "" {
		t.Errorf("deferred for a day, it is due %v", when)
	}
}

func TestSeed(t *testing.T) {
	dir := t.TempDir()
	first, err := Seed(dir, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Seed(dir, rand.Reader); err != nil || !bytes.Equal(first, again) {
		t.Errorf("drew %x, then %x, %v", first, again, err)
	}
	if _, err := Seed(t.TempDir(), bytes.NewReader(nil)); err == nil {
		t.Error("drew from nothing")
	}
}
