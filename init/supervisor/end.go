package supervisor

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"allotment/api"
)

// The time budget of the end, beside what services may take (plan.Service.StopTimeout).
const (
	bringUpEnd = 20 * time.Second // for what goes on beside the loop
	tasksEnd   = 20 * time.Second

	// Unmounting writes out what is in memory, which takes its time on a slow disk. A supervisor that PID 1 took for hung
	// meanwhile would be started again instead of the box ending.
	tearDownBudget = 3 * time.Minute
)

// stop begins to stop the box.
func (s *Supervisor) stop(why string) {
	if s.ending {
		return
	}
	s.ending = true
	close(s.ends)
	s.writeBeat()
	s.log.Warn("stopping", "why", why)
	s.record(api.Event{Level: api.Fair, Kind: "box", Text: "the box stops: " + why}, nil)
	for _, m := range s.modules {
		for _, cancel := range m.tasks {
			cancel()
		}
	}
	time.AfterFunc(tasksEnd, func() { s.send(eventCall{f: s.giveTasksUp, done: make(chan struct{})}) })
}

// giveTasksUp lets the box end although tasks have not.
func (s *Supervisor) giveTasksUp(context.Context) {
	for _, m := range s.modules {
		for id := range m.tasks {
			s.log.Error("a task does not end", "task", id)
		}
		clear(m.tasks)
	}
}

// stopNext asks those units to end that none of the others among them still needs.
func (s *Supervisor) stopNext(ctx context.Context, units []*unit) {
	for _, u := range units {
		needed := slices.ContainsFunc(u.under, func(o *unit) bool {
			return o.machine.state != stopped && slices.Contains(units, o)
		})
		if !needed {
			s.perform(ctx, u, u.machine.stop(s.now()))
		}
	}
}

func (s *Supervisor) ended() bool {
	if !s.ending || !allIn(s.units, stopped) {
		return false
	}
	return !slices.ContainsFunc(s.modules, func(m *module) bool { return len(m.tasks) > 0 })
}

// tearDown gives everything back so that the state partition can be unmounted.
func (s *Supervisor) tearDown() {
	if err := s.clock.Save(); err != nil {
		s.warn(err)
	}
	s.reading.Wait() // a file that is being read holds its file system
	for _, m := range s.modules {
		for _, u := range m.units {
			u.job.(containerJob).close()
		}
		if err := s.runtime.Dismiss(m.plan); err != nil {
			s.warn(err)
		}
	}
	s.config.Log.Close()
	if s.state != nil {
		if err := s.state.Close(); err != nil {
			s.warn(err) // PID 1 tries again, and makes it read-only otherwise
		}
	}
}

// mostResets bounds how often in a row a box resets itself for want of a core service. After that it stays up without
// it, so that what works can be used and the rest repaired.
const mostResets = 3

// fail prints why the boot is no good and asks for a reset.
func (s *Supervisor) fail(stage string, err error) {
	if s.ending || s.failTrial(stage, err) || !s.countReset() {
		return
	}
	s.config.Console.Print("%s", message(stage, err))
	s.log.Error("the boot failed", "stage", stage, "error", err)
	s.reset("the boot failed")
}

func (s *Supervisor) resetsFile() string { return filepath.Join(s.config.State, "system", "resets") }

// countReset tells whether one more reset is allowed. Without the state partition nothing can be counted, nor work.
func (s *Supervisor) countReset() bool {
	if s.state == nil {
		return true
	}
	b, _ := os.ReadFile(s.resetsFile())
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	if n >= mostResets {
		return false
	}
	if err := os.WriteFile(s.resetsFile(), []byte(strconv.Itoa(n+1)), 0o644); err != nil {
		s.warn(err)
		return false
	}
	return true
}

func (s *Supervisor) forgetResets() {
	if err := os.Remove(s.resetsFile()); err != nil && !os.IsNotExist(err) {
		s.warn(err)
	}
}

// uptime is the time since the kernel started.
func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// What a heartbeat tells PID 1: that the supervisor lives, and if the box is ending, how. If the supervisor dies then,
// PID 1 ends the box in its place.
const (
	beatAlive    = 1
	beatPowerOff = 'o'
	beatReboot   = 'r'
)

func (s *Supervisor) writeBeat() {
	b := byte(beatAlive)
	switch {
	case s.ending && s.exit == Reboot:
		b = beatReboot
	case s.ending:
		b = beatPowerOff
	}
	s.config.Heartbeat.Write([]byte{b})
}
