package console

import (
	"bytes"
	"fmt"
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

func TestClaimIsShownUntilThereIsNone(t *testing.T) {
	var display, serial bytes.Buffer
	c := New([]io.Writer{&display}, []io.Writer{&serial})
	s := Status{Title: "Garden Club", Claim: "claim code: 3F7K-9QXM-02TA", Code: "http://192.0.2.7/portal/"}
	c.Show(s)
	c.Show(s)
	s.Claim, s.Code = "", ""
	c.Show(s)
	c.Close()
	if n := strings.Count(serial.String(), "3F7K-9QXM-02TA"); n != 1 {
		t.Errorf("shown %d times: %q", n, serial.String())
	}
	screens := strings.Split(display.String(), "\x1b[H\x1b[2J")
	if !strings.Contains(screens[1], "3F7K") || strings.Contains(screens[len(screens)-1], "3F7K") {
		t.Errorf("screens: %q", screens)
	}
}

// A picture is drawn where it hides nothing, and only there.
func TestPlace(t *testing.T) {
	p := picture("http://192.0.2.7/portal/?code=3F7K-9QXM-02TA")
	width := len([]rune(p[0]))
	for _, line := range p {
		if len([]rune(line)) != width {
			t.Fatalf("ragged: %q", p)
		}
	}
	if got := place(p, 25, 80); strings.Count(got, "\x1b[") != len(p) || !strings.Contains(got, fmt.Sprintf("\x1b[1;%dH", 81-width)) {
		t.Errorf("on 80 columns and 25 rows: %q", got)
	}
	for _, size := range [][2]int{{len(p) - 1, 200}, {100, width + textWidth - 1}, {0, 0}} {
		if got := place(p, size[0], size[1]); got != "" {
			t.Errorf("%v: %q", size, got)
		}
	}
	if picture("") != nil || picture(strings.Repeat("x", 5000)) != nil || place(nil, 100, 100) != "" {
		t.Error("a picture of nothing")
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
