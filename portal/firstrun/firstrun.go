// Package firstrun leads the first officer from the claim code to a server that works: the officer herself, a second one,
// the kind of organisation, modules, domain, backup, members. What was entered is kept after each step, and each step can
// be repeated, so that a closed browser, the back button or a second device do no harm.
package firstrun

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"allotment/api"
	"allotment/portal/audit"
	"allotment/portal/box"
	"allotment/portal/directory"
	"allotment/portal/onboard"
	"allotment/portal/store"
	"allotment/portal/web"
)

// The groups that every organisation has; see docs/modules/directory.md.
const (
	membersGroup  = "members"
	officersGroup = "officers"
)

// Inviter makes invitations; see package onboard.
type Inviter interface {
	Invite(ctx context.Context, i onboard.Invitation) (link string, err error)
}

// Service is the first run.
type Service struct {
	deps    web.Deps
	machine *box.Pages
	inviter Inviter
	kinds   []Kind

	over     atomic.Bool // there is an officer: that never changes
	claiming sync.Mutex  // one claim code is compared at a time
	nextTry  time.Time   // not before; the zero time: at once
	making   sync.Mutex  // one officer is made at a time
}

// New makes the service. It lets who has entered the claim code restore a backup on the pages of the machine.
func New(deps web.Deps, machine *box.Pages, inviter Inviter) (*Service, error) {
	kinds, err := Kinds()
	if err != nil {
		return nil, err
	}
	s := &Service{deps: deps, machine: machine, inviter: inviter, kinds: kinds}
	machine.Admitted = func(r *web.Request) bool { return s.Admitted(s.token(r.HTTP)) }
	return s, nil
}

// askTime bounds a question to the box while a visitor waits.
const askTime = 5 * time.Second

// Unclaimed tells that there is no officer yet: nothing of the portal is for anybody but who has the claim code.
func (s *Service) Unclaimed() bool {
	if s.over.Load() {
		return false
	}
	st, err := s.State()
	if err == nil && !st.Officer.Made { // a portal that has lost what it kept, on a box that has not
		ctx, cancel := context.WithTimeout(context.Background(), askTime)
		defer cancel()
		var c api.Claim
		if c, err = s.deps.Box.Claim(ctx); err == nil && !c.Claimed {
			return true
		}
	}
	if err != nil {
		return true
	}
	s.over.Store(true)
	return false
}

// tellEvery is how often the box is told again that it has an officer if it did not answer.
const tellEvery = 10 * time.Second

// Run tells the box that it has an officer as soon as there is one, until it knows or ctx ends. A box that a backup was
// restored on learns it so.
func (s *Service) Run(ctx context.Context) {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		if done, _ := s.tellBox(ctx); done { // an error is gone at the next try, or the box has told it
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// tellBox tells the box that it has an officer, if there is one, so that the claim code is void. done: it knows.
func (s *Service) tellBox(ctx context.Context) (done bool, err error) {
	st, err := s.State()
	if err != nil || !st.Officer.Made {
		return false, err
	}
	c, err := s.deps.Box.Claim(ctx)
	if err == nil && !c.Claimed {
		err = s.deps.Box.Claimed(ctx)
	}
	if err != nil {
		return false, fmt.Errorf("cannot tell the box that it has an officer: %w", err)
	}
	return true, nil
}

// ErrNameTaken says that somebody else has the name already.
var ErrNameTaken = errors.New("somebody has this name already")

// MakeOfficer makes the first officer's account with her office. It can be repeated after it failed anywhere, with the same
// name; once it has succeeded there is no other first officer.
func (s *Service) MakeOfficer(ctx context.Context, want Officer, language, password string) error {
	s.making.Lock()
	defer s.making.Unlock()
	st, err := s.State()
	switch {
	case err != nil:
		return err
	case st.Officer.Made:
		return ErrClaimed
	}
	if st.Officer.Name != want.Name { // it was not us who made an account of this name
		_, err := s.deps.Directory.Person(ctx, want.Name)
		if err == nil {
			return ErrNameTaken
		}
		if !errors.Is(err, directory.ErrNotFound) {
			return err
		}
		if err := s.forgetHalf(ctx, st.Officer.Name); err != nil {
			return err
		}
	}
	want.Made = false
	if _, err := s.change(func(_ *store.Tx, st *State) error { st.Officer, st.Language = want, language; return nil }); err != nil {
		return err
	}
	if err := s.writeOfficer(ctx, want, language, password); err != nil {
		return err
	}
	_, err = s.change(func(tx *store.Tx, st *State) error {
		st.Officer.Made, st.Browsers = true, nil
		st.finish(StepClaim, s.deps.Clock(), false)
		st.finish(StepOfficer, s.deps.Clock(), false)
		return s.deps.Audit.RecordIn(tx, audit.Entry{Kind: "firstrun.officer", Actor: want.Name, Subject: want.Name,
			Args: map[string]string{"office": want.Office}})
	})
	if err != nil {
		return err
	}
	if _, err := s.tellBox(ctx); err != nil { // Run tries again
		s.deps.Log.Warn("first run", "error", err)
	}
	return nil
}

// forgetHalf removes the account of an earlier try that failed half-way.
func (s *Service) forgetHalf(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	err := s.deps.Directory.RemovePerson(ctx, name)
	if errors.Is(err, directory.ErrNotFound) {
		return nil
	}
	return err
}

// writeOfficer writes what the directory has of the officer. The password comes before the office: nobody runs the box without.
func (s *Service) writeOfficer(ctx context.Context, o Officer, language, password string) error {
	d := s.deps.Directory
	err := d.AddPerson(ctx, directory.Person{Name: o.Name, Given: o.Given, Family: o.Family, OutsideMail: o.OutsideMail,
		Language: language})
	if errors.Is(err, directory.ErrExists) {
		err = d.ChangePerson(ctx, o.Name, "", func(p *directory.Person) {
			p.Given, p.Family, p.Display, p.OutsideMail, p.Language = o.Given, o.Family, "", o.OutsideMail, language
		})
	}
	if err != nil {
		return err
	}
	if err := d.SetPassword(ctx, o.Name, password); err != nil {
		return err
	}
	for _, group := range []string{membersGroup, officersGroup} {
		if err := d.AddMember(ctx, group, o.Name); err != nil && !errors.Is(err, directory.ErrExists) {
			return err
		}
		if err := d.SetOwners(ctx, group, []string{o.Name}); err != nil {
			return err
		}
	}
	return d.AppointTo(ctx, o.Office, o.Name, s.deps.Clock(), time.Time{})
}

// Organisation is what the step of that name asks.
type Organisation struct {
	Name, TimeZone, Contact string
	Kind                    string
	Language                string
	Revision                int // of the state that the page showed
}

// Organise tells the box what the organisation is called, and makes the groups and offices of its kind that are not there
// yet. Faults are the fields that the box refuses.
func (s *Service) Organise(ctx context.Context, by string, o Organisation) error {
	kind := s.Kind(o.Kind)
	if kind == nil {
		return fmt.Errorf("cannot organise: there is no kind %q", o.Kind)
	}
	st, err := s.State()
	if err != nil {
		return err
	}
	if st.Revision != o.Revision {
		return ErrStale
	}
	err = s.deps.Box.SetSettings(ctx, "", map[string]any{"name": o.Name, "language": o.Language, "time-zone": o.TimeZone,
		"contact": o.Contact})
	if err != nil {
		return err
	}
	for _, g := range kind.Groups {
		err := s.deps.Directory.AddGroup(ctx, directory.Group{Name: g.Name, Title: g.Title.In(o.Language), Owners: []string{by}})
		if err != nil && !errors.Is(err, directory.ErrExists) {
			return err
		}
	}
	for _, x := range kind.Offices {
		err := s.deps.Directory.AddOffice(ctx, directory.Office{Name: x.Name, Title: x.Title.In(o.Language)})
		if err != nil && !errors.Is(err, directory.ErrExists) {
			return err
		}
	}
	_, err = s.change(func(tx *store.Tx, st *State) error {
		st.Kind, st.Language = o.Kind, o.Language
		st.finish(StepOrganisation, s.deps.Clock(), false)
		return s.deps.Audit.RecordIn(tx, audit.Entry{Kind: "firstrun.organisation", Actor: by, Subject: o.Name})
	})
	return err
}

// Kind is the kind of that name, or nil.
func (s *Service) Kind(name string) *Kind {
	if i := slices.IndexFunc(s.kinds, func(k Kind) bool { return k.Name == name }); i >= 0 {
		return &s.kinds[i]
	}
	return nil
}

// Proposal is a module that can be chosen.
type Proposal struct {
	api.Module
	Core     bool // it cannot be off
	Proposed bool // for this kind of organisation, or chosen already
	Share    int  // per cent of the machine's memory that it usually takes
}

// Proposals are the modules that the image has, with what each takes of the machine.
func (s *Service) Proposals(ctx context.Context) ([]Proposal, error) {
	st, err := s.State()
	if err != nil {
		return nil, err
	}
	modules, err := s.deps.Box.Modules(ctx)
	if err != nil {
		return nil, err
	}
	r, err := s.deps.Box.Resources(ctx)
	if err != nil {
		return nil, err
	}
	kind := s.Kind(st.Kind)
	var all []Proposal
	for _, m := range modules {
		p := Proposal{Module: m, Core: m.Importance == "core", Proposed: m.On}
		if kind != nil && !st.IsDone(StepModules) {
			p.Proposed = slices.Contains(kind.Modules, m.Name)
		}
		p.Proposed = p.Proposed || p.Core
		p.Share = Share(m, r.Memory)
		all = append(all, p)
	}
	return all, nil
}

// Share is the part of the machine's memory that a module usually takes, in per cent.
func Share(m api.Module, memory int64) int {
	mib := m.Memory.Typical
	if mib == 0 {
		mib = m.Memory.Max
	}
	return int((int64(mib)<<20*100 + memory/2) / max(memory, 1))
}

// Choose switches modules on and off, those that others need first on and last off, and fills in the first settings of the kind of organisation.
func (s *Service) Choose(ctx context.Context, by string, on []string, revision int) error {
	st, err := s.State()
	if err != nil {
		return err
	}
	if st.Revision != revision {
		return ErrStale
	}
	modules, err := s.deps.Box.Modules(ctx)
	if err != nil {
		return err
	}
	order := inOrder(modules)
	for _, m := range order {
		if slices.Contains(on, m.Name) && !m.On {
			if err := s.deps.Box.Switch(ctx, m.Name, true); err != nil {
				return err
			}
		}
	}
	for _, m := range slices.Backward(order) {
		if m.Importance != "core" && m.On && !slices.Contains(on, m.Name) {
			if err := s.deps.Box.Switch(ctx, m.Name, false); err != nil {
				return err
			}
		}
	}
	if !st.IsDone(StepModules) {
		if err := s.fillIn(ctx, st, on); err != nil {
			return err
		}
	}
	return s.record(audit.Entry{Kind: "firstrun.modules", Actor: by, Subject: strings.Join(on, ", ")}, StepModules)
}

// inOrder puts each module after those that it needs.
func inOrder(modules []api.Module) []api.Module {
	var all []api.Module
	has := func(name string) bool {
		return slices.ContainsFunc(all, func(m api.Module) bool { return m.Name == name })
	}
	for range modules {
		for _, m := range modules {
			if !has(m.Name) && !slices.ContainsFunc(m.Needs, func(n string) bool { return !has(n) }) {
				all = append(all, m)
			}
		}
	}
	return all
}

// fillIn sets what the kind of organisation proposes. A setting that this release of a module lacks is left out.
func (s *Service) fillIn(ctx context.Context, st State, on []string) error {
	kind := s.Kind(st.Kind)
	if kind == nil {
		return nil
	}
	for module, settings := range kind.Settings {
		if !slices.Contains(on, module) {
			continue
		}
		values := map[string]any{}
		for name, text := range settings {
			values[name] = text.In(st.Language)
		}
		err := s.deps.Box.SetSettings(ctx, module, values)
		if err != nil && !errors.Is(err, &api.Error{Code: api.Invalid}) {
			return err
		}
	}
	return nil
}

// record notes a step as done, with who did it.
func (s *Service) record(e audit.Entry, step Step) error {
	_, err := s.change(func(tx *store.Tx, st *State) error {
		st.finish(step, s.deps.Clock(), false)
		return s.deps.Audit.RecordIn(tx, e)
	})
	return err
}
