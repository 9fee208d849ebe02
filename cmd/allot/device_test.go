package main

import (
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"allotment/init/apiserver"
	"allotment/init/apiserver/boxtest"
)

// box SOCKET [developer] starts a box that answers on the socket until the script ends.
func box(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: box SOCKET [developer]")
	}
	b := boxtest.New(time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC))
	b.Log[1].Text += "\x1b]0;a title\a" // what a terminal would obey
	c := apiserver.Config{Box: b}
	if len(args) == 2 {
		c.Developer = b
	}
	s, err := apiserver.New(c)
	ts.Check(err)
	l, err := apiserver.ListenUnix(ts.MkAbs(args[0]))
	ts.Check(err)
	go s.Serve(l)
	ts.Defer(func() { s.Close() })
}
