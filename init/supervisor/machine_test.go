package supervisor

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var t0 = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

// event names the machine's methods for tables.
var events = map[string]func(*machine, time.Time) action{
	"needsReady":     (*machine).needsReady,
	"found":          (*machine).found,
	"started":        (*machine).started,
	"notStarted":     (*machine).notStarted,
	"checkPassed":    (*machine).checkPassed,
	"checkFailed":    (*machine).checkFailed,
	"exited":         (*machine).exited,
	"overBackoff":    (*machine).overBackoff,
	"stop":           (*machine).stop,
	"livenessFailed": (*machine).livenessFailed,
	"reload":         (*machine).reload,
	"restart":        (*machine).restart,
	"allow":          (*machine).allow,
	"overdue":        func(m *machine, _ time.Time) action { return m.overdue() },
}

func TestEveryTransition(t *testing.T) {
	type to struct {
		state phase
		verb  verb
	}
	// What is not listed must change nothing.
	want := map[phase]map[string]to{
		waiting: {"needsReady": {starting, doStart}, "found": {checking, doCheck}, "stop": {stopped, doNothing}},
		starting: {"started": {checking, doCheck}, "notStarted": {backoff, doLater}, "stop": {stopping, doNothing},
			"restart": {renewing, doNothing}, "reload": {renewing, doNothing}},
		checking: {"checkPassed": {ready, doAskLive}, "checkFailed": {ending, doKill}, "exited": {backoff, doLater},
			"stop": {stopping, doSignal}, "restart": {renewing, doSignal}, "reload": {renewing, doSignal}},
		ready: {"exited": {backoff, doLater}, "stop": {stopping, doSignal}, "livenessFailed": {ending, doKill},
			"restart": {renewing, doSignal}, "reload": {checking, doReload}},
		ending: {"exited": {backoff, doLater}, "stop": {stopping, doNothing}, "restart": {renewing, doNothing},
			"reload": {renewing, doNothing}},
		renewing: {"started": {renewing, doSignal}, "notStarted": {waiting, doNothing}, "exited": {waiting, doNothing},
			"stop": {stopping, doNothing}, "overdue": {renewing, doKill}},
		backoff: {"overBackoff": {waiting, doNothing}, "stop": {stopped, doNothing}, "restart": {waiting, doNothing},
			"reload": {waiting, doNothing}},
		failed: {"overBackoff": {waiting, doNothing}, "stop": {stopped, doNothing}, "restart": {waiting, doNothing},
			"reload": {waiting, doNothing}},
		stopping: {"started": {stopping, doSignal}, "notStarted": {stopped, doNothing}, "exited": {stopped, doNothing},
			"overdue": {stopping, doKill}},
		stopped: {"allow": {waiting, doNothing}},
	}
	for from, row := range want {
		for name, event := range events {
			expect, listed := row[name]
			if !listed {
				expect = to{from, doNothing}
			}
			m := machine{state: from, since: t0}
			a := event(&m, t0)
			if m.state != expect.state || a.verb != expect.verb {
				t.Errorf("%s in %s: %s, verb %d; want %s, verb %d", name, from, m.state, a.verb, expect.state, expect.verb)
			}
		}
	}
}

func TestBackoffGrowsAndEnds(t *testing.T) {
	m := machine{state: waiting}
	var pauses []time.Duration
	for range mostFailures {
		m.needsReady(t0)
		a := m.notStarted(t0)
		pauses = append(pauses, a.after)
		if len(pauses) < mostFailures && m.state != backoff {
			t.Fatalf("after %d failures: %s", len(pauses), m.state)
		}
		if m.state == backoff {
			m.overBackoff(t0)
		}
	}
	if m.state != failed || pauses[0] != firstBackoff || pauses[1] != 2*firstBackoff || pauses[mostFailures-1] != failedPause {
		t.Errorf("%s after pauses %v", m.state, pauses)
	}
}

func TestStableServiceIsForgiven(t *testing.T) {
	for _, c := range []struct {
		ran  time.Duration
		want phase
	}{{stableAfter, backoff}, {stableAfter - 1, failed}} {
		m := machine{state: ready, since: t0, failures: mostFailures - 1}
		if m.exited(t0.Add(c.ran)); m.state != c.want {
			t.Errorf("after %v of being ready: %s", c.ran, m.state)
		}
	}
}

// Whatever happens in whatever order, a stopped service is never started again, and after an exit it gets there.
func TestStopIsFinal(t *testing.T) {
	var names []string
	for n := range events {
		if n != "allow" { // which takes it back
			names = append(names, n)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		m := machine{state: waiting, since: t0}
		for range rng.IntN(12) {
			events[names[rng.IntN(len(names))]](&m, t0)
		}
		m.stop(t0)
		for range rng.IntN(12) {
			a := events[names[rng.IntN(len(names))]](&m, t0)
			if slices.Contains([]verb{doStart, doCheck, doReload, doLater}, a.verb) {
				t.Fatalf("verb %d after stop", a.verb)
			}
		}
		m.exited(t0)
		if m.state != stopped {
			t.Fatalf("%s after stop and exit", m.state)
		}
	}
}

// A service that answers no more is restarted as often as one that ends, and forgiven alike.
func TestLivenessCountsAsFailure(t *testing.T) {
	for _, c := range []struct {
		ran  time.Duration
		want phase
	}{{stableAfter, backoff}, {stableAfter - 1, failed}} {
		m := machine{state: ready, since: t0, failures: mostFailures - 1}
		end := t0.Add(c.ran)
		m.livenessFailed(end)
		if m.exited(end); m.state != c.want {
			t.Errorf("after %v of being ready: %s", c.ran, m.state)
		}
	}
}

// Whoever asks for a restart gets a start at once, and all attempts.
func TestRestartForgetsFailures(t *testing.T) {
	for _, from := range []phase{starting, checking, ready, ending, backoff, failed} {
		m := machine{state: from, since: t0, failures: mostFailures - 1}
		m.restart(t0)
		m.exited(t0)
		if m.state != waiting || m.failures != 0 {
			t.Errorf("from %s: %s with %d failures", from, m.state, m.failures)
		}
	}
}
