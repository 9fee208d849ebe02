// Package directorytest starts the directory module's own slapd for tests of what uses it. A test package that calls Start
// has
//
//	func TestMain(m *testing.M) { directorytest.Main(m) }
package directorytest

import (
	"testing"

	"allotment/builder/tools"
	"allotment/modules/moduletest"
)

const script = "/usr/lib/allotment/directory.sh"

// Main is what TestMain calls.
func Main(m *testing.M) { moduletest.Main(m) }

// Start starts slapd with the tree of an organisation that has nobody yet, at an address of the host that is free, and
// ends it with the test. It returns the address (host:port) and the password of the portal's account.
func Start(t testing.TB) (address, password string) {
	t.Helper()
	tools.EnterIfAsked() // where TestMain lacks Main, what starts the tool comes back here: this ends the recursion
	box := moduletest.New(t, "directory")
	m := box.Unpack("directory", nil)
	if _, err := m.Run("/bin/sh", script, "create"); err != nil {
		t.Fatal(err)
	}
	m.Empty("/run/probes")
	address = moduletest.FreeAddress(t)
	m.Start(address, "/bin/sh", script, "start", "ldap://"+address)
	return address, box.Secret("directory", "portal")
}
