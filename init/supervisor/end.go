package supervisor

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Events of stopping.
type (
	eventOverdue struct{} // services had their time to end
	eventGivenUp struct{} // even killing them did not help
)

// The time budget of stopping. PID 1 ends by force what is left then.
const (
	stopBudget = 30 * time.Second
	killBudget = 10 * time.Second

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
	s.log.Warn("stopping", "why", why)
	time.AfterFunc(stopBudget, func() { s.send(eventOverdue{}) })
	time.AfterFunc(stopBudget+killBudget, func() { s.send(eventGivenUp{}) })
}

// stopNext asks every unit to end that no unit still needs.
func (s *Supervisor) stopNext(ctx context.Context) {
	for _, u := range s.units {
		if allIn(u.under, stopped) {
			s.perform(ctx, u, u.machine.stop(s.now()))
		}
	}
}

func (s *Supervisor) onOverdue(ctx context.Context) {
	for _, u := range s.units {
		if u.machine.state == stopped {
			continue
		}
		s.log.Error("a service does not end in time", "unit", u.name)
		u.machine.stop(s.now())
		if u.process != nil {
			s.perform(ctx, u, u.machine.overdue())
		}
	}
}

// abandon lets the box end although units have not.
func (s *Supervisor) abandon() {
	for _, u := range s.units {
		u.machine.state = stopped
	}
}

func (s *Supervisor) ended() bool { return s.ending && allIn(s.units, stopped) }

// tearDown gives everything back so that the state partition can be unmounted.
func (s *Supervisor) tearDown() {
	if err := s.clock.Save(); err != nil {
		s.warn(err)
	}
	for _, m := range s.plan.Modules {
		for _, u := range s.unitsOf[m] {
			u.job.(*serviceJob).close()
		}
		if err := s.runtime.Dismiss(m); err != nil {
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
	if s.ending || !s.countReset() {
		return
	}
	s.config.Console.Print("%s", message(stage, err))
	s.log.Error("the boot failed", "stage", stage, "error", err)
	s.exit = Reboot
	s.stop("the boot failed")
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
