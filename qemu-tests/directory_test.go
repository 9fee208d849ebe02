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

// useDirectory asks the directory of a box: through the developer's tunnel, because from outside nobody reaches it.
func useDirectory(t *testing.T, c *club) (again func(*testing.T)) {
	if conn, err := net.DialTimeout("tcp", c.Address(ldapPort), vm.Patience(10*time.Second)); err == nil {
		// QEMU itself takes the connection; what counts is whether anything answers behind it.
		if _, err := rootDSE(conn); err == nil {
			t.Error("the directory answers outside the box")
		}
	}
	for name := range c.passwords {
		c.mustBeAMember(t, name)
	}
	if _, err := bindAndFind(t.Context(), c.API(), "user01", c.passwords["user02"]); !ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials) {
		t.Errorf("user01 with the password of user02: %v", err)
	}

	mustRun(t, c.API(), "journey", "directory")
	mustRun(t, c.API(), "repair", "directory")
	mustRun(t, c.API(), "backup", "directory", "dump", "verify")
	before, err := c.API().Module(t.Context(), "directory")
	if err != nil {
		t.Fatal(err)
	}
	mustRun(t, c.API(), "backup", "directory", "restore", "restore-test") // slapd does not run while it is restored
	awaitNewProcess(t, c.API(), before, "slapd")
	c.mustBeAMember(t, "user04")

	if before, err = c.API().Module(t.Context(), "directory"); err != nil {
		t.Fatal(err)
	}
	if err := c.API().Signal(t.Context(), before.Services[0].PID, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	awaitNewProcess(t, c.API(), before, "slapd")
	c.mustBeAMember(t, "user03")
	return func(t *testing.T) {
		c.mustBeAMember(t, "user05")
		mustRun(t, c.API(), "journey", "directory")
	}
}

// mustBeAMember logs somebody in who must be in the group of members, and sees no password.
func (c *club) mustBeAMember(t *testing.T, name string) {
	t.Helper()
	entry, err := bindAndFind(t.Context(), c.API(), name, c.passwords[name])
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
