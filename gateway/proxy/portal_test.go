package proxy

import (
	"errors"
	"net/http"
	"net/http/cookiejar"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"allotment/gateway"
	"allotment/modules/directory/directorytest"
	"allotment/portal/audit"
	"allotment/portal/config"
	"allotment/portal/directory"
	portalsession "allotment/portal/session"
	"allotment/portal/sso"
	"allotment/portal/store"
)

func TestMain(m *testing.M) { directorytest.Main(m) }

const domain = "ashwell.example"

// ashwell is an organisation with the real directory and the portal's real part in telling who visitors are, on the
// portal's socket. In the place of the login page is one that logs in whomever the parameter "person" names.
func ashwell(t *testing.T) (socket, address string, people *directory.Directory) {
	t.Helper()
	address, password := directorytest.Start(t)
	people = directory.Open(address, func() (string, error) { return password, nil })
	t.Cleanup(func() { people.Close() })
	db, err := store.Open(filepath.Join(t.TempDir(), "portal.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if err := errors.Join(
		people.AddPerson(t.Context(), directory.Person{Name: "anna", Given: "Änne", Family: "Au", Mail: "anna@" + domain}),
		people.AddGroup(t.Context(), directory.Group{Name: "gardeners", Title: "Gardeners", Members: []string{"anna"}}),
		people.DeclarePermission(t.Context(), "wiki", "use", "gardeners"),
	); err != nil {
		t.Fatal(err)
	}
	c := config.Config{Domain: domain, Origin: "https://portal." + domain, Secure: true, Modules: []config.Module{
		{Name: "wiki", SSO: "header", Permissions: []config.Permission{{Name: "use"}}}, {Name: "calendar", SSO: "basic"}}}
	sessions := portalsession.New(db, time.Now, func() bool { return true })
	s, err := sso.New(sso.Deps{Directory: people, DB: db, Audit: audit.New(db, time.Now), Now: time.Now, Sessions: sessions,
		Config: func() config.Config { return c }, Log: quietLog()})
	if err != nil {
		t.Fatal(err)
	}
	socket = portalAt(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/portal/login" {
			s.ServeHTTP(w, r)
			return
		}
		if _, err := sessions.Begin(w, r, "anna", portalsession.Password); err != nil {
			t.Error(err)
		}
		http.Redirect(w, r, r.FormValue("to"), http.StatusSeeOther)
	})
	return socket, address, people
}

// binds tells whether the directory takes a person's password, as it does for a module.
func binds(t *testing.T, address, person, password string) bool {
	t.Helper()
	c, err := ldap.DialURL("ldap://" + address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.Bind("uid="+person+",ou=people,o=organisation", password) == nil
}

// TestOneLogin logs in once at the portal, and is known on other host names by the real portal and directory until
// she is deactivated.
func TestOneLogin(t *testing.T) {
	socket, address, people := ashwell(t)
	target := module(t, told)
	b := open(t, gateway.Config{
		Names: []string{domain, "portal." + domain, "wiki." + domain}, Portal: socket, PortalHost: "portal." + domain,
		Routes: []gateway.Route{
			{Path: "/", Hosts: []string{"wiki." + domain}, Target: target, Ready: true, Module: "wiki", SSO: "header"},
			{Path: "/calendar", Target: target, Ready: true, Module: "calendar", SSO: "basic"},
		},
	}, DefaultLimits(), domain, "portal."+domain, "wiki."+domain)
	var ahead atomic.Int64
	b.gateway.registry.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := b.browser(t)
	browser.Jar, browser.CheckRedirect = jar, nil // it follows the way there and back

	const wiki = "https://wiki." + domain
	if _, body := fetched(t, browser, wiki+"/"); body != "||||:|" {
		t.Errorf("before the login: %q", body)
	}
	const anna = "anna|Änne Au|anna@" + domain + "|gardenersuse|:|"
	r, body := fetched(t, browser, wiki+"/.well-known/allotment/sso/login?to=/page")
	if r.Request.URL.String() != wiki+"/page" || body != anna {
		t.Fatalf("after the login, at %s: %q", r.Request.URL, body)
	}
	if _, body = fetched(t, b.browser(t), wiki+"/"); body != "||||:|" {
		t.Errorf("another browser: %q", body)
	}
	_, body = fetched(t, browser, "https://"+domain+"/.well-known/allotment/sso/login?to=/calendar")
	user, password, _ := strings.Cut(strings.Split(body, "|")[4], ":")
	if user != "anna" || !binds(t, address, user, password) || binds(t, address, user, password+"x") {
		t.Errorf("the calendar is told %q", body)
	}

	if err := people.Deactivate(t.Context(), "anna"); err != nil {
		t.Fatal(err)
	}
	ahead.Store(int64(whoisKept))
	for _, url := range []string{wiki + "/", "https://" + domain + "/calendar"} {
		if _, body := fetched(t, browser, url); body != "||||:|" {
			t.Errorf("after she is deactivated, %s: %q", url, body)
		}
	}
}
