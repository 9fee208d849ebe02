package supervisor

import "time"

// phase is where a service's life stands.
type phase string

// A service goes from waiting to starting, checking and ready; when it ends or fails it waits in backoff and begins
// again. Failed is a longer backoff after too many failures in a row.
const (
	waiting  phase = "waiting"  // for the services that it needs
	starting phase = "starting" // its container is being made
	checking phase = "checking" // it runs, and is asked whether it is ready
	ready    phase = "ready"
	ending   phase = "ending"   // it did not answer in time and is being killed
	renewing phase = "renewing" // it was asked to end in order to be started again
	backoff  phase = "restarting"
	failed   phase = "failed"
	stopping phase = "stopping"
	stopped  phase = "stopped"
)

// action is what the supervisor must do after an event; the zero action is nothing.
type action struct {
	verb  verb
	after time.Duration // of doLater
}

type verb int

const (
	doNothing verb = iota
	doStart        // make and start the container
	doCheck        // ask until it is ready
	doAskLive      // ask again and again whether it still answers
	doReload       // tell it to read its files again, and ask until it is ready
	doSignal       // ask it to end, and report overdue when its time is over
	doKill         // end it
	doLater        // report overBackoff after some time
)

// How a failing service is restarted.
const (
	firstBackoff = time.Second
	lastBackoff  = time.Minute
	failedPause  = 10 * time.Minute
	mostFailures = 6               // in a row, then it counts as failed
	stableAfter  = 2 * time.Minute // being ready this long forgets failures
)

// machine is the life of one service: a method for each event, which returns what to do. Events that mean nothing in a
// state, such as a check that passes after the service ended, change nothing.
type machine struct {
	state    phase
	failures int // in a row
	since    time.Time
}

func (m *machine) to(s phase, now time.Time) { m.state, m.since = s, now }

// needsReady: everything that the service needs is ready.
func (m *machine) needsReady(now time.Time) action {
	if m.state != waiting {
		return action{}
	}
	m.to(starting, now)
	return action{verb: doStart}
}

// found: an earlier supervisor started the container, and it still runs.
func (m *machine) found(now time.Time) action {
	if m.state != waiting {
		return action{}
	}
	m.to(checking, now)
	return action{verb: doCheck}
}

// started: the container runs.
func (m *machine) started(now time.Time) action {
	switch m.state {
	case starting:
		m.to(checking, now)
		return action{verb: doCheck}
	case stopping, renewing: // the end was asked for while it started
		return action{verb: doSignal}
	}
	return action{}
}

// notStarted: the container could not be made.
func (m *machine) notStarted(now time.Time) action {
	switch m.state {
	case starting:
		return m.fail(now)
	case renewing:
		m.to(waiting, now)
	case stopping:
		m.to(stopped, now)
	}
	return action{}
}

// checkPassed: the service answers.
func (m *machine) checkPassed(now time.Time) action {
	if m.state != checking {
		return action{}
	}
	m.to(ready, now)
	return action{verb: doAskLive}
}

// checkFailed: the service did not answer in time.
func (m *machine) checkFailed(now time.Time) action {
	if m.state != checking {
		return action{}
	}
	m.to(ending, now)
	return action{verb: doKill}
}

// livenessFailed: the service answers no more.
func (m *machine) livenessFailed(now time.Time) action {
	if m.state != ready {
		return action{}
	}
	m.forgive(now)
	m.to(ending, now)
	return action{verb: doKill}
}

// reload: files that the service has read were exchanged, and it can read them again while it runs.
func (m *machine) reload(now time.Time) action {
	if m.state != ready {
		return m.restart(now) // who knows what it has read
	}
	m.forgive(now)
	m.to(checking, now)
	return action{verb: doReload}
}

// restart: the service is to be started afresh, whatever it does. Failures are forgotten.
func (m *machine) restart(now time.Time) action {
	switch m.state {
	case checking, ready:
		m.failures = 0
		m.to(renewing, now)
		return action{verb: doSignal}
	case starting, ending: // started, notStarted or exited follows
		m.failures = 0
		m.to(renewing, now)
	case backoff, failed:
		m.failures = 0
		m.to(waiting, now)
	}
	return action{}
}

// exited: the container's process ended.
func (m *machine) exited(now time.Time) action {
	switch m.state {
	case ready:
		m.forgive(now)
		return m.fail(now)
	case checking, ending:
		return m.fail(now)
	case renewing:
		m.to(waiting, now)
	case stopping:
		m.to(stopped, now)
	}
	return action{}
}

// overBackoff: the pause that doLater asked for is over.
func (m *machine) overBackoff(now time.Time) action {
	if m.state == backoff || m.state == failed {
		m.to(waiting, now)
	}
	return action{}
}

// stop: the service is to end, and to stay so until it is allowed again.
func (m *machine) stop(now time.Time) action {
	switch m.state {
	case waiting, backoff, failed:
		m.to(stopped, now)
	case starting, ending, renewing: // started, notStarted or exited follows
		m.to(stopping, now)
	case checking, ready:
		m.to(stopping, now)
		return action{verb: doSignal}
	}
	return action{}
}

// overdue: the service had its time to end.
func (m *machine) overdue() action {
	if m.state == stopping || m.state == renewing {
		return action{verb: doKill}
	}
	return action{}
}

// allow: a service that was stopped may run again.
func (m *machine) allow(now time.Time) action {
	if m.state == stopped {
		m.failures = 0
		m.to(waiting, now)
	}
	return action{}
}

// forgive forgets failures after a time of being ready.
func (m *machine) forgive(now time.Time) {
	if now.Sub(m.since) >= stableAfter {
		m.failures = 0
	}
}

func (m *machine) fail(now time.Time) action {
	m.failures++
	if m.failures >= mostFailures {
		m.to(failed, now)
		return action{verb: doLater, after: failedPause}
	}
	m.to(backoff, now)
	return action{verb: doLater, after: min(lastBackoff, firstBackoff<<(m.failures-1))}
}
