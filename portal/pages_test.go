package portal_test

import (
	"testing"

	"allotment/modules/directory/directorytest"
	"allotment/portal/audit"
	"allotment/portal/ledger"
	"allotment/portal/portaltest"
	"allotment/portal/store"
)

func TestMain(m *testing.M) { directorytest.Main(m) }

func start(t testing.TB) *portaltest.Portal {
	t.Helper()
	address, password := directorytest.Start(t)
	return portaltest.Start(t, address, password)
}

func TestPages(t *testing.T) {
	p := start(t)
	b := p.LogIn(t, portaltest.Officer)
	for _, path := range []string{"/portal/", "/portal/me", "/portal/me/login", "/portal/me/password", "/portal/me/totp", "/portal/me/apps", "/portal/groups",
		"/portal/people", "/portal/people/new", "/portal/people/p/anna", "/portal/people/groups", "/portal/people/groups/bees", "/portal/people/offices",
		"/portal/people/collectives", "/portal/people/permissions", "/portal/people/import", "/portal/people/log", "/portal/people/export?format=csv"} {
		page := b.Get(path)
		if page.Status != 200 {
			t.Errorf("%s: %d %s", path, page.Status, page.Words())
		}
	}
}

// TestAccountsLink leads members to the accounts once there is something in them.
func TestAccountsLink(t *testing.T) {
	p := start(t)
	b := p.LogIn(t, portaltest.Member)
	if b.Get("/portal/").Says("What the server costs") {
		t.Error("empty accounts have a link")
	}
	e := ledger.Entry{Kind: ledger.Cost, Date: "2026-01-05", What: "Server", Cents: 8280, Currency: "EUR"}
	if err := p.Deps().DB.Update(func(tx *store.Tx) error { _, err := ledger.Put(tx, e); return err }); err != nil {
		t.Fatal(err)
	}
	for n := range b.Get("/portal/").All("a") {
		if path := portaltest.Attr(n, "href"); path == "/portal/accounts" {
			if page := b.Get(path); page.Status != 200 || !page.Says("What was paid for the server") {
				t.Errorf("%d %s", page.Status, page.Words())
			}
			return
		}
	}
	t.Error("no link to the accounts")
}

func auditEntry(subject string) audit.Entry {
	return audit.Entry{Kind: "person.changed", Actor: subject, Subject: subject}
}
