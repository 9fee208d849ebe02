// Package portaltest runs the whole portal for tests, on a directory that the test has started.
package portaltest

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"allotment/api"
	"allotment/image"
	"allotment/init/apiserver"
	"allotment/init/apiserver/boxtest"
	"allotment/portal"
	"allotment/portal/config"
	"allotment/portal/directory"
)

// Password is everybody's.
const Password = "tomatoes and beans"

// Names of people that Start makes: an officer (treasurer), a member who decides about group "bees", and two members.
const (
	Officer = "olga"
	Owner   = "berta"
	Member  = "anna"
	Other   = "otto"
)

// Portal is a portal that runs.
type Portal struct {
	*portal.Portal
	URL       string
	Directory *directory.Directory
	Box       *boxtest.Box
	Config    *config.Config // may be changed while nobody asks

	ahead atomic.Int64 // of the real time, in nanoseconds
}

// Advance lets time pass.
func (p *Portal) Advance(by time.Duration) { p.ahead.Add(int64(by)) }

func (p *Portal) now() time.Time { return time.Now().Add(time.Duration(p.ahead.Load())) }

// Start runs a portal on the directory at address (see directorytest), with the people above, until the test ends.
func Start(t testing.TB, address, password string) *Portal {
	t.Helper()
	box := boxtest.New(time.Now())
	box.Claims.Claimed, box.Saved.State = true, api.BackupIdle
	box.Net = api.Network{Domain: "club.example", Names: []api.Name{{Host: "club.example"}, {Host: "portal.club.example"}},
		Authority: strings.Repeat("5B:", 31) + "5B", Certificates: []api.Certificate{
			{Names: []string{"club.example"}, Until: time.Now().AddDate(0, 2, 0)},
			{Names: []string{"portal.club.example"}, Failures: 2, Why: "unreached", Error: "HTTP 400 urn:ietf:params:acme:error:connection",
				Again: time.Now().Add(time.Hour)}}}
	p := open(t, box, config.Config{Directory: address, Domain: "club.example"}, password)
	p.people(t)
	return p
}

// Claim is the claim code of a portal that StartNew makes.
const Claim = "ABCD-EFGH-JK01"

// StartNew runs the portal of a box that is nobody's yet, with nobody in its directory.
func StartNew(t testing.TB, address, password string) *Portal {
	t.Helper()
	claim := filepath.Join(t.TempDir(), "claim")
	if err := os.WriteFile(claim, []byte(Claim+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	box := boxtest.New(time.Now())
	box.Things[0].Importance = "core"
	box.Things = append(box.Things, api.Module{Name: "calendar", Title: "Calendar", State: "off"})
	var form []image.Setting
	for _, name := range []string{"name", "domain", "language", "time-zone", "contact"} {
		form = append(form, image.Setting{Name: name, Title: name, Type: "string"})
	}
	box.Forms[""] = api.Settings{Form: form, Values: map[string]any{"name": "", "domain": "allotment.internal", "time-zone": "Etc/UTC"}}
	return open(t, box, config.Config{Directory: address, Domain: "allotment.internal", Claim: claim}, password)
}

// open runs a portal with the rest of the configuration c.
func open(t testing.TB, box *boxtest.Box, c config.Config, password string) *Portal {
	t.Helper()
	dir := t.TempDir()
	c.API, c.Password, c.State = serve(t, box), filepath.Join(dir, "password"), filepath.Join(dir, "state")
	c.Modules = []config.Module{
		{Name: "web", Title: "Website", Path: "/", SSO: "header", Permissions: []config.Permission{{Name: "edit", Title: "write pages"}}},
		{Name: "calendar", Title: "Calendar", Path: "/calendar/", SSO: "basic"},
	}
	if err := os.WriteFile(c.Password, []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &Portal{Box: box, Config: &c}
	p.begin(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.ServeHTTP(w, r) }))
	t.Cleanup(func() { server.Close(); p.Close() })
	p.URL = server.URL
	return p
}

// begin starts a portal on what one of before has kept.
func (p *Portal) begin(t testing.TB) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	var err error
	if p.Portal, err = portal.Open(func() config.Config { return *p.Config }, p.now, log); err != nil {
		t.Fatal(err)
	}
	p.Directory = p.Deps().Directory
}

// Restart ends the portal and starts another on what it has kept, while nobody asks. Browsers keep their cookies.
func (p *Portal) Restart(t testing.TB) {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p.begin(t)
}

// serve answers the box's API on a unix socket, for officers as the portal is one.
func serve(t testing.TB, box *boxtest.Box) string {
	t.Helper()
	s, err := apiserver.New(apiserver.Config{Box: box, Access: map[uint32]api.Access{uint32(os.Getuid()): api.Officer}})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "box") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "api.sock")
	l, err := apiserver.ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	t.Cleanup(func() { s.Close(); os.RemoveAll(dir) })
	return path
}

// people fills the directory.
func (p *Portal) people(t testing.TB) {
	t.Helper()
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range []directory.Person{
		{Name: Officer, Given: "Olga", Family: "Oberst", OutsideMail: "olga@mail.example"},
		{Name: Owner, Given: "Berta", Family: "Biene", OutsideMail: "berta@mail.example"},
		{Name: Member, Given: "Anna", Family: "Apfel", OutsideMail: "anna@mail.example"},
		{Name: Other, Given: "Otto", Family: "Obst", OutsideMail: "otto@mail.example"},
	} {
		must(p.Directory.AddPerson(ctx, v))
		must(p.Directory.SetPassword(ctx, v.Name, Password))
	}
	must(p.Directory.AddGroup(ctx, directory.Group{Name: "bees", Title: "Beekeepers", Owners: []string{Owner}, Members: []string{Owner, Member}}))
	must(p.Directory.AddGroup(ctx, directory.Group{Name: "choir", Title: "Choir", Members: []string{Other}}))
	offices, err := p.Directory.Offices(ctx)
	must(err)
	for _, o := range offices {
		if o.Name == "treasurer" {
			must(p.Directory.AppointTo(ctx, o.Name, Officer, time.Time{}, time.Time{}))
			return
		}
	}
	must(p.Directory.AddOffice(ctx, directory.Office{Name: "treasurer", Title: "Treasurer", Occupant: Officer}))
}
