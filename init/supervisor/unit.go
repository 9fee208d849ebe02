package supervisor

import (
	"context"
	"time"

	"allotment/init/plan"
	"allotment/init/reaper"
)

// unit is one thing that is kept running: a service's container, or the gateway. Everything in it belongs to the
// supervisor's loop.
type unit struct {
	name       string
	importance plan.Importance
	needs      []*unit // must be ready before this one starts
	under      []*unit // must have stopped before this one is asked to: those that need it
	job        job
	prepared   bool // what the job needs of the host is there

	machine machine
	process *reaper.Process // nil: none runs
	problem string          // why it failed last
}

// job does what a unit's machine says. Its methods are called from goroutines of their own, one at a time.
type job interface {
	// find returns the process if an earlier supervisor started it, else nil.
	find() *reaper.Process
	// start starts the process.
	start(ctx context.Context) (*reaper.Process, error)
	// check returns nil once the unit is ready, an error if it has had its time.
	check(ctx context.Context) error
	// signal asks the process to end.
	signal(p *reaper.Process) error
	// kill ends the process and all that it started.
	kill(p *reaper.Process)
	// cleanup takes away what is left after the process ended, and may know why it did.
	cleanup(ctx context.Context) string
}

// Events that jobs report to the loop.
type (
	eventStarted struct {
		unit    *unit
		process *reaper.Process
		err     error
	}
	eventChecked struct {
		unit    *unit
		process *reaper.Process
		err     error
	}
	eventExited struct {
		unit    *unit
		process *reaper.Process
		why     string
	}
	eventPauseOver struct{ unit *unit }
)

const startTimeout = time.Minute // until a process must have been started, on a slow and busy machine

// perform does what the unit's machine asked for.
func (s *Supervisor) perform(ctx context.Context, u *unit, a action) {
	switch a.verb {
	case doStart:
		go func() {
			ctx, cancel := context.WithTimeout(ctx, startTimeout)
			defer cancel()
			p, err := u.job.start(ctx)
			s.send(eventStarted{u, p, err})
		}()
	case doCheck:
		p := u.process
		go func() {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			go func() {
				select {
				case <-p.Done():
					cancel()
				case <-ctx.Done():
				}
			}()
			s.send(eventChecked{u, p, u.job.check(ctx)})
		}()
	case doSignal:
		if err := u.job.signal(u.process); err != nil {
			s.log.Warn("cannot ask a service to end", "unit", u.name, "error", err)
		}
	case doKill:
		go u.job.kill(u.process)
	case doLater:
		time.AfterFunc(a.after, func() { s.send(eventPauseOver{u}) })
	}
}

// watch takes the process for the unit's and reports its end.
func (s *Supervisor) watch(ctx context.Context, u *unit, p *reaper.Process) {
	u.process = p
	go func() {
		<-p.Done()
		why := "ended"
		if err := p.Err(); err != nil {
			why = err.Error()
		}
		if known := u.job.cleanup(ctx); known != "" {
			why = known
		}
		s.send(eventExited{u, p, why})
	}()
}

func (s *Supervisor) onStarted(ctx context.Context, e eventStarted) {
	u := e.unit
	if e.err != nil {
		u.problem = e.err.Error()
		s.log.Error("a service does not start", "unit", u.name, "error", e.err)
		s.scrub(u)
		s.perform(ctx, u, u.machine.notStarted(s.now()))
		return
	}
	s.watch(ctx, u, e.process)
	s.perform(ctx, u, u.machine.started(s.now()))
}

func (s *Supervisor) onChecked(ctx context.Context, e eventChecked) {
	u := e.unit
	if e.process != u.process || u.machine.state != checking {
		return // of a process that has ended meanwhile
	}
	if e.err != nil {
		u.problem = e.err.Error()
		s.log.Error("a service does not get ready", "unit", u.name, "error", e.err)
		s.perform(ctx, u, u.machine.checkFailed(s.now()))
		return
	}
	u.problem = ""
	s.log.Info("ready", "unit", u.name)
	s.perform(ctx, u, u.machine.checkPassed(s.now()))
	if u == s.gateway {
		s.reloadGateway()
	}
}

func (s *Supervisor) onExited(ctx context.Context, e eventExited) {
	u := e.unit
	if e.process != u.process {
		return
	}
	u.process = nil
	if u.machine.state != stopping {
		if u.machine.state != ending {
			u.problem = e.why
		}
		s.log.Error("a service ended", "unit", u.name, "why", e.why)
		s.scrub(u)
	}
	s.perform(ctx, u, u.machine.exited(s.now()))
}

// startReady starts every unit whose needs are met.
func (s *Supervisor) startReady(ctx context.Context) {
	for _, u := range s.units {
		if u.machine.state != waiting || !u.prepared || !allIn(u.needs, ready) {
			continue
		}
		s.perform(ctx, u, u.machine.needsReady(s.now()))
	}
}

func allIn(units []*unit, want state) bool {
	for _, u := range units {
		if u.machine.state != want {
			return false
		}
	}
	return true
}
