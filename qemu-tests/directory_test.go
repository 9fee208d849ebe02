package qemutests

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"allotment/api"
	"allotment/qemu-tests/vm"
)

const ldapPort = 389

// TestDirectory asks the directory of a box: through the developer's tunnel, because from outside nobody reaches it.
func TestDirectory(t *testing.T) {
	m := bootModule(t, "calendar", vm.Options{Forward: []int{80, ldapPort}}) // a module that reads it comes along
	defer showLogs(t, m)
	c := m.API()
	passwords := accounts(t, m, 5)

	if conn, err := net.DialTimeout("tcp", m.Address(ldapPort), vm.Patience(10*time.Second)); err == nil {
		// QEMU itself takes the connection; what counts is whether anything answers behind it.
		if _, err := rootDSE(conn); err == nil {
			t.Error("the directory answers outside the box")
		}
	}
	mustBeAMember := func(name string) {
		t.Helper()
		entry, err := bindAndFind(t.Context(), c, name, passwords[name])
		if err != nil {
			t.Fatal(err)
		}
		if got := entry.GetAttributeValue("memberOf"); got != "cn=members,ou=groups,o=organisation" {
			t.Errorf("%s is a member of %q", name, got)
		}
		if entry.GetAttributeValue("userPassword") != "" {
			t.Errorf("%s sees a password", name)
		}
	}
	for name := range passwords {
		mustBeAMember(name)
	}
	if _, err := bindAndFind(t.Context(), c, "user01", passwords["user02"]); !ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials) {
		t.Errorf("user01 with the password of user02: %v", err)
	}

	mustRun(t, c, "journey", "directory")
	mustRun(t, c, "repair", "directory")
	mustRun(t, c, "backup", "directory", "dump", "verify", "restore-test")

	before, err := c.Module(t.Context(), "directory")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Signal(t.Context(), before.Services[0].PID, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	awaitNewProcess(t, c, before, "slapd")
	mustBeAMember("user03")

	if err := m.Reset(t.Context()); err != nil { // no time to write anything
		t.Fatal(err)
	}
	mustBeReadyAgain(t, m)
	mustBeAMember("user05")
	mustRun(t, c, "journey", "directory")
}

// rootDSE reads what a directory shows to anybody.
func rootDSE(raw net.Conn) (*ldap.Entry, error) {
	conn := ldap.NewConn(raw, false)
	conn.Start()
	defer conn.Close()
	conn.SetTimeout(vm.Patience(10 * time.Second))
	return first(conn.Search(ldap.NewSearchRequest("", ldap.ScopeBaseObject, 0, 0, 0, false, "(objectClass=*)", nil, nil)))
}

// bindAndFind logs a member in and has her find herself.
func bindAndFind(ctx context.Context, c *api.Client, name, password string) (*ldap.Entry, error) {
	raw, err := c.DialModule(ctx, "directory", ldapPort)
	if err != nil {
		return nil, err
	}
	conn := ldap.NewConn(raw, false)
	conn.Start()
	defer conn.Close()
	conn.SetTimeout(vm.Patience(30 * time.Second))
	if err := conn.Bind("uid="+name+",ou=people,o=organisation", password); err != nil {
		return nil, err
	}
	return first(conn.Search(ldap.NewSearchRequest("ou=people,o=organisation", ldap.ScopeWholeSubtree, 0, 0, 0, false,
		"(uid="+name+")", []string{"*", "memberOf"}, nil)))
}

func first(r *ldap.SearchResult, err error) (*ldap.Entry, error) {
	if err != nil {
		return nil, err
	}
	if len(r.Entries) != 1 {
		return nil, fmt.Errorf("%d entries were found, want 1", len(r.Entries))
	}
	return r.Entries[0], nil
}
