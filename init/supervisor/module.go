package supervisor

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"allotment/api"
	"allotment/init/container"
	"allotment/init/network"
	"allotment/init/plan"
)

// module is one module of the box. Everything in it belongs to the supervisor's loop.
type module struct {
	plan       *plan.Module
	units      []*unit                       // its services, each after those that it needs
	migrations []*migration                  // in the order in which they run
	on         bool                          // an officer wants it to run
	held       bool                          // it stops in order to be replaced
	settled    bool                          // it was prepared, or cannot be: see problem
	attempts   int                           // to prepare it that have failed in a row
	network    string                        // path of its network namespace; empty: not prepared
	layers     []string                      // files; gone once they were read for damage
	problem    string                        // why it cannot be prepared, or which migration failed
	tasks      map[string]context.CancelFunc // those that run, by their ids
	version    int                           // of its declaration: developers replace it
}

// runs tells whether units of the module may run; those of no module always may.
func (m *module) runs() bool { return m == nil || m.on && !m.held }

// wire makes modules and units of the plan. Those that are there already, by their names, go on with what they are doing.
func (s *Supervisor) wire(p *plan.Plan) {
	old, before, units := s.modules, map[string]*unit{}, map[string]*unit{}
	s.plan, s.modules, s.units = p, nil, nil
	for _, m := range old {
		for _, u := range m.units {
			before[u.name] = u
		}
	}
	for _, pm := range p.Modules {
		m := findModule(old, pm.Name)
		if m == nil {
			m = &module{on: true, tasks: map[string]context.CancelFunc{}}
		}
		m.wire(pm)
		m.units = nil
		for _, service := range pm.Services {
			u := before[service.ID]
			delete(before, service.ID)
			if u == nil {
				u = &unit{name: service.ID, job: s.newJob(), machine: machine{state: waiting, since: s.now()}}
			}
			units[service.ID] = u
			u.module, u.importance = m, pm.Importance
			u.job.(containerJob).set(service)
			m.units = append(m.units, u)
		}
		s.modules = append(s.modules, m)
		s.units = append(s.units, m.units...)
	}
	for _, u := range before {
		u.job.(containerJob).close()
	}
	s.connect(units)
}

// wire makes the module's migrations. What was done stays done.
func (m *module) wire(p *plan.Module) {
	old := m.migrations
	m.plan, m.migrations = p, nil
	for _, d := range p.Migrations {
		next := &migration{plan: d}
		for _, o := range old {
			if o.plan.ID == d.ID {
				next.state = o.state
			}
		}
		m.migrations = append(m.migrations, next)
	}
}

// connect lets units know what they wait for, at their start and at their end. The resolver is there before all services
// and after them; the gateway starts with it, so that visitors are told to wait, and stops first.
func (s *Supervisor) connect(units map[string]*unit) {
	for _, u := range s.units {
		u.needs, u.after, u.under = nil, nil, nil
	}
	for _, d := range s.daemons {
		d.under = nil
	}
	for _, m := range s.modules {
		for i, service := range m.plan.Services {
			u := m.units[i]
			for _, need := range service.Requires {
				u.needs = append(u.needs, units[need.ID])
				units[need.ID].under = append(units[need.ID].under, u)
			}
			u.after = m.migrations[:len(service.After)]
		}
	}
	s.connectDaemons()
	s.units = append(s.units, s.daemons...)
}

func findModule(all []*module, name string) *module {
	for _, m := range all {
		if m.plan.Name == name {
			return m
		}
	}
	return nil
}

// eventPrepared tells that a module was prepared, or cannot be.
type eventPrepared struct {
	module  *module
	version int // of the module
	parts   parts
	err     error
	lasting bool // only other settings could mend it
}

// parts are what a module's containers are made of.
type parts struct {
	network string          // path of the network namespace
	layers  []string        // files
	formats map[string]int  // of the content of volumes, by their names
	changed []*plan.Service // that depend on a file that is another one than before
}

// prepareModule prepares a module beside the loop.
func (s *Supervisor) prepareModule(ctx context.Context, m *module) {
	p, all, state, files, version := m.plan, s.plan, s.state, s.files, m.version
	go func() {
		e := eventPrepared{module: m, version: version}
		if e.parts, e.err = s.prepares(state, p); e.err == nil {
			e.parts.changed, e.err = files.install(all, p, s.wallClock())
			e.lasting = e.err != nil
		}
		s.send(e)
	}()
}

// prepareAfresh prepares a module that has another declaration than before. Whoever asked for it waits for the outcome, so there
// is no second attempt.
func (s *Supervisor) prepareAfresh(ctx context.Context, m *module) {
	m.version++
	m.settled, m.network, m.problem, m.layers, m.attempts = false, "", "", nil, mostPreparations-1
	for _, u := range m.units {
		u.prepared = false
	}
	s.release(m)
	s.prepareModule(ctx, m)
}

// prepare makes what the module's containers need. A layer that the store refuses is damage, which is not for the module
// alone to bear.
func (s *Supervisor) prepare(state State, m *plan.Module) (parts, error) {
	out := parts{formats: map[string]int{}}
	var err error
	if out.network, err = network.Module(m, filepath.Join(s.config.Run, "net")); err != nil {
		return out, err
	}
	from := container.Sources{Volumes: map[string]string{}}
	for _, d := range m.Layers {
		file, err := s.layerOf(state, d)
		if err != nil {
			s.send(eventBroken{"layer", err})
			return out, err
		}
		from.Layers = append(from.Layers, file)
	}
	out.layers = from.Layers
	for _, v := range m.Volumes {
		if from.Volumes[v.Name], err = state.Volume(m.Name, v); err != nil {
			return out, err
		}
		if out.formats[v.Name], err = state.Format(m.Name, v.Name); err != nil {
			return out, err
		}
		if out.formats[v.Name] > v.Format {
			return out, fmt.Errorf("volume %s has the format %d of a later release; this one knows %d", v.Name,
				out.formats[v.Name], v.Format)
		}
	}
	return out, s.runtime.Prepare(m, from)
}

func (s *Supervisor) onPrepared(ctx context.Context, e eventPrepared) {
	m := e.module
	if m.version != e.version {
		return // it was replaced meanwhile
	}
	for _, u := range m.units {
		if e.err == nil {
			e.err = u.job.(containerJob).open(e.parts.network, filepath.Join(s.config.State, "logs"), s.warn)
		}
	}
	if e.err != nil {
		s.notPrepared(e)
		return
	}
	m.settled, m.attempts = true, 0
	m.problem, m.network, m.layers = "", e.parts.network, e.parts.layers
	for _, d := range m.migrations {
		if e.parts.formats[d.plan.Volume] >= d.plan.Format {
			d.state = migrated
		}
	}
	for _, u := range m.units {
		u.prepared = true
		u.machine.overBackoff(s.now()) // if an earlier attempt failed
		s.adopt(ctx, u)
	}
	for _, service := range e.parts.changed { // an earlier supervisor may have ended in the middle of a change
		if u := s.unit(service.ID); u != nil && u.process != nil {
			s.perform(ctx, u, u.machine.restart(s.now()))
		}
	}
}

// mostPreparations bounds how often in a row a module is prepared in vain, with pauses that double: what fails may be a passing
// want of something in the kernel.
const mostPreparations = 6

// eventPrepareAgain asks for another attempt after so many have failed.
type eventPrepareAgain struct {
	module            *module
	version, attempts int
}

// notPrepared has the module prepared again after a pause, or gives it up.
func (s *Supervisor) notPrepared(e eventPrepared) {
	m := e.module
	m.attempts++
	next := backoff
	if m.settled = e.lasting || m.attempts >= mostPreparations; m.settled {
		next, m.problem = failed, e.err.Error() // nothing changes before the next boot, or before settings do
		text := m.plan.Title + " cannot run: " + m.problem
		s.record(api.Event{Level: api.Bad, Kind: "module", Module: m.plan.Name, Text: text}, nil)
	} else {
		again := eventPrepareAgain{m, m.version, m.attempts}
		time.AfterFunc(firstBackoff<<(m.attempts-1), func() { s.send(again) })
	}
	s.log.Error("cannot prepare a module", "module", m.plan.Name, "error", e.err, "for good", m.settled)
	for _, u := range m.units {
		u.problem = e.err.Error()
		u.machine.to(next, s.now())
	}
}

// onPrepareAgain prepares a module once more, unless somebody has had that done meanwhile.
func (s *Supervisor) onPrepareAgain(ctx context.Context, e eventPrepareAgain) {
	if e.module.version == e.version && e.module.attempts == e.attempts && !e.module.settled {
		s.prepareModule(ctx, e.module)
	}
}

// stopWhatMustNotRun makes the units of modules end that are off or held.
func (s *Supervisor) stopWhatMustNotRun(ctx context.Context) {
	var units []*unit
	for _, m := range s.modules {
		if m.runs() || !m.settled {
			continue
		}
		for _, cancel := range m.tasks {
			cancel()
		}
		units = append(units, m.units...)
	}
	s.stopNext(ctx, units)
}

// standsStill tells whether nothing of the module runs.
func (m *module) standsStill() bool { return allIn(m.units, stopped) && len(m.tasks) == 0 }

// state is the module in one of the words of api.Module.
func (m *module) state() string {
	counts := map[phase]int{}
	for _, u := range m.units {
		counts[u.machine.state]++
	}
	switch {
	case !m.on && counts[stopped] == len(m.units):
		return "off"
	case m.problem != "" || counts[failed] > 0:
		return "failed"
	case counts[ready] == len(m.units):
		return "ready"
	case counts[backoff]+counts[ending] > 0:
		return "degraded"
	}
	return "starting"
}

// trouble is why the module is not ready, in the words of its services; empty if it is, or is merely starting.
func (m *module) trouble() string {
	if m.problem != "" {
		return m.problem
	}
	var all []string
	for _, u := range m.units {
		if u.machine.state != ready && u.problem != "" {
			all = append(all, strings.TrimPrefix(u.name, m.plan.Name+".")+": "+u.problem)
		}
	}
	return strings.Join(all, "; ")
}

// wallClock is the time of day, for what is dated.
func (s *Supervisor) wallClock() time.Time { return time.Now() }
