package portal_test

import (
	"net/http"
	"testing"
	"time"

	"allotment/portal/directory"
	"allotment/portal/portaltest"
)

// TestSweep deletes one person as officers do, and another behind the portal's back, as a power cut between the directory and the
// portal's own data does. Whoever gets their names later has nothing of theirs.
func TestSweep(t *testing.T) {
	p := start(t)
	ctx := t.Context()
	browsers := map[string]*portaltest.Browser{}
	for _, name := range []string{portaltest.Member, portaltest.Other} {
		browsers[name] = p.LogIn(t, name)
		if _, err := p.Deps().Login.MakePrinted(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Directory.Delete(ctx, portaltest.Member, time.Now().Add(-time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := p.Directory.RemovePerson(ctx, portaltest.Other); err != nil {
		t.Fatal(err)
	}
	p.Sweep(ctx)
	p.Sweep(ctx)
	for name, b := range browsers {
		if err := p.Directory.AddPerson(ctx, directory.Person{Name: name, Given: "Another"}); err != nil {
			t.Fatal(err)
		}
		if page := b.Get("/portal/me"); page.Status != http.StatusSeeOther {
			t.Errorf("%s: the browser of the former one is logged in: %d", name, page.Status)
		}
		if m, err := p.Deps().Login.Methods(name); err != nil || m.Printed != 0 {
			t.Errorf("%s has %d codes of the former one, %v", name, m.Printed, err)
		}
	}
	entries, err := p.Deps().Audit.Recent(10, "")
	removed := 0
	for _, e := range entries {
		if e.Kind == "person.removed" {
			removed++
		}
	}
	if err != nil || removed != 1 {
		t.Errorf("%d people removed in %+v, %v", removed, entries, err)
	}
}
