package gate

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/image"
	"allotment/image/verity"
	"allotment/updater/attempt"
	"allotment/updater/history"
	"allotment/updater/letter"
	"allotment/updater/snapshot"
)

var (
	old   = attempt.System{Version: "1.0", RootHash: verity.RootHash{1}, Slot: image.SlotA}
	newer = attempt.System{Version: "2.0", RootHash: verity.RootHash{2}, Slot: image.SlotB}
)

const release = image.Digest("sha256:2222222222222222222222222222222222222222222222222222222222222222")

// machine is a box whose boot loader and data live in memory, and whose record lies in a folder. Its power can be cut at
// every change of boot loader and data.
type machine struct {
	dir     string
	entries []attempt.Entry // what the boot loader chooses from
	data    string          // what releases and members have written
	copies  map[string]string
	cuts    []int    // at so many further changes the power fails, and so on
	broken  []string // operations that fail
	skips   string   // an operation that is said to be done and is not
	said    []string // what was done to boot loader and data
	hangs   bool     // the new release does not come to start userspace
	fails   *attempt.Failure
	resets  int
}

// powerCut is what a change panics with.
type powerCut struct{}

// change makes a change, which the power's end may come before or after.
func (m *machine) change(what string, f func()) error {
	m.said = append(m.said, what)
	for _, b := range m.broken {
		if strings.HasPrefix(what, b) {
			return errors.New(b + " is broken")
		}
	}
	m.tick()
	if m.skips == "" || !strings.HasPrefix(what, m.skips) {
		f()
	}
	m.tick()
	return nil
}

func (m *machine) tick() {
	switch {
	case len(m.cuts) == 0:
	case m.cuts[0] == 0:
		m.cuts = m.cuts[1:]
		panic(powerCut{})
	default:
		m.cuts[0]--
	}
}

// Entries, Place, Arm, Commit, Drop and Close implement Loader.
func (m *machine) Entries() ([]attempt.Entry, error) { return m.entries, nil }

func (m *machine) Place(image.Version, string) error { return nil }

func (m *machine) Arm(v image.Version) error {
	return m.change("arm "+string(v), func() {
		m.remove(v)
		m.entries = append([]attempt.Entry{{Version: v, Trial: true, Left: 3}}, m.entries...)
	})
}

func (m *machine) Commit(v image.Version, _ string) error {
	return m.change("commit "+string(v), func() {
		m.remove(v)
		m.entries = append([]attempt.Entry{{Version: v}}, m.entries...)
	})
}

func (m *machine) Drop(v image.Version) error {
	return m.change("drop "+string(v), func() { m.remove(v) })
}

func (m *machine) Close() error { return nil }

func (m *machine) remove(v image.Version) {
	var kept []attempt.Entry
	for _, e := range m.entries {
		if e.Version != v {
			kept = append(kept, e)
		}
	}
	m.entries = kept
}

// Take, Restore, Remove, Exists, List and Changes implement Snapshots.
func (m *machine) Take(name string) error {
	return m.change("take "+name, func() { m.copies[name] = m.data })
}

func (m *machine) Restore(name string) error {
	return m.change("restore "+name, func() { m.data = m.copies[name] })
}

func (m *machine) Remove(name string) error {
	return m.change("remove "+name, func() { delete(m.copies, name) })
}

func (m *machine) Exists(name string) bool                        { _, ok := m.copies[name]; return ok }
func (m *machine) List() ([]string, error)                        { return slices.Sorted(maps.Keys(m.copies)), nil }
func (m *machine) Changes(name string) ([]snapshot.Change, error) { return nil, nil }

// newMachine has a release staged.
func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{dir: t.TempDir(), entries: []attempt.Entry{{Version: old.Version}}, data: "old", copies: map[string]string{}}
	a := &attempt.Attempt{Number: 1, From: old, To: newer, Release: release, Stage: attempt.Staged}
	if err := a.Save(m.dir); err != nil {
		t.Fatal(err)
	}
	return m
}

// boot is what the boot loader starts, counting the tries of a release on trial.
func (m *machine) boot() attempt.System {
	for i := range m.entries {
		e := &m.entries[i]
		if e.Trial && e.Left == 0 {
			continue
		}
		if e.Trial {
			e.Left--
			e.Done++
		}
		if e.Version == newer.Version {
			return newer
		}
		return old
	}
	return old
}

func (m *machine) gate(running attempt.System) *Gate {
	counted := len(m.entries) > 0 && m.entries[0].Version == running.Version && m.entries[0].Trial
	return New(Config{
		Dir: m.dir, Running: running, Counted: counted, Loader: func() (Loader, error) { return m, nil }, Snapshots: m,
		Names: func() letter.Names { return letter.Names{} }, Now: func() time.Time { return time.Unix(1e9, 0) },
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
}

// day lets the machine run, through resets and cuts, until a release serves members; it returns that. Members then write.
func (m *machine) day(t *testing.T) attempt.System {
	t.Helper()
	for m.resets = 0; m.resets < 20; m.resets++ {
		running := m.boot()
		if running == newer && m.hangs {
			continue
		}
		serves, again := false, false
		m.power(func() { serves = m.start(running) })
		if !serves {
			continue
		}
		// A supervisor that ended and is started again goes on as before.
		m.power(func() { next, err := m.gate(running).Start(true); again = next == Usual && err == nil })
		if !again {
			continue
		}
		m.data += "+members"
		return running
	}
	t.Fatalf("the machine resets itself for ever: %q", m.said)
	return old
}

// power runs f until the power fails.
func (m *machine) power(f func()) {
	defer func() {
		if p := recover(); p != nil && p != (powerCut{}) {
			panic(p)
		}
	}()
	f()
}

// start is one start of the supervisor; it tells whether members are let in.
func (m *machine) start(running attempt.System) bool {
	g := m.gate(running)
	next, err := g.Start(false)
	if err != nil && next == Usual && m.broken == nil {
		return false
	}
	switch next {
	case Trial:
		m.data += "+migrated"
		m.tick()
		if m.fails == nil {
			err := g.Commit(nil)
			g.Settle()
			return err == nil
		}
		_ = g.Undo(*m.fails, nil)
		return false
	case Usual:
		return true
	}
	return false
}

// arm is what the old release does at night.
func (m *machine) arm() (err error) {
	err = errPower
	m.power(func() { err = m.gate(old).Arm([]attempt.Result{{Module: "web", OK: true}}) })
	return err
}

var errPower = errors.New("the power failed")

// fault is how the machine differs from one that serves the release with just the data that belong to it.
func (m *machine) fault(running, want attempt.System, data string) error {
	if running != want || m.data != data {
		return fmt.Errorf("version %s serves with data %q, want %s with %q; done %q", running.Version, m.data, want.Version, data, m.said)
	}
	if len(m.entries) == 0 || m.entries[0].Version != want.Version || m.entries[0].Trial {
		return fmt.Errorf("the boot loader will start %+v", m.entries)
	}
	return nil
}

func (m *machine) check(t *testing.T, running, want attempt.System, data string) {
	t.Helper()
	if err := m.fault(running, want, data); err != nil {
		t.Error(err)
	}
}

func TestCommit(t *testing.T) {
	m := newMachine(t)
	if err := m.arm(); err != nil {
		t.Fatal(err)
	}
	m.check(t, m.day(t), newer, "old+migrated+members")
	all, err := history.All(m.dir)
	if err != nil || len(all) != 1 || !strings.Contains(all[0].Letter.Subject, "was updated to version 2.0") {
		t.Errorf("history: %+v, %v", all, err)
	}
	if bad, err := history.BadReleases(m.dir); err != nil || len(bad) != 0 {
		t.Errorf("a good release is remembered as bad: %v, %v", bad, err)
	}
	if got := strings.Join(m.said, ", "); got != "take 2.0, arm 2.0, commit 2.0" {
		t.Errorf("done: %s", got)
	}
}

// What is prepared while modules run need not be done while they stand still.
func TestPrepare(t *testing.T) {
	m := newMachine(t)
	g := m.gate(old)
	if err := g.Prepare(); err != nil {
		t.Fatal(err)
	}
	before := len(m.said)
	if err := g.Arm(nil); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(m.said[before:], ", "); got != "take 2.0, arm 2.0" {
		t.Errorf("done: %s", got)
	}
	if err := g.Prepare(); err == nil {
		t.Error("a release that is armed can be prepared")
	}
}

func TestUndo(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*machine)
		check   string
	}{
		"journey": {func(m *machine) { m.fails = badJourney }, attempt.CheckJourney},
		"hang":    {func(m *machine) { m.hangs = true }, attempt.CheckStart},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			c.prepare(m)
			if err := m.arm(); err != nil {
				t.Fatal(err)
			}
			m.check(t, m.day(t), old, "old+members")
			all, err := history.All(m.dir)
			if err != nil || len(all) != 1 || all[0].Attempt.Failure.Check != c.check {
				t.Errorf("history: %+v, %v", all, err)
			}
			if bad, err := history.BadReleases(m.dir); err != nil || len(bad) != 1 || bad[0].Release != release {
				t.Errorf("bad releases: %v, %v", bad, err)
			}
		})
	}
}

// A release that resets in each of its trials is given up, with what it did to the data.
func TestTrialThatNeverEnds(t *testing.T) {
	m := newMachine(t)
	if err := m.arm(); err != nil {
		t.Fatal(err)
	}
	for i := range attempt.MaxStarts {
		running := m.boot()
		if next, err := m.gate(running).Start(false); next != Trial || err != nil || running != newer {
			t.Fatalf("start %d: %v, %v", i+1, next, err)
		}
		if m.data != "old" {
			t.Errorf("start %d begins with the data %q", i+1, m.data)
		}
		m.data += "+migrated"
	}
	m.check(t, m.day(t), old, "old+members")
	if a := m.gate(old).Attempt(); a.Failure.Check != attempt.CheckTries {
		t.Errorf("failure: %+v", a.Failure)
	}
}

// night updates a machine whose power fails at the given changes, and returns what is wrong afterwards.
func night(t *testing.T, fails *attempt.Failure, skips string, cuts ...int) error {
	t.Helper()
	m := newMachine(t)
	m.fails, m.skips, m.cuts = fails, skips, cuts
	_ = m.arm()
	running := m.day(t)
	if running == old {
		return m.fault(running, old, "old+members")
	}
	if fails != nil {
		return errors.New("the bad release serves")
	}
	return m.fault(running, newer, "old+migrated+members")
}

var badJourney = &attempt.Failure{Check: attempt.CheckJourney, Problem: "status 500"}

// TestPowerCuts cuts the power at every two changes of everything that a night does, for good and for bad releases: the
// machine comes to serve one release with the data that belong to it, and nothing else.
func TestPowerCuts(t *testing.T) {
	for _, fails := range []*attempt.Failure{nil, badJourney} {
		for first := range 14 {
			for second := range 7 {
				if err := night(t, fails, "", first, second); err != nil {
					t.Fatalf("cuts at %d and %d: %v", first, second, err)
				}
			}
		}
	}
}

// TestPowerCutsFindMistakes is the twin: what is left out is found.
func TestPowerCutsFindMistakes(t *testing.T) {
	for _, skips := range []string{"take", "restore"} {
		if night(t, badJourney, skips) == nil {
			t.Errorf("nobody sees that it does not %s", skips)
		}
	}
}

func TestGoBack(t *testing.T) {
	m := newMachine(t)
	if _, err := m.gate(old).CanGoBack(); err == nil {
		t.Error("there is something to go back to before any update")
	}
	if err := m.arm(); err != nil {
		t.Fatal(err)
	}
	m.day(t)
	g := m.gate(newer)
	if a, err := g.CanGoBack(); err != nil || a.From != old {
		t.Fatalf("back to %+v, %v", a, err)
	}
	if err := g.Back(); err != nil {
		t.Fatal(err)
	}
	m.check(t, m.day(t), old, "old+members")
	all, err := history.All(m.dir)
	if err != nil || len(all) != 2 || !all[0].Attempt.ByHand || !strings.Contains(all[0].Letter.Subject, "went back") {
		t.Errorf("history: %+v, %v", all, err)
	}
}

// What is broken keeps modules from data that are not theirs, and a release from being armed half.
func TestBroken(t *testing.T) {
	m := newMachine(t)
	m.broken = []string{"arm"}
	if err := m.arm(); err == nil || m.gate(old).Attempt().Stage != attempt.Staged {
		t.Errorf("armed without a boot loader: %v", err)
	}
	m.check(t, m.day(t), old, "old+members")

	m = newMachine(t)
	m.broken = []string{"take"}
	if err := m.arm(); err == nil || len(m.said) != 1 {
		t.Errorf("armed without a copy of the data: %v, %q", err, m.said)
	}

	m = newMachine(t)
	m.fails = &attempt.Failure{Check: attempt.CheckModule}
	if err := m.arm(); err != nil {
		t.Fatal(err)
	}
	m.start(m.boot())
	m.broken = []string{"restore"}
	for range 2 {
		if next, err := m.gate(m.boot()).Start(false); next != Stranded || err == nil {
			t.Errorf("without the old data it goes on: %v, %v", next, err)
		}
	}
	m.broken = nil
	m.check(t, m.day(t), old, "old+members")
}

// A commit of which the boot loader could not be told is mended also when the next release is under way.
func TestLateCommit(t *testing.T) {
	m := newMachine(t)
	m.entries = []attempt.Entry{{Version: old.Version, Trial: true, Left: 1}}
	m.check(t, m.day(t), old, "old+members")
}

// A supervisor that is started again in a trial does not touch the data, which a new boot does.
func TestTrialGoesOn(t *testing.T) {
	m := newMachine(t)
	if err := m.arm(); err != nil {
		t.Fatal(err)
	}
	running := m.boot()
	for i, again := range []bool{false, true, true, false} {
		if next, err := m.gate(running).Start(again); next != Trial || err != nil {
			t.Fatalf("start %d: %v, %v", i, next, err)
		}
		m.data += fmt.Sprint(i)
	}
	if m.data != "old3" || m.gate(running).Attempt().Starts != 2 {
		t.Errorf("data %q, starts %d", m.data, m.gate(running).Attempt().Starts)
	}
}
