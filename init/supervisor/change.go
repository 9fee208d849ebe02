package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"allotment/api"
	"allotment/image"
	"allotment/init/plan"
	"allotment/init/settings"
)

// Settings implements apiserver.Box.
func (b *Box) Settings(module string) (api.Settings, error) {
	f, p, err := b.supervisor.filesAndPlan()
	if err != nil {
		return api.Settings{}, err
	}
	v := f.settings.Values()
	if module == "" {
		return api.Settings{Form: organisationForm, Values: organisationValues(v.Organisation())}, nil
	}
	m := p.Module(module)
	if m == nil {
		return api.Settings{}, api.Errorf(api.NotFound, "there is no module %q", module)
	}
	return api.Settings{Form: m.Declared.Settings, Values: v.Module(module)}, nil
}

func organisationValues(o image.Organisation) map[string]any {
	return map[string]any{
		"name": o.Name, "domain": o.Domain, "language": o.Language, "time-zone": o.TimeZone, "contact": o.Contact,
	}
}

// filesAndPlan are what the loop works with at the moment.
func (s *Supervisor) filesAndPlan() (*files, *plan.Plan, error) {
	var f *files
	var p *plan.Plan
	if err := s.call(func(context.Context) { f, p = s.files, s.plan }); err != nil {
		return nil, nil, err
	}
	if f == nil {
		return nil, nil, api.Errorf(api.Conflict, "the state partition is not open yet")
	}
	return f, p, nil
}

// SetSettings implements apiserver.Box. What is rendered of the new settings counts only if the services that depend on it
// get ready with it; otherwise all is as it was before. What has begun goes on when who asked for it leaves.
func (b *Box) SetSettings(ctx context.Context, module string, changes map[string]any) error {
	s, ctx := b.supervisor, context.WithoutCancel(ctx)
	s.changing.Lock()
	defer s.changing.Unlock()
	f, p, err := s.filesAndPlan()
	if err != nil {
		return err
	}
	before := f.settings.Values()
	next, err := changed(before, p, module, changes)
	if err != nil {
		return asInvalid(err)
	}
	concerned := p.Modules
	if module != "" {
		concerned = []*plan.Module{p.Module(module)}
	}
	c := &change{Supervisor: s, files: f, plan: p}
	if err := c.make(next, concerned); err != nil {
		return api.Errorf(api.Invalid, "%v", err)
	}
	err = c.apply(ctx)
	if err == nil {
		err = f.settings.Save(next)
	}
	if err != nil {
		return s.takeBack(f, p, before, concerned, err)
	}
	err = s.call(func(ctx context.Context) {
		s.domain = next.Organisation().Domain
		s.retryModules(ctx, concerned)
	})
	if err != nil {
		return err
	}
	what := "the organisation's settings"
	if module != "" {
		what = "settings of " + module
	}
	s.log.Info("settings changed", "module", module)
	s.record(api.Event{Level: api.Good, Kind: "settings", Module: module, Text: what + " were changed"}, nil)
	return nil
}

// changed are the settings with the changes.
func changed(v settings.Values, p *plan.Plan, module string, changes map[string]any) (settings.Values, error) {
	if module != "" {
		if p.Module(module) == nil {
			return v, api.Errorf(api.NotFound, "there is no module %q", module)
		}
		return v.WithModule(module, changes)
	}
	o := v.Organisation()
	fields := map[string]*string{
		"name": &o.Name, "domain": &o.Domain, "language": &o.Language, "time-zone": &o.TimeZone, "contact": &o.Contact,
	}
	var faults settings.Faults
	for name, value := range changes {
		field, text := fields[name], ""
		text, ok := value.(string)
		switch {
		case field == nil:
			faults = append(faults, settings.Fault{Field: name, Message: "is no field of the organisation"})
		case !ok:
			faults = append(faults, settings.Fault{Field: name, Message: "must be text"})
		default:
			*field = text
		}
	}
	if len(faults) > 0 {
		slices.SortFunc(faults, func(a, b settings.Fault) int { return strings.Compare(a.Field, b.Field) })
		return v, faults
	}
	return v.WithOrganisation(o)
}

// asInvalid makes an answer of refused fields.
func asInvalid(err error) error {
	var faults settings.Faults
	if !errors.As(err, &faults) {
		return err
	}
	e := api.Errorf(api.Invalid, "these settings cannot be taken")
	for _, f := range faults {
		e.Faults = append(e.Faults, api.Fault{Field: f.Field, Text: f.Message})
	}
	return e
}

// change is one exchange of the files of some modules.
type change struct {
	*Supervisor
	files *files
	plan  *plan.Plan
	next  map[*plan.Module]made
	units []affected // that depend on a file that was exchanged
}

// affected is a unit that depends on a file that was exchanged.
type affected struct {
	*unit
	wasReady bool
	restarts int
}

// make makes the files of the modules, and shows none.
func (c *change) make(v settings.Values, concerned []*plan.Module) error {
	all := c.files.make(c.plan, v, c.wallClock(), concerned...)
	c.next = map[*plan.Module]made{}
	var errs []error
	for _, m := range concerned {
		c.next[m] = all[m.Name]
		errs = append(errs, all[m.Name].err)
	}
	return errors.Join(errs...)
}

// settle is how long services must stay ready: some end only a moment after they were told to read a file again.
const settle = 3 * time.Second

// apply shows the files, lets the services that depend on them take them, and waits until those are ready that were.
func (c *change) apply(ctx context.Context) error {
	if err := c.show(); err != nil {
		return err
	}
	if err := c.await(ctx, c.decided); err != nil {
		return err
	}
	settled, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	_ = c.await(settled, func() bool { return c.failure() != nil })
	var failed error
	err := c.call(func(context.Context) { failed = c.failure() })
	return firstOf(err, failed)
}

// show shows the files and lets the services that depend on them take them.
func (c *change) show() error {
	var dependents []*plan.Service
	for _, m := range c.plan.Modules {
		x, ok := c.next[m]
		if !ok {
			continue
		}
		services, err := c.files.show(m, x)
		if err != nil {
			return err
		}
		dependents = append(dependents, services...)
	}
	return c.call(func(ctx context.Context) { c.renew(ctx, dependents) })
}

// renew reloads or restarts the services' units.
func (c *change) renew(ctx context.Context, services []*plan.Service) {
	for _, service := range services {
		u := c.unit(service.ID)
		if u == nil || !u.prepared || !u.module.runs() {
			continue // it takes the files when it starts
		}
		c.units = append(c.units, affected{u, u.machine.state == ready, u.restarts})
		a := u.machine.restart
		if service.Reload != "" {
			a = u.machine.reload
		}
		c.log.Info("taking new files", "unit", u.name)
		c.perform(ctx, u, a(c.now()))
	}
}

// retryModules prepares modules that could not be prepared: they may have wanted for other settings.
func (s *Supervisor) retryModules(ctx context.Context, concerned []*plan.Module) {
	for _, m := range s.modules {
		if m.settled && m.network == "" && slices.Contains(concerned, m.plan) {
			m.settled, m.attempts = false, 0
			s.prepareModule(ctx, m)
		}
	}
}

// decided tells whether the units that were ready are so again, or one of them failed.
func (c *change) decided() bool {
	if c.failure() != nil {
		return true
	}
	return !slices.ContainsFunc(c.units, func(a affected) bool {
		return a.wasReady && a.module.runs() && a.machine.state != ready
	})
}

// failure is why a unit that was ready is no good with the new files.
func (c *change) failure() error {
	for _, a := range c.units {
		if a.wasReady && (a.unit.restarts > a.restarts || a.machine.state == ending) {
			return fmt.Errorf("%s: %s", a.name, a.problem)
		}
	}
	return nil
}

// takeBack shows the files of the settings from before again, and returns the error for whoever asked for the change.
func (s *Supervisor) takeBack(f *files, p *plan.Plan, before settings.Values, concerned []*plan.Module, why error) error {
	s.log.Error("settings are taken back", "why", why)
	s.record(api.Event{Level: api.Fair, Kind: "settings", Text: "a change of settings was taken back: " + why.Error()}, nil)
	c := &change{Supervisor: s, files: f, plan: p}
	err := c.make(before, concerned)
	if err == nil {
		err = c.show()
	}
	if err != nil {
		return fmt.Errorf("the change does not work (%w), and it cannot be taken back: %w", why, err)
	}
	return api.Errorf(api.Conflict, "the change was taken back, because with it %v", why)
}
