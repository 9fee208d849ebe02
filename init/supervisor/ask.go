package supervisor

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"allotment/api"
	"allotment/image"
	"allotment/init/check"
	"allotment/init/plan"
)

// Tasks implements apiserver.Box.
func (b *Box) Tasks() []api.Task {
	var all []api.Task
	_ = b.supervisor.call(func(context.Context) { // while the box ends there are none
		for _, m := range b.supervisor.modules {
			all = append(all, tasksOf(m.plan)...)
		}
	})
	return all
}

// tasksOf lists what the module can be asked to do.
func tasksOf(p *plan.Module) []api.Task {
	var all []api.Task
	d := p.Declared
	for _, j := range d.Journeys {
		all = append(all, api.Task{Module: p.Name, Kind: api.Journey, Name: j.Name, Title: j.Title})
	}
	for _, r := range d.Repairs {
		all = append(all, api.Task{Module: p.Name, Kind: api.Repair, Name: r.Name, Title: r.Title, Help: r.Help})
	}
	for _, m := range p.Migrations {
		all = append(all, api.Task{Module: p.Name, Kind: api.Migration, Name: migrationName(m)})
	}
	for _, s := range backupSteps(d.Backup) {
		all = append(all, api.Task{Module: p.Name, Kind: api.Backup, Name: s.name})
	}
	return all
}

func migrationName(m *plan.Migration) string { return m.Volume + "-" + strconv.Itoa(m.Format) }

type backupStep struct {
	name  string
	task  *image.Task
	stops []string // services that must not run meanwhile
}

// backupSteps are those that are set, in their usual order.
func backupSteps(b *image.Backup) []backupStep {
	if b == nil {
		return nil
	}
	all := []backupStep{
		{name: "quiesce", task: b.Quiesce}, {name: "resume", task: b.Resume}, {name: "dump", task: b.Dump},
		{name: "verify", task: b.Verify},
	}
	if b.Restore != nil {
		all = append(all, backupStep{"restore", &b.Restore.Task, b.Restore.Stops})
	}
	all = append(all, backupStep{name: "restore-test", task: b.RestoreTest}, backupStep{name: "export", task: b.Export})
	return slices.DeleteFunc(all, func(s backupStep) bool { return s.task == nil })
}

// step is a part of what RunTask does: a container, or a question.
type step struct {
	title   string
	service *plan.Service
	stops   []string // services of the module that must not run meanwhile
	ask     check.Question
}

// stepTimeout bounds one step of a journey that is no task. It is far more than a member would wait: a small machine may be busy
// with a first start, and an update is not to fail for that.
const stepTimeout = 90 * time.Second

// steps are those of a journey, repair or backup step.
func (s *Supervisor) steps(f *files, p *plan.Module, t api.Task) ([]step, error) {
	d := p.Declared
	switch t.Kind {
	case api.Journey:
		for _, j := range d.Journeys {
			if j.Name == t.Name {
				return s.journey(f, p, j)
			}
		}
	case api.Repair:
		for _, r := range d.Repairs {
			if r.Name == t.Name {
				service, err := plan.Task(p, "repair-"+r.Name, &r.Task)
				return []step{{title: r.Title, service: service}}, err
			}
		}
	case api.Backup:
		for _, b := range backupSteps(d.Backup) {
			if b.name == t.Name {
				service, err := plan.Task(p, "backup-"+b.name, b.task)
				return []step{{title: b.name, service: service, stops: b.stops}}, err
			}
		}
	}
	return nil, api.Errorf(api.NotFound, "%s has no %s %q", p.Title, t.Kind, t.Name)
}

func (s *Supervisor) journey(f *files, p *plan.Module, j image.Journey) ([]step, error) {
	secrets := func(name string) (string, error) { return f.secret(p, name, s.wallClock()) }
	var all []step
	for i, d := range j.Steps {
		next := step{title: d.Title, ask: check.Step(d, p.IPv4.Addr(), secrets)}
		if d.Task != nil {
			service, err := plan.Task(p, fmt.Sprintf("journey-%s-%d", j.Name, i+1), d.Task)
			if err != nil {
				return nil, err
			}
			next.service = service
		}
		all = append(all, next)
	}
	return all, nil
}

// RunTask implements apiserver.Box.
func (b *Box) RunTask(ctx context.Context, t api.Task) iter.Seq2[api.Progress, error] {
	s := b.supervisor
	if t.Kind == api.Migration {
		return s.runMigration(ctx, t)
	}
	return func(yield func(api.Progress, error) bool) {
		m, steps, err := s.prepareSteps(t)
		if err != nil {
			yield(api.Progress{}, err)
			return
		}
		s.log.Info("task", "module", t.Module, "kind", t.Kind, "name", t.Name)
		begun := s.now()
		last := api.Progress{Done: true, OK: true}
		for i, x := range steps {
			if !yield(api.Progress{Step: i + 1, Title: x.title}, nil) {
				return
			}
			p, err := s.runStep(ctx, m, x)
			if err != nil {
				yield(api.Progress{}, err)
				return
			}
			p.Step = i + 1
			if !yield(p, nil) {
				return
			}
			if last.OK, last.Problem, last.Output = p.OK, p.Problem, p.Output; !p.OK {
				break
			}
		}
		last.Seconds = s.now().Sub(begun).Seconds()
		s.taskEnded(t, last)
		yield(last, nil)
	}
}

func (s *Supervisor) prepareSteps(t api.Task) (m *module, steps []step, err error) {
	f, p, err := s.filesAndPlan()
	if err != nil {
		return nil, nil, err
	}
	module := p.Module(t.Module)
	if module == nil {
		return nil, nil, api.Errorf(api.NotFound, "there is no module %q", t.Module)
	}
	if steps, err = s.steps(f, module, t); err != nil {
		return nil, nil, err
	}
	failed := s.call(func(context.Context) { m, err = s.find(t.Module) })
	if failed != nil {
		err = failed
	}
	return m, steps, err
}

// runStep runs one step to its end. The error is of the box: the step could not be run.
func (s *Supervisor) runStep(ctx context.Context, m *module, x step) (api.Progress, error) {
	p := api.Progress{Title: x.title, Done: true}
	begun := s.now()
	var err error
	if x.service != nil {
		if len(x.stops) > 0 { // who asked may leave, but a module half brought back is no good
			ctx = context.WithoutCancel(ctx)
		}
		var t *task
		if failed := s.call(func(context.Context) { t, err = s.begin(ctx, m, x.service) }); failed != nil || err != nil {
			return p, firstOf(failed, err)
		}
		p.Output, err = s.runWithout(t, m, x.stops)
		t.end()
	} else {
		limited, cancel := context.WithTimeout(ctx, stepTimeout)
		err = x.ask(limited)
		cancel()
	}
	if p.OK = err == nil; !p.OK {
		p.Problem = err.Error()
	}
	p.Seconds = s.now().Sub(begun).Seconds()
	return p, nil
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// taskEnded tells how a task ended as a whole.
func (s *Supervisor) taskEnded(t api.Task, p api.Progress) {
	what := fmt.Sprintf("%s %s of %s", t.Kind, t.Name, t.Module)
	e := api.Event{Level: api.Good, Kind: "task", Module: t.Module, Text: what + " succeeded"}
	if !p.OK {
		e.Level, e.Text = api.Bad, what+" failed: "+p.Problem
		s.log.Error("a task failed", "module", t.Module, "kind", t.Kind, "name", t.Name, "why", p.Problem)
	}
	s.record(e, nil)
}

// runMigration lets a migration that failed run once more, which happens as soon as what it needs is ready.
func (s *Supervisor) runMigration(ctx context.Context, t api.Task) iter.Seq2[api.Progress, error] {
	return func(yield func(api.Progress, error) bool) {
		var d *migration
		var m *module
		var err error
		failed := s.call(func(context.Context) { m, d, err = s.retryMigration(t) })
		if failed != nil || err != nil {
			yield(api.Progress{}, firstOf(failed, err))
			return
		}
		begun := s.now()
		if err := s.await(ctx, func() bool { return d.state == migrated || d.state == broken }); err != nil {
			yield(api.Progress{}, err)
			return
		}
		last := api.Progress{Done: true, Seconds: s.now().Sub(begun).Seconds()}
		failed = s.call(func(context.Context) {
			if last.OK = d.state == migrated; !last.OK {
				last.Problem = m.problem
			}
		})
		yield(last, failed)
	}
}

func (s *Supervisor) retryMigration(t api.Task) (*module, *migration, error) {
	m, err := s.find(t.Module)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range m.migrations {
		switch {
		case migrationName(d.plan) != t.Name:
		case d.state == migrated:
			return nil, nil, api.Errorf(api.Conflict, "volume %s of %s has that format already", d.plan.Volume, m.plan.Title)
		case !m.runs():
			return nil, nil, api.Errorf(api.Conflict, "%s is switched off", m.plan.Title)
		default:
			d.retry(m)
			return m, d, nil
		}
	}
	return nil, nil, api.Errorf(api.NotFound, "%s has no migration %q", m.plan.Title, t.Name)
}
