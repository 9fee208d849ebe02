package supervisor

import (
	"context"
	"fmt"
	"time"

	"allotment/api"
	"allotment/init/plan"
	"allotment/init/reaper"
)

// unit is one thing that is kept running: a service's container, or the gateway. Everything in it belongs to the
// supervisor's loop.
type unit struct {
	name       string
	importance plan.Importance
	module     *module      // nil: the box's own
	needs      []*unit      // must be ready before this one starts
	after      []*migration // must be done before this one starts
	under      []*unit      // must have stopped before this one is asked to: those that need it
	job        job
	prepared   bool // what the job needs of the host is there

	machine  machine
	process  *reaper.Process // nil: none runs
	asked    *reaper.Process // the one that is asked again and again whether it lives
	problem  string          // why it failed last
	restarts int             // since boot
	begun    time.Time       // when it was started; zero once it was ready
	startup  startup
}

// startup is what a unit took to get ready the last time.
type startup struct{ wall, cpu time.Duration }

// job does what a unit's machine says. Its methods are called from goroutines of their own, one at a time.
type job interface {
	// find returns the process if an earlier supervisor started it, else nil.
	find() *reaper.Process
	// start starts the process.
	start(ctx context.Context) (*reaper.Process, error)
	// check returns nil once the unit is ready, an error if it has had its time.
	check(ctx context.Context) error
	// live returns nil when ctx ends, and before that why the unit, which was ready, counts as dead.
	live(ctx context.Context) error
	// reload makes the process read its files again.
	reload(p *reaper.Process) error
	// signal asks the process to end, and tells how long it may take.
	signal(p *reaper.Process) (time.Duration, error)
	// kill ends the process and all that it started.
	kill(p *reaper.Process)
	// cleanup takes away what is left after the process ended, and may know why it did.
	cleanup(ctx context.Context) string
}

// containerJob is the job of a module's service.
type containerJob interface {
	job
	// set gives the service that the job runs from its next start on.
	set(service *plan.Service)
	// open prepares the service's log below the folder logs; network is the path of its module's network namespace.
	open(network, logs string, logErr func(error)) error
	// close ends the service's log.
	close()
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
		memory  bool // for want of memory
	}
	eventDead struct {
		unit    *unit
		process *reaper.Process
		err     error
	}
	eventPauseOver struct {
		unit  *unit
		since time.Time // when the pause began: restarted meanwhile, it has no meaning
	}
	eventOverdue struct { // it had its time to end
		unit    *unit
		process *reaper.Process
	}
	eventGivenUp struct { // even killing it did not help
		unit    *unit
		process *reaper.Process
	}
)

const (
	startTimeout = time.Minute      // until a process must have been started, on a slow and busy machine
	insistEvery  = time.Second      // between signals to a process that was starting
	killTimeout  = 10 * time.Second // until a killed process must have ended, or it hangs in the kernel
)

// perform does what the unit's machine asked for.
func (s *Supervisor) perform(ctx context.Context, u *unit, a action) {
	p := u.process
	switch a.verb {
	case doStart:
		u.begun = s.now()
		go func() {
			ctx, cancel := context.WithTimeout(ctx, startTimeout)
			defer cancel()
			p, err := u.job.start(ctx)
			s.send(eventStarted{u, p, err})
		}()
	case doReload:
		if err := u.job.reload(p); err != nil {
			s.log.Warn("cannot make a service read its files again", "unit", u.name, "error", err)
		}
		go s.check(ctx, u, p)
	case doCheck:
		go s.check(ctx, u, p)
	case doAskLive:
		if u.asked == p {
			return // since before a reload
		}
		u.asked = p
		go func() { s.send(eventDead{u, p, whileItRuns(ctx, p, u.job.live)}) }()
	case doSignal:
		limit, err := u.job.signal(p)
		if err != nil {
			s.log.Warn("cannot ask a service to end", "unit", u.name, "error", err)
		}
		time.AfterFunc(limit, func() { s.send(eventOverdue{u, p}) })
		if !u.begun.IsZero() {
			go insist(u.job, p, limit)
		}
	case doKill:
		go u.job.kill(p)
		time.AfterFunc(killTimeout, func() { s.send(eventGivenUp{u, p}) })
	case doLater:
		since := u.machine.since
		time.AfterFunc(a.after, func() { s.send(eventPauseOver{u, since}) })
	}
}

// insist asks a process again and again to end that was asked while it was starting: the first process of a container gets
// no signal that it has no handler for yet (pid_namespaces(7)).
func insist(j job, p *reaper.Process, limit time.Duration) {
	again := time.NewTicker(insistEvery)
	defer again.Stop()
	over := time.NewTimer(limit)
	defer over.Stop()
	for {
		select {
		case <-again.C:
			_, _ = j.signal(p) // the first time has told of an error
		case <-over.C:
			return
		case <-p.Done():
			return
		}
	}
}

// check reports whether a unit gets ready. Of a process that ends meanwhile only its end is worth telling.
func (s *Supervisor) check(ctx context.Context, u *unit, p *reaper.Process) {
	err := whileItRuns(ctx, p, u.job.check)
	select {
	case <-p.Done():
		return
	default:
	}
	s.send(eventChecked{u, p, err})
}

// whileItRuns calls f with a context that ends with the process.
func whileItRuns(ctx context.Context, p *reaper.Process, f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	return f(ctx)
}

// watch takes the process for the unit's and reports its end.
func (s *Supervisor) watch(ctx context.Context, u *unit, p *reaper.Process) {
	u.process = p
	go func() {
		<-p.Done()
		why := howItEnded(p)
		shortage := u.job.cleanup(ctx)
		if shortage != "" {
			why = shortage
		}
		s.send(eventExited{u, p, why, shortage != ""})
	}()
}

// howItEnded says how a process ended that is Done.
func howItEnded(p *reaper.Process) string {
	switch err := p.Err(); {
	case err != nil:
		return err.Error()
	case p.Child():
		return "exit code 0"
	}
	return "ended"
}

func (s *Supervisor) onStarted(ctx context.Context, e eventStarted) {
	u := e.unit
	if e.err != nil {
		a := u.machine.notStarted(s.now())
		s.failed(u, "does not start", e.err.Error(), a)
		s.perform(ctx, u, a)
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
		s.kill(ctx, u, e.err.Error(), u.machine.checkFailed(s.now()))
		return
	}
	u.problem = ""
	if !u.begun.IsZero() { // neither taken over nor reloaded
		u.startup = startup{wall: s.now().Sub(u.begun), cpu: s.cpuTime(u)}
		u.begun = time.Time{}
	}
	s.log.Info("ready", "unit", u.name)
	s.record(api.Event{Level: api.Good, Kind: "service", Text: u.name + " is ready"}, u)
	s.perform(ctx, u, u.machine.checkPassed(s.now()))
	if d, ok := u.job.(*daemon); ok && !d.informed {
		d.reload(u.process) // what it was told before it could hear of it
	}
}

func (s *Supervisor) onDead(ctx context.Context, e eventDead) {
	u := e.unit
	if e.err == nil || e.process != u.process || u.machine.state != ready {
		if u.asked == e.process {
			u.asked = nil // the next time it is ready it is asked again
		}
		return
	}
	s.kill(ctx, u, e.err.Error(), u.machine.livenessFailed(s.now()))
}

// kill ends a unit that does not answer as it should.
func (s *Supervisor) kill(ctx context.Context, u *unit, why string, a action) {
	u.problem = why
	s.log.Error("killing a service", "unit", u.name, "why", why)
	s.perform(ctx, u, a)
}

func (s *Supervisor) onExited(ctx context.Context, e eventExited) {
	u := e.unit
	if e.process != u.process {
		return
	}
	u.process = nil
	if e.memory {
		s.shortage, s.shortageAt = e.why, s.now()
		s.record(api.Event{Level: api.Bad, Kind: "memory", Text: e.why}, u)
	}
	before := u.machine.state
	a := u.machine.exited(s.now())
	switch before {
	case stopping, renewing:
	case ending: // the problem is why it was killed
		s.failed(u, "was killed", u.problem, a)
	default:
		s.failed(u, "ended", e.why, a)
	}
	s.perform(ctx, u, a)
}

// failed tells in one line that a unit failed, and when it is tried again.
func (s *Supervisor) failed(u *unit, what, why string, a action) {
	u.problem = why
	u.restarts++
	s.log.Error("a service "+what, "unit", u.name, "why", why, "again in", a.after)
	s.record(api.Event{Level: api.Bad, Kind: "service", Text: fmt.Sprintf("%s %s: %s", u.name, what, why)}, u)
	s.scrub(u)
}

func (s *Supervisor) onOverdue(ctx context.Context, e eventOverdue) {
	u := e.unit
	if e.process != u.process {
		return
	}
	if a := u.machine.overdue(); a.verb != doNothing {
		s.log.Error("a service does not end in time", "unit", u.name)
		s.perform(ctx, u, a)
	}
}

// onGivenUp lets the box end although a process has not.
func (s *Supervisor) onGivenUp(e eventGivenUp) {
	u := e.unit
	if e.process != u.process {
		return
	}
	s.log.Error("a service cannot be killed", "unit", u.name)
	if u.machine.state == stopping {
		u.machine.to(stopped, s.now())
	}
}

// startReady starts every unit whose needs are met.
func (s *Supervisor) startReady(ctx context.Context) {
	for _, u := range s.units {
		if u.machine.state != waiting || !u.prepared || !u.module.runs() || !allIn(u.needs, ready) || !allDone(u.after) {
			continue
		}
		s.perform(ctx, u, u.machine.needsReady(s.now()))
	}
}

func allIn(units []*unit, want phase) bool {
	for _, u := range units {
		if u.machine.state != want {
			return false
		}
	}
	return true
}
