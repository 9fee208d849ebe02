package supervisor

import "time"

// state is where a service's life stands.
type state string

// A service goes from waiting to starting, checking and ready; when it ends or fails it waits in backoff and begins
// again. Failed is a longer backoff after too many failures in a row, and for good if the module is core.
const (
	waiting  state = "waiting"  // for the services that it needs
	starting state = "starting" // its container is being made
	checking state = "checking" // it runs, and is asked whether it is ready
	ready    state = "ready"
	ending   state = "ending" // it was not ready in time and is being killed
	backoff  state = "restarting"
	failed   state = "failed"
	stopping state = "stopping"
	stopped  state = "stopped"
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
	doSignal       // ask it to end
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
	state    state
	failures int // in a row
	since    time.Time
}

func (m *machine) to(s state, now time.Time) { m.state, m.since = s, now }

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
	case stopping: // the end was asked for while it started
		return action{verb: doSignal}
	}
	return action{}
}

// notStarted: the container could not be made.
func (m *machine) notStarted(now time.Time) action {
	switch m.state {
	case starting:
		return m.fail(now)
	case stopping:
		m.to(stopped, now)
	}
	return action{}
}

// checkPassed: the service answers.
func (m *machine) checkPassed(now time.Time) action {
	if m.state == checking {
		m.to(ready, now)
	}
	return action{}
}

// checkFailed: the service did not answer in time.
func (m *machine) checkFailed(now time.Time) action {
	if m.state != checking {
		return action{}
	}
	m.to(ending, now)
	return action{verb: doKill}
}

// exited: the container's process ended.
func (m *machine) exited(now time.Time) action {
	switch m.state {
	case ready:
		if now.Sub(m.since) >= stableAfter {
			m.failures = 0
		}
		return m.fail(now)
	case checking, ending:
		return m.fail(now)
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

// stop: the service is to end and to stay so.
func (m *machine) stop(now time.Time) action {
	switch m.state {
	case waiting, backoff, failed:
		m.to(stopped, now)
	case starting, ending: // started, notStarted or exited follows
		m.to(stopping, now)
	case checking, ready:
		m.to(stopping, now)
		return action{verb: doSignal}
	}
	return action{}
}

// overdue: the service had its time to end.
func (m *machine) overdue() action {
	if m.state == stopping {
		return action{verb: doKill}
	}
	return action{}
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
