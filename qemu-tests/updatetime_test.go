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
// the release was committed, and how long one does for a plain restart of the same box, until all functions are ready.
func (c *club) logDowntime(t *testing.T) {
	t.Helper()
	down, ok := downtime(c.Events(), committed)
	if !ok {
		t.Fatal("the console does not show when functions stopped and the release was committed")
	}
	begin := len(c.Events())
	if err := c.API().RestartBox(t.Context()); err != nil {
		t.Fatal(err)
	}
	from := begin
	c.await(t, &from, `BOOT-OK .*trial=no`)
	plain, ok := downtime(c.Events()[begin:], anyOK)
	if !ok {
		t.Fatal("the console does not show when functions stopped for the restart")
	}
	load, _ := os.ReadFile("/proc/loadavg") // without it the figures have no meaning
	t.Logf("an update stops the box for %.0f s, a plain restart for %.0f s: %.2f times; load %s", down.Seconds(), plain.Seconds(),
		down.Seconds()/plain.Seconds(), load)
}

var (
	stops     = regexp.MustCompile(`^allotment: .* stopping$`)
	committed = regexp.MustCompile(`^UPDATE-OK `)
)

// downtime is the time from the last beginning of a stop until the first line that ends it.
func downtime(events []vm.Event, end *regexp.Regexp) (time.Duration, bool) {
	var stop time.Duration
	standing := false
	for _, e := range events {
		switch {
		case e.Kind != vm.Line:
		case end.MatchString(e.Text) && stop > 0:
			return e.Wall - stop, true
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
	if d, ok := downtime(update, committed); d != time.Minute || !ok {
		t.Errorf("%v, %v; want a minute", d, ok)
	}
	if d, ok := downtime(update[:5], committed); ok {
		t.Errorf("%v without a commit", d)
	}
	if d, ok := downtime(update[:5], anyOK); d != 50*time.Second || !ok {
		t.Errorf("%v, %v until all is ready; want 50 s", d, ok)
	}
}
