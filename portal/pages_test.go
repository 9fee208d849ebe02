package portal_test

import (
	"testing"

	"allotment/modules/directory/directorytest"
	"allotment/portal/audit"
	"allotment/portal/portaltest"
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

func auditEntry(subject string) audit.Entry {
	return audit.Entry{Kind: "person.changed", Actor: subject, Subject: subject}
}
