// Package backupstest starts the backups module's own rest-server for tests of what sends backups to it. A test package that
// calls Start has
//
//	func TestMain(m *testing.M) { backupstest.Main(m) }
package backupstest

import (
	"fmt"
	"strings"
	"testing"

	"allotment/builder/tools"
	"allotment/init/render"
	"allotment/modules/moduletest"
)

const script = "/usr/lib/allotment/backups.sh"

// Main is what TestMain calls.
func Main(m *testing.M) { moduletest.Main(m) }

// Settings are those of the module.
type Settings struct {
	Friends string // one on each line
	Room    int    // GiB; 0: none at all
	Keep    bool   // nothing is ever removed
}

// Server is the module, running.
type Server struct {
	*moduletest.Module
	Address   string            // HOST:PORT; the paths are those behind the gateway's prefix
	Passwords map[string]string // of the friends
	Journey   string            // the journey's password
	Stop      func()            // ends the server
}

// Start starts the server at an address of the host that is free, and ends it with the test.
func Start(t testing.TB, s Settings) *Server {
	t.Helper()
	tools.EnterIfAsked() // where TestMain lacks Main, what starts the tool comes back here: this ends the recursion
	box := moduletest.New(t, "backups")
	server := &Server{Address: moduletest.FreeAddress(t), Passwords: map[string]string{}, Journey: box.Secret("backups", "journey")}
	server.Module = box.Unpack("backups", func(d *render.Data) { s.apply(d) })
	server.readPasswords(t)
	server.Stop = server.Module.Start(server.Address, "/bin/sh", script, "start", server.Address)
	return server
}

// Restart starts the server anew with other settings, on what it has kept.
func (s *Server) Restart(t testing.TB, settings Settings) {
	t.Helper()
	s.Stop()
	s.Render("backups", func(d *render.Data) { settings.apply(d) })
	clear(s.Passwords)
	s.readPasswords(t)
	s.Stop = s.Module.Start(s.Address, "/bin/sh", script, "start", s.Address)
}

func (s Settings) apply(d *render.Data) {
	d.Settings["friends"], d.Settings["room"], d.Settings["keep"] = s.Friends, s.Room, s.Keep
}

// readPasswords asks as an officer does.
func (s *Server) readPasswords(t testing.TB) {
	t.Helper()
	out, err := s.Run("/bin/sh", script, "passwords")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		var name, password string
		if _, err := fmt.Sscan(line, &name, &password); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		s.Passwords[name] = password
	}
}
