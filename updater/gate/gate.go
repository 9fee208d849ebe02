// Package gate decides whether a release stays. After every start of the machine it brings record, boot loader and data
// together, before any module works on the data; in a trial it writes down the verdict; and it arms the next trial. Each of its
// steps can be cut off anywhere: Start takes it up again. It knows nothing of modules and services: the supervisor tells it
// what works.
package gate

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"allotment/image"
	"allotment/updater/attempt"
	"allotment/updater/history"
	"allotment/updater/letter"
	"allotment/updater/snapshot"
)

// Loader is what the boot loader reads: a slot.Store.
type Loader interface {
	Entries() ([]attempt.Entry, error)
	Place(v image.Version, uki string) error
	Arm(v image.Version) error
	Commit(v image.Version, uki string) error
	Drop(v image.Version) error
	Close() error
}

// Snapshots are copies of all data, as package snapshot keeps them: see Data. Their name is the version that is tried.
type Snapshots interface {
	Take(name string) error
	Restore(name string) error
	Remove(name string) error
	Exists(name string) bool
	List() ([]string, error)
	Changes(name string) ([]snapshot.Change, error)
}

// Config is what a gate works with.
type Config struct {
	Dir       string // of the updater on the state partition, /state/update
	Running   attempt.System
	Counted   bool                   // the boot loader says that it counts this start: a hint
	Loader    func() (Loader, error) // opens what the boot loader reads, for as long as it is changed
	Snapshots Snapshots
	Names     func() letter.Names
	Now       func() time.Time
	Log       *slog.Logger
}

// Gate keeps the record of the attempt. Its methods can be called from several goroutines.
type Gate struct {
	config Config
	mu     sync.Mutex
	placed image.Version // that Prepare has placed
}

// New makes a gate; it reads nothing yet.
func New(c Config) *Gate { return &Gate{config: c} }

// Attempt is the record; nil if there is none, or none that can be read. It is replaced at once, so reading waits for nobody.
func (g *Gate) Attempt() *attempt.Attempt {
	a, err := attempt.Load(g.config.Dir)
	if err != nil {
		g.config.Log.Error("going on without the record of the last update", "error", err)
	}
	return a
}

// reach writes to the record that a stage is reached.
func (g *Gate) reach(a *attempt.Attempt, s attempt.Stage) error {
	a.Reach(s, g.config.Now())
	return a.Save(g.config.Dir)
}

// with opens the boot loader for f.
func (g *Gate) with(f func(Loader) error) error {
	l, err := g.config.Loader()
	if err != nil {
		return err
	}
	return errors.Join(f(l), l.Close())
}

// uki is the copy of a release's UKI from which the boot loader's can be mended.
func (g *Gate) uki(v image.Version) string {
	return filepath.Join(g.config.Dir, "boot", string(v)+".efi")
}

// Prepare does what of arming the staged release can be done while modules run. It need not be called.
func (g *Gate) Prepare() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	a, err := g.staged()
	if err == nil {
		err = g.with(func(l Loader) error { return l.Place(a.To.Version, g.uki(a.To.Version)) })
	}
	if err == nil {
		g.placed = a.To.Version
	}
	return err
}

// staged is the record if it is of a release that can be armed.
func (g *Gate) staged() (*attempt.Attempt, error) {
	a := g.Attempt()
	if a == nil || a.Stage != attempt.Staged || a.From.RootHash != g.config.Running.RootHash {
		return nil, errors.New("no release is ready to be tried")
	}
	return a, nil
}

// Arm writes that modules stand still, keeps a copy of their data, and lets the boot loader start the staged release next. After
// an error the release is staged as before and modules may start again. Where even that cannot be written there is no
// error: the machine is reset as after success, and its next start sees to it.
func (g *Gate) Arm(baseline []attempt.Result) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	a, err := g.staged()
	if err != nil {
		return err
	}
	placed := g.placed == a.To.Version
	g.placed = ""
	name := string(a.To.Version)
	if err := g.config.Snapshots.Take(name); err != nil {
		return fmt.Errorf("cannot keep a copy of the data: %w", err)
	}
	a.Baseline, a.Results, a.Failure, a.Starts = baseline, nil, nil, 0
	if err := g.reach(a, attempt.Armed); err != nil {
		return err
	}
	err = g.with(func(l Loader) error {
		if placed {
			return l.Arm(a.To.Version)
		}
		if err := l.Place(a.To.Version, g.uki(a.To.Version)); err != nil { // a cut while firmware counted can have lost it
			return err
		}
		return l.Arm(a.To.Version)
	})
	if err == nil {
		return nil
	}
	err = fmt.Errorf("cannot tell the boot loader to start version %s: %w", a.To.Version, err)
	if back := g.disarm(a); back != nil {
		g.config.Log.Error("the next start has to clean up", "error", errors.Join(err, back))
		return nil
	}
	return err
}

// disarm takes an armed release back to staged.
func (g *Gate) disarm(a *attempt.Attempt) error {
	if err := g.reach(a, attempt.Staged); err != nil {
		return err
	}
	if err := g.with(func(l Loader) error { return l.Drop(a.To.Version) }); err != nil {
		g.config.Log.Warn("the boot loader may start a release that is not wanted yet, which will leave by itself", "error", err)
	}
	return nil
}

// Commit lets the release on trial stay, and members may be let in; Settle is to follow. After an error it does not stay.
func (g *Gate) Commit(results []attempt.Result) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.Attempt()
	if a == nil || a.Stage != attempt.Trial || a.To.RootHash != g.config.Running.RootHash {
		return errors.New("this release is not on trial")
	}
	a.Results, a.Failure = results, nil
	if err := g.reach(a, attempt.Committed); err != nil { // this write decides
		return err
	}
	g.conclude(a)
	return nil
}

// Settle tells the boot loader of what Commit has written. It reads and compares all boot files, which is no time that members
// should wait for; a start that comes before its end does the same.
func (g *Gate) Settle() {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.Attempt()
	if a == nil || a.Stage != attempt.Committed || a.To.RootHash != g.config.Running.RootHash {
		return
	}
	if err := g.with(func(l Loader) error { return l.Commit(a.To.Version, g.uki(a.To.Version)) }); err != nil {
		g.config.Log.Error("the boot loader is told at the next start that the release stays", "error", err)
	}
}

// Undo ends the trial of the running release. The machine must be reset then, also after an error: the boot loader gives up by
// itself a release that cannot even say that it failed.
func (g *Gate) Undo(f attempt.Failure, results []attempt.Result) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.Attempt()
	if a == nil || a.Stage != attempt.Trial || a.To.RootHash != g.config.Running.RootHash {
		return errors.New("this release is not on trial")
	}
	a.Failure, a.Results = &f, results
	err := g.reach(a, attempt.Undoing)
	return errors.Join(err, g.with(func(l Loader) error { return l.Drop(a.To.Version) }))
}

// CanGoBack returns the attempt that can be undone by hand, and nil with the reason if there is none.
func (g *Gate) CanGoBack() (*attempt.Attempt, error) {
	a := g.Attempt()
	switch {
	case a == nil:
		return nil, errors.New("there was no update yet")
	case a.Stage == attempt.Undone:
		return nil, errors.New("the last update was taken back already")
	case a.Stage != attempt.Committed || a.To.RootHash != g.config.Running.RootHash:
		return nil, errors.New("the version of before has made room for the next update")
	case !g.config.Snapshots.Exists(string(a.To.Version)):
		return nil, fmt.Errorf("the copy of the data from before the update was kept for %d days and is gone", letter.KeptDays)
	}
	return a, nil
}

// Losses tells what was written since the release was installed that could be undone by hand: going back would lose it.
func (g *Gate) Losses(a *attempt.Attempt) ([]snapshot.Change, error) {
	return g.config.Snapshots.Changes(string(a.To.Version))
}

// Back undoes a committed release by hand. The machine must be reset then, unless there is an error.
func (g *Gate) Back() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	a, err := g.CanGoBack()
	if err != nil {
		return err
	}
	return g.with(func(l Loader) error {
		entries, err := l.Entries()
		if err != nil {
			return err
		}
		if !has(entries, a.From.Version) {
			return fmt.Errorf("version %s is not there any more", a.From.Version)
		}
		before := *a
		a.ByHand = true
		if err := g.reach(a, attempt.Undoing); err != nil {
			return err
		}
		if err := l.Drop(a.To.Version); err != nil {
			return errors.Join(err, before.Save(g.config.Dir))
		}
		return nil
	})
}

func has(entries []attempt.Entry, v image.Version) bool {
	for _, e := range entries {
		if e.Version == v {
			return true
		}
	}
	return false
}

// conclude keeps an attempt that has ended in the history, with its letter, and remembers a release that did not stay. It
// may be called again for the same end. What cannot be kept is no reason to stop.
func (g *Gate) conclude(a *attempt.Attempt) {
	if history.Has(g.config.Dir, a) {
		return
	}
	now := g.config.Now()
	var errs []error
	if a.Stage == attempt.Undone {
		bad := history.Bad{Release: a.Release, Version: a.To.Version, Time: now, Why: "an officer went back from it"}
		if a.Failure != nil {
			bad.Why = a.Failure.Problem
		}
		errs = append(errs, history.AddBad(g.config.Dir, bad))
	}
	entry := history.Entry{Attempt: *a, Letter: letter.Write(a, g.config.Names()), Ended: now}
	errs = append(errs, history.Add(g.config.Dir, entry))
	if err := errors.Join(errs...); err != nil {
		g.config.Log.Error("what became of the update cannot be kept", "error", err)
	}
}
