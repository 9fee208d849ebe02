package portal

import (
	"path/filepath"
	"testing"

	"allotment/portal/config"
	"allotment/portal/store"
)

// TestPlace has mails lead to where an officer was last, also after the portal was started again, until there is a host name.
func TestPlace(t *testing.T) {
	db, err := store.Open(filepath.Join(t.TempDir(), "portal.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	c := config.Config{Domain: "allotment.internal"}
	want := func(p *place, c config.Config, want string) {
		t.Helper()
		if got := p.origin(c); got != want {
			t.Errorf("mails lead to %s, want %s", got, want)
		}
	}
	first := &place{db: db}
	want(first, c, "http://allotment.internal")
	for _, origin := range []string{"https://192.0.2.1", "https://192.0.2.7", "https://192.0.2.7"} {
		if err := first.reached(origin); err != nil {
			t.Fatal(err)
		}
	}
	want(first, c, "https://192.0.2.7")
	want(&place{db: db}, c, "https://192.0.2.7")
	c.Origin = "https://portal.club.example"
	want(first, c, "https://portal.club.example")
}
