package console

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

func TestDisplayAndSerial(t *testing.T) {
	var display, serial bytes.Buffer
	c := New([]io.Writer{&display}, []io.Writer{&serial})
	s := Status{Title: "Garden Club", Version: "2026.11.3", Slot: "a", State: "starting"}
	c.Show(s)
	c.Show(s)
	c.Print("BOOT-OK slot=%s", "a")
	s.URLs, s.State = []string{"http://192.0.2.7/"}, "ready"
	c.Show(s)
	c.Print("evil \x1b[2J name")
	c.Close()
	want := "allotment: Garden Club 2026.11.3 (slot a)\r\nallotment: starting\r\nallotment: no network address yet\r\n" +
		"BOOT-OK slot=a\r\nallotment: ready\r\nallotment: http://192.0.2.7/\r\nevil  [2J name\r\n"
	if serial.String() != want {
		t.Errorf("serial got %q", serial.String())
	}
	screens := strings.Split(display.String(), "\x1b[H\x1b[2J")
	last := screens[len(screens)-1]
	for _, part := range []string{"Garden Club", "ready", "http://192.0.2.7/", "BOOT-OK"} {
		if !strings.Contains(last, part) {
			t.Errorf("the last screen lacks %q: %q", part, last)
		}
	}
	if strings.Contains(last, "starting") {
		t.Errorf("the last screen shows the past: %q", last)
	}
}

// stuck is a console that takes nothing until it is let go.
type stuck struct{ release chan bool }

func (s stuck) Write(p []byte) (int, error) { <-s.release; return len(p), nil }

func TestStuckConsoleHoldsNobodyUp(t *testing.T) {
	s := stuck{make(chan bool)}
	c := New(nil, []io.Writer{s})
	for range 10 * queueLength {
		c.Print("line") // the test would hang here
	}
	c.Close() // and here
	close(s.release)
}
