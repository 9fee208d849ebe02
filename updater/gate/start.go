package gate

import (
	"errors"
	"fmt"

	"allotment/image"
	"allotment/updater/attempt"
)

// Next is how a start of the machine goes on.
type Next int

// What a start can come to.
const (
	Usual    Next = iota // modules start, the outside is let in
	Trial                // modules start, nobody is let in or out before the verdict
	Reset                // the machine must be reset: another release is to run
	Stranded             // no module may start: the data belong to a release that cannot be started
)

// Start does what the record asks for, before modules work on the data. In a boot in which it has been done already, by a
// supervisor that ended, again is true: a trial then goes on with the data as they are. An error comes with a way to go on, the
// safest that is left.
func (g *Gate) Start(again bool) (Next, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.Attempt()
	if a == nil {
		return Usual, nil
	}
	if again {
		if next, ok := g.goesOn(a); ok {
			return next, nil
		}
	}
	l, err := g.config.Loader()
	if err != nil { // what can be done without it is done
		l = closed{err}
	}
	next, err := g.follow(a, l)
	return next, errors.Join(err, l.Close())
}

// goesOn tells how the boot goes on if it is as before. The boot loader is left alone: the updater may be working on it.
func (g *Gate) goesOn(a *attempt.Attempt) (Next, bool) {
	isNew := a.To.RootHash == g.config.Running.RootHash
	switch a.Stage {
	case attempt.Trial:
		return Trial, isNew
	case attempt.Committed:
		return Usual, isNew
	case attempt.Fetching, attempt.Staged:
		return Usual, !isNew
	}
	return Usual, false
}

// follow does what the record a asks for.
func (g *Gate) follow(a *attempt.Attempt, l Loader) (Next, error) {
	entries, err := l.Entries()
	if err != nil {
		g.config.Log.Error("the boot loader's files cannot be read", "error", err)
	}
	d := attempt.Decide(a, g.config.Running.RootHash, entries)
	if d != attempt.Normal {
		g.config.Log.Warn("update", "from", a.From.Version, "to", a.To.Version, "stage", a.Stage, "so", d)
	}
	switch d {
	case attempt.BeginTrial, attempt.RepeatTrial:
		return g.enterTrial(a, l, d == attempt.RepeatTrial)
	case attempt.FinishCommit:
		err := l.Commit(a.To.Version, g.uki(a.To.Version))
		g.conclude(a)
		return Usual, err
	case attempt.RollForward:
		err := l.Commit(a.To.Version, g.uki(a.To.Version))
		if err == nil { // counted when it is done: a cut before that is no failure of the release
			a.Forwards++
			err = a.Save(g.config.Dir)
		}
		return orStranded(Reset, err)
	case attempt.Restore:
		return orStranded(Usual, g.restore(a, l))
	case attempt.LeaveTrial:
		return g.leave(a, l)
	case attempt.NotTried:
		return orStranded(Usual, g.takeBack(a, l))
	case attempt.Stranded:
		return Stranded, fmt.Errorf("the data belong to version %s, which does not start", a.To.Version)
	}
	if a.Stage == attempt.Committed || a.Stage == attempt.Undone {
		g.conclude(a)
	}
	return Usual, g.uncount(a, entries, l)
}

// uncount lets the boot loader start the running release without counting. It counts still if it could not be told of a commit
// before the record went on to the next release.
func (g *Gate) uncount(a *attempt.Attempt, entries []attempt.Entry, l Loader) error {
	if a.From.RootHash != g.config.Running.RootHash {
		return nil
	}
	for _, e := range entries {
		if e.Version == a.From.Version && e.Trial {
			return l.Commit(e.Version, g.uki(e.Version))
		}
	}
	return nil
}

// orStranded is next, unless there is an error: then no module must touch the data.
func orStranded(next Next, err error) (Next, error) {
	if err != nil {
		return Stranded, err
	}
	return next, nil
}

// enterTrial records that the new release works on the data from now on. What an earlier try has done to them is undone.
func (g *Gate) enterTrial(a *attempt.Attempt, l Loader, repeat bool) (Next, error) {
	a.Starts++
	err := g.reach(a, attempt.Trial)
	if err == nil && repeat {
		err = g.config.Snapshots.Restore(string(a.To.Version))
	}
	if err == nil {
		return Trial, nil
	}
	a.Failure = &attempt.Failure{Check: attempt.CheckStore, Problem: err.Error()}
	next, left := g.leave(a, l)
	return next, errors.Join(err, left)
}

// leave lets the boot loader start the old release in place of the running one, which shall not stay.
func (g *Gate) leave(a *attempt.Attempt, l Loader) (Next, error) {
	var err error
	if a.Stage == attempt.Armed || a.Stage == attempt.Trial {
		if a.Failure == nil {
			a.Failure = g.silence(a)
		}
		err = g.reach(a, attempt.Undoing)
	}
	dropped := l.Drop(a.To.Version)
	if dropped != nil && !g.config.Counted {
		return Stranded, errors.Join(err, dropped) // the boot loader would start this release for ever
	}
	return Reset, errors.Join(err, dropped)
}

// silence is the failure of a release that could not tell of one itself.
func (g *Gate) silence(a *attempt.Attempt) *attempt.Failure {
	if a.Stage == attempt.Armed {
		return &attempt.Failure{Check: attempt.CheckStart,
			Problem: "the boot loader started it and gave it up; it never came so far as to open the state partition"}
	}
	return &attempt.Failure{Check: attempt.CheckTries,
		Problem: fmt.Sprintf("it began its trial %d times and was reset each time, without a verdict", a.Starts)}
}

// restore brings the data of before the update back. Only when that is recorded may modules work on them.
func (g *Gate) restore(a *attempt.Attempt, l Loader) error {
	if a.Stage != attempt.Undoing {
		a.Failure = g.silence(a)
		if err := g.reach(a, attempt.Undoing); err != nil {
			return err
		}
	}
	if err := l.Drop(a.To.Version); err != nil {
		g.config.Log.Error("the boot loader still knows a release that failed, which will leave by itself", "error", err)
	}
	if err := g.config.Snapshots.Restore(string(a.To.Version)); err != nil {
		return fmt.Errorf("cannot bring back the data of before the update: %w", err)
	}
	if err := g.reach(a, attempt.Undone); err != nil {
		return err
	}
	g.conclude(a)
	return nil
}

// takeBack makes an armed release that the boot loader never started a staged one.
func (g *Gate) takeBack(a *attempt.Attempt, l Loader) error {
	a.Untried++
	if err := g.reach(a, attempt.Staged); err != nil {
		return err
	}
	err := errors.Join(l.Drop(a.To.Version), g.config.Snapshots.Remove(string(a.To.Version)))
	if err != nil {
		g.config.Log.Warn("going on after an error", "error", err)
	}
	return nil
}

// closed is a boot loader that cannot be reached.
type closed struct{ why error }

func (c closed) Entries() ([]attempt.Entry, error)  { return nil, c.why }
func (c closed) Place(image.Version, string) error  { return c.why }
func (c closed) Arm(image.Version) error            { return c.why }
func (c closed) Commit(image.Version, string) error { return c.why }
func (c closed) Drop(image.Version) error           { return c.why }
func (c closed) Close() error                       { return nil }
