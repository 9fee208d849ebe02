package attempt

import (
	"allotment/image"
	"allotment/image/verity"
)

// MaxStarts is how often a release on trial is started at most, whether the boot loader or the record counts, and how often
// the box tries again where the boot loader does not do what the record says.
const MaxStarts = 3

// Entry is a release that the boot loader in use can start.
type Entry struct {
	Version image.Version
	Trial   bool // its starts are counted
	Left    int  // starts left, of one on trial
	Done    int  // starts used up, of one on trial
}

// Decision is what has to be done after a start of the machine, before any module starts.
type Decision string

// The decisions. Those that end in a reset are written to the record first, so that each is bounded.
const (
	// Normal: nothing is under way, or nothing that concerns this start.
	Normal Decision = "normal"
	// BeginTrial: this is the new release, for the first time. Record Trial with Starts 1, then go to work.
	BeginTrial Decision = "begin-trial"
	// RepeatTrial: this is the new release, and its trial was cut short. Record one more of Starts, restore the snapshots,
	// then go to work.
	RepeatTrial Decision = "repeat-trial"
	// FinishCommit: this is the new release and it is committed, but the boot loader does not know it yet.
	FinishCommit Decision = "finish-commit"
	// RollForward: the new release is committed and the old one was started. Have the boot loader start the new one, then
	// record one more of Forwards (in this order: cuts of the power must not use it up), reset.
	RollForward Decision = "roll-forward"
	// Restore: this is the old release, and it is to stay. Record Undoing unless it says so, drop the new release's entry,
	// restore the snapshots, record Undone.
	Restore Decision = "restore"
	// LeaveTrial: this is the new release, and it shall not run. Record Undoing unless the stage is before Armed, drop
	// its entry, reset.
	LeaveTrial Decision = "leave-trial"
	// NotTried: this is the old release, and the boot loader never started the new one. Record Staged with one more of
	// Untried, drop the new release's entry, remove the snapshots; the release may be armed again.
	NotTried Decision = "not-tried"
	// Stranded: the running system must not touch the data, which belong to another one that cannot be started. Modules
	// stay off; a person has to help.
	Stranded Decision = "stranded"
)

// Decide tells what the record a asks for where the system with the given root hash runs and the boot loader has the
// entries. A is nil where no release was ever tried. It depends on nothing else, so that all that can happen can be
// enumerated; see docs/formats/attempt.md for the table.
func Decide(a *Attempt, running verity.RootHash, entries []Entry) Decision {
	switch {
	case a == nil:
		return Normal
	case running == a.To.RootHash:
		return a.decideNew(entries)
	case running == a.From.RootHash:
		return a.decideOld(entries)
	case a.Stage == Fetching || a.Stage == Staged || a.Stage == Undone:
		return Normal
	}
	return Stranded
}

// decideNew decides where the new release runs.
func (a *Attempt) decideNew(entries []Entry) Decision {
	switch a.Stage {
	case Armed:
		return BeginTrial
	case Trial:
		if a.Starts < MaxStarts {
			return RepeatTrial
		}
	case Committed:
		if len(entries) > 0 && entries[0].Version == a.To.Version && !entries[0].Trial {
			return Normal
		}
		return FinishCommit
	}
	return LeaveTrial
}

// decideOld decides where the old release runs.
func (a *Attempt) decideOld(entries []Entry) Decision {
	switch a.Stage {
	case Armed:
		if a.Untried < MaxStarts && !tried(entries, a.To.Version) {
			return NotTried
		}
		return Restore
	case Trial, Undoing:
		return Restore
	case Committed:
		if a.Forwards < MaxStarts {
			return RollForward
		}
		return Stranded
	}
	return Normal
}

// tried tells whether the boot loader has used up a start of the version.
func tried(entries []Entry, v image.Version) bool {
	for _, e := range entries {
		if e.Version == v && e.Trial && e.Done > 0 {
			return true
		}
	}
	return false
}
