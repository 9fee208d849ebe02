// Package attempt is the memory of one update: what was tried, how far it came, and how it ended. Its record on the state
// partition is the one truth about which release the box is committed to; the boot loader is made to follow it. Decide says
// after every start of the machine what the record asks for.
package attempt

import (
	"time"

	"allotment/image"
	"allotment/image/verity"
)

// Stage is how far an attempt has come.
type Stage string

// The stages of an attempt, in order; it ends in committed or undone.
const (
	Fetching  Stage = "fetching"  // the release's bytes are being had
	Staged    Stage = "staged"    // the other slot, the layers and the boot files are written and verified
	Armed     Stage = "armed"     // modules stand still, their volumes have snapshots; the boot loader is told next
	Trial     Stage = "trial"     // the new release has begun to work on the data
	Committed Stage = "committed" // the new release stays: written before anybody is let in
	Undoing   Stage = "undoing"   // the old release is to come back, with the data of the snapshots
	Undone    Stage = "undone"    // it is back
)

// System is a release as it lies in a slot.
type System struct {
	Version  image.Version   `json:"version"`
	RootHash verity.RootHash `json:"roothash"`
	Slot     image.Slot      `json:"slot"`
}

// Attempt is one try to go from a release to another.
type Attempt struct {
	Number   int          `json:"number"` // one more than that of the attempt before
	From     System       `json:"from"`
	To       System       `json:"to"`
	Release  image.Digest `json:"release"` // SHA-256 of the release's signed description
	Stage    Stage        `json:"stage"`
	Starts   int          `json:"starts"`             // of the new release, as far as it came to say so
	Untried  int          `json:"untried,omitempty"`  // times that it was armed and the boot loader did not start it
	Forwards int          `json:"forwards,omitempty"` // times that the old release was started after this one was committed
	Budget   int          `json:"budget"`             // seconds that a trial may take (image.Release.Trial); 0: DefaultBudget
	Marks    []Mark       `json:"marks"`              // when each stage was reached
	Baseline []Result     `json:"baseline"`           // of all journeys and modules before the update
	Results  []Result     `json:"results,omitempty"`  // of the same in the trial
	Failure  *Failure     `json:"failure,omitempty"`  // why it was undone
	ByHand   bool         `json:"byHand,omitempty"`   // an officer asked to go back, nothing failed
}

// Mark is when a stage was reached, by the box's clock.
type Mark struct {
	Stage Stage     `json:"stage"`
	Time  time.Time `json:"time"`
}

// Result is how a module or one of its journeys did.
type Result struct {
	Module  string `json:"module"`
	Journey string `json:"journey,omitempty"` // empty: whether the module is ready
	Title   string `json:"title"`
	OK      bool   `json:"ok"`
	Problem string `json:"problem,omitempty"`
	Output  string `json:"output,omitempty"` // the last lines that it printed, where it is not OK
}

// Failure is why an attempt was undone.
type Failure struct {
	Check   string `json:"check"` // what failed: one of the constants CheckStart to CheckStore
	Module  string `json:"module,omitempty"`
	Journey string `json:"journey,omitempty"` // of the module, where one failed
	Problem string `json:"problem"`           // in a sentence
	Output  string `json:"output,omitempty"`  // the last lines that were printed or logged
}
