package qemutests

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"allotment/qemu-tests/vm"
)

// logDowntime tells how long nobody could use the box for the update that stayed, from when the first function stopped until
// the release was committed, and how long a plain restart of the same box takes.
func (c *club) logDowntime(t *testing.T) {
	t.Helper()
	down, ok := downtime(c.Events())
	if !ok {
		t.Fatal("the console does not show when functions stopped and the release was committed")
	}
	from, begun := len(c.Events()), time.Now()
	if err := c.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.await(t, &from, `BOOT-OK .*trial=no`)
	plain := time.Since(begun)
	load, _ := os.ReadFile("/proc/loadavg") // without it the figures have no meaning
	t.Logf("an update stops the box for %.0f s, a plain restart for %.0f s: %.2f times; load %s", down.Seconds(), plain.Seconds(),
		down.Seconds()/plain.Seconds(), load)
}

var (
	stops     = regexp.MustCompile(`^allotment: .* stopping$`)
	committed = regexp.MustCompile(`^UPDATE-OK `)
)

// downtime is the time from the last beginning of a stop until the first commit.
func downtime(events []vm.Event) (time.Duration, bool) {
	var stop time.Duration
	standing := false
	for _, e := range events {
		switch {
		case e.Kind != vm.Line:
		case committed.MatchString(e.Text):
			return e.Wall - stop, stop > 0
		case anyOK.MatchString(e.Text):
			standing = standing && strings.Contains(e.Text, "trial=yes")
		case stops.MatchString(e.Text) && !standing:
			stop, standing = e.Wall, true
		}
	}
	return 0, false
}

func TestDowntime(t *testing.T) {
	at := func(seconds int, text string) vm.Event {
		return vm.Event{Kind: vm.Line, Text: text, Wall: time.Duration(seconds) * time.Second}
	}
	update := []vm.Event{at(10, "BOOT-OK slot=a version=1 trial=no secs=9"), at(20, "allotment: Calendars: radicale stopping"),
		at(21, "allotment: Directory: slapd stopping"), at(25, "UPDATE-ARMED version=2"), at(70, "BOOT-OK slot=b version=2 trial=yes secs=40"),
		at(80, "UPDATE-OK version=2"), at(90, "allotment: Directory: slapd stopping")}
	if d, ok := downtime(update); d != time.Minute || !ok {
		t.Errorf("%v, %v; want a minute", d, ok)
	}
	if d, ok := downtime(update[:5]); ok {
		t.Errorf("%v without a commit", d)
	}
}
