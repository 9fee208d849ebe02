package firstrun

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"allotment/portal/store"
)

// Step is one page of the first run.
type Step string

// The steps, in their order.
const (
	StepClaim        Step = "claim"
	StepOfficer      Step = "officer"
	StepRecovery     Step = "recovery"
	StepSecond       Step = "second"
	StepOrganisation Step = "organisation"
	StepModules      Step = "modules"
	StepDomain       Step = "domain"
	StepBackup       Step = "backup"
	StepInvite       Step = "invite"
	StepDone         Step = "done"
)

// Steps lists them.
func Steps() []Step {
	return []Step{StepClaim, StepOfficer, StepRecovery, StepSecond, StepOrganisation, StepModules, StepDomain, StepBackup,
		StepInvite, StepDone}
}

// State is how far the first run has come. It is kept after every step, so that any browser can go on.
type State struct {
	Revision int                `json:"revision"` // one more with every change
	Language string             `json:"language,omitempty"`
	Browsers []Browser          `json:"browsers,omitempty"` // that have entered the claim code
	Officer  Officer            `json:"officer"`
	Kind     string             `json:"kind,omitempty"`
	Invited  string             `json:"invited,omitempty"` // link for the second officer
	Members  string             `json:"members,omitempty"` // link for members
	Done     map[Step]time.Time `json:"done,omitempty"`
	Later    []Step             `json:"later,omitempty"` // that were put off
}

// Browser is one that has entered the claim code.
type Browser struct {
	Hash  string    `json:"hash"`
	Until time.Time `json:"until"`
}

// Officer is the first one: noted before she is made, so that a cut in between is mended by trying again.
type Officer struct {
	Name        string `json:"name,omitempty"`
	Given       string `json:"given,omitempty"`
	Family      string `json:"family,omitempty"`
	OutsideMail string `json:"outsideMail,omitempty"`
	Office      string `json:"office,omitempty"`
	Made        bool   `json:"made,omitempty"`
}

// ErrStale says that the page was of an earlier state: somebody went on in another tab or on another device.
var ErrStale = errors.New("this step was changed meanwhile")

// Current is the first step that is neither done nor put off.
func (s State) Current() Step {
	for _, step := range Steps() {
		if !s.IsDone(step) && !slices.Contains(s.Later, step) {
			return step
		}
	}
	return StepDone
}

// IsDone tells whether the step was done.
func (s State) IsDone(step Step) bool { return !s.Done[step].IsZero() }

// Reachable tells whether the step can be shown: those before the officer only in their order, later ones at any time.
func (s State) Reachable(step Step) bool {
	if !s.Officer.Made {
		return step == StepClaim || step == StepOfficer
	}
	return step != StepClaim && step != StepOfficer && slices.Contains(Steps(), step)
}

// Next is the step after this one.
func Next(step Step) Step {
	all := Steps()
	return all[min(slices.Index(all, step)+1, len(all)-1)]
}

// forget drops browsers whose time is over.
func (s *State) forget(now time.Time) {
	s.Browsers = slices.DeleteFunc(s.Browsers, func(b Browser) bool { return !b.Until.After(now) })
}

// finish notes a step as done, or as put off.
func (s *State) finish(step Step, now time.Time, later bool) {
	s.Later = slices.DeleteFunc(s.Later, func(x Step) bool { return x == step })
	if later {
		s.Later = append(s.Later, step)
		return
	}
	if s.Done == nil {
		s.Done = map[Step]time.Time{}
	}
	s.Done[step] = now.UTC()
}

const stateKey = "state"

var states = store.NewBucket[State]("firstrun")

// State reads how far the first run has come.
func (s *Service) State() (State, error) {
	var st State
	err := s.deps.DB.View(func(tx *store.Tx) (err error) {
		st, err = states.Get(tx, stateKey)
		return err
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return st, fmt.Errorf("cannot read how far the first run has come: %w", err)
	}
	return st, nil
}

// change changes the state in one transaction and returns what it is then.
func (s *Service) change(f func(*store.Tx, *State) error) (State, error) {
	var st State
	err := s.deps.DB.Update(func(tx *store.Tx) (err error) {
		if st, err = states.Get(tx, stateKey); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err := f(tx, &st); err != nil {
			return err
		}
		st.Revision++
		return states.Put(tx, stateKey, st)
	})
	if err != nil {
		return st, fmt.Errorf("cannot keep how far the first run has come: %w", err)
	}
	return st, nil
}

// Finish notes a step as done, or as put off to later. That can be repeated.
func (s *Service) Finish(step Step, later bool) error {
	_, err := s.change(func(_ *store.Tx, st *State) error {
		st.finish(step, s.deps.Clock(), later)
		return nil
	})
	return err
}
