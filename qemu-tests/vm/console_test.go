package vm

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestConsoleLines(t *testing.T) {
	var log bytes.Buffer
	var got []string
	c := &console{log: &log, line: func(s string) { got = append(got, s) }}
	all := "plain\r\n\x1b[2J\x1b[01;01Hpainted \x1b[0;32mgreen\x1b[0m\r\n\r\nin two" + " parts\nno end"
	for _, part := range []string{all[:9], all[9:20], all[20:]} {
		if n, err := c.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
	}
	c.flush()
	if want := []string{"plain", "painted green", "in two parts", "no end"}; !slices.Equal(got, want) {
		t.Errorf("lines %q, want %q", got, want)
	}
	if log.String() != all {
		t.Errorf("log %q", log.String())
	}
}

func TestConsoleBoundsLines(t *testing.T) {
	var got []string
	c := &console{log: &bytes.Buffer{}, line: func(s string) { got = append(got, s) }}
	c.Write([]byte(strings.Repeat("x", 3*longestLine)))
	if len(got) != 3 || len(c.partial) >= longestLine {
		t.Errorf("%d lines and %d bytes left", len(got), len(c.partial))
	}
}

func TestJournal(t *testing.T) {
	j := newJournal[int]()
	j.add(1)
	go j.add(2)
	is := func(want int) func(int) bool { return func(n int) bool { return n == want } }
	if _, next, err := j.wait(t.Context(), 0, is(2)); err != nil || next != 2 {
		t.Errorf("next %d, error %v", next, err)
	}
	if _, _, err := j.wait(t.Context(), 0, is(1)); err != nil {
		t.Errorf("what has been is lost: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go cancel()
	if _, _, err := j.wait(ctx, 2, is(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v: what is past came again", err)
	}
	why := errors.New("over")
	go j.end(why)
	if _, _, err := j.wait(t.Context(), 0, is(3)); err != why {
		t.Errorf("error %v", err)
	}
	if _, _, err := j.wait(t.Context(), 0, is(2)); err != nil {
		t.Errorf("after the end: %v", err)
	}
}
