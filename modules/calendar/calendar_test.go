// Package calendar_test asks the real Radicale of the module, with the real directory.
package calendar_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/init/render"
	"allotment/modules/calendar/davtest"
	"allotment/modules/moduletest"
	"allotment/portal/directory"
)

func TestMain(m *testing.M) { moduletest.Main(m) }

// club is a running directory and calendar.
type club struct {
	t         *testing.T
	box       *moduletest.Box
	directory *moduletest.Module
	ldap      string // address of the directory
	radicale  *moduletest.Module
	address   string // of Radicale
	portal    *directory.Directory
	gateway   string // URL of what stands for the gateway
	stop      func() // ends the directory
	stopCal   func()
}

const password = "correct horse battery staple"

func newClub(t *testing.T) *club {
	t.Helper()
	c := &club{t: t, box: moduletest.New(t, "directory", "calendar"), ldap: moduletest.FreeAddress(t), address: moduletest.FreeAddress(t)}
	c.directory = c.box.Unpack("directory", nil)
	if _, err := c.directory.Run("/bin/sh", "/usr/lib/allotment/directory.sh", "create"); err != nil {
		t.Fatal(err)
	}
	c.startDirectory()
	c.radicale = c.box.Unpack("calendar", func(d *render.Data) { d.LDAP.URI = "ldap://" + c.ldap })
	c.configure("0.0.0.0:5232, [::]:5232", c.address)
	c.startCalendar()

	// The gateway tells modules that it is one; without that Radicale answers below "/".
	target, err := url.Parse("http://" + c.address)
	if err != nil {
		t.Fatal(err)
	}
	gateway := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.SetXForwarded()
	}})
	t.Cleanup(gateway.Close)
	c.gateway = gateway.URL

	portal := directory.Open(c.ldap, func() (string, error) { return c.box.Secret("directory", "portal"), nil })
	t.Cleanup(func() { portal.Close() })
	c.portal = portal
	if err := portal.DeclarePermission(t.Context(), "calendar", "use", "members"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"anna", "bert", "cora"} {
		if err := portal.AddPerson(t.Context(), directory.Person{Name: name}); err != nil {
			t.Fatal(err)
		}
		if err := portal.SetPassword(t.Context(), name, password); err != nil {
			t.Fatal(err)
		}
		if name == "cora" {
			continue // she may not use it
		}
		if err := portal.AddMember(t.Context(), "members", name); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// configure exchanges what stands once in Radicale's configuration.
func (c *club) configure(old, new string) {
	c.t.Helper()
	conf := string(c.radicale.Read("/run/config/radicale.conf"))
	if strings.Count(conf, old) != 1 {
		c.t.Fatalf("the configuration does not have %q just once", old)
	}
	c.radicale.Write("/run/config/radicale.conf", []byte(strings.Replace(conf, old, new, 1)))
}

func (c *club) startDirectory() {
	c.directory.Empty("/run/probes")
	c.stop = c.directory.Start(c.ldap, "/bin/sh", "/usr/lib/allotment/directory.sh", "start", "ldap://"+c.ldap)
}

func (c *club) startCalendar() {
	c.stopCal = c.radicale.Start(c.address, c.box.Service("calendar", "radicale").Command...)
}

func (c *club) logIn(name string) *davtest.Member {
	c.t.Helper()
	m, err := davtest.LogIn(c.t.Context(), &http.Client{Transport: http.DefaultTransport}, c.gateway, name, password)
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// mustGet makes a request and wants a status.
func (c *club) mustGet(m *davtest.Member, path string, want int) string {
	c.t.Helper()
	a, err := m.Do(c.t.Context(), "GET", path, "", "")
	if err != nil {
		c.t.Fatal(err)
	}
	if a.Status != want {
		c.t.Errorf("%s gets %s with status %d, want %d", m.Name, path, a.Status, want)
	}
	return a.Body
}

func TestMembersKeepTheirOwn(t *testing.T) {
	c := newClub(t)
	ctx := t.Context()
	phone, laptop := c.logIn("anna"), c.logIn("ANNA") // names are the same in capitals
	if err := phone.AddEvents(ctx, 20); err != nil {
		t.Fatal(err)
	}
	if err := phone.AddCards(ctx, 20); err != nil {
		t.Fatal(err)
	}
	if err := laptop.Conflict(ctx, 7); err != nil {
		t.Error(err)
	}
	c.stopCal() // SIGKILL
	c.startCalendar()
	events, err := laptop.Summaries(ctx)
	if err != nil || len(events) != 20 || !slices.Contains(events, "phone, Umgraben, Beet 7") {
		t.Errorf("events %q, error %v", events, err)
	}
	if names, err := laptop.Names(ctx); err != nil || len(names) != 20 || names[0] != "Gärtnerin 0" {
		t.Errorf("cards %q, error %v", names, err)
	}

	bert := c.logIn("bert")
	c.mustGet(phone, phone.Event(3), http.StatusOK)
	c.mustGet(bert, phone.Event(3), http.StatusForbidden)
	a, err := bert.Do(ctx, "PUT", phone.Event(3), "", "BEGIN:VCALENDAR\nEND:VCALENDAR\n")
	if err != nil || a.Status != http.StatusForbidden {
		t.Errorf("bert writes for anna with status %d, error %v", a.Status, err)
	}
	if bert.Calendar == phone.Calendar {
		t.Errorf("both have %s", bert.Calendar)
	}
	if out, err := c.radicale.Run(c.box.Repair("calendar", "verify").Command...); err != nil {
		t.Errorf("the check complains: %v: %s", err, out)
	}
}

// TestPage: the page for browsers loads the script that knows the portal, and nothing else has changed.
func TestPage(t *testing.T) {
	c := newClub(t)
	get := func(path string) string {
		t.Helper()
		resp, err := http.Get(c.gateway + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s, %v", path, resp.Status, err)
		}
		return string(b)
	}
	if page := get("/calendar/.web/"); strings.Count(page, `<script src="sso.js"></script>`) != 1 || !strings.Contains(page, "</html>") {
		t.Errorf("the page is %s", page)
	}
	if script := get("/calendar/.web/sso.js"); !strings.Contains(script, "/.well-known/allotment/sso/") {
		t.Errorf("the script is %s", script)
	}
	if other := get("/calendar/.web/fn.js"); !strings.Contains(other, "LoginScene") || strings.Contains(other, "sso.js") {
		t.Errorf("the page's own script is %s", other)
	}
}

func TestVerifyNoticesDamage(t *testing.T) {
	c := newClub(t)
	m := c.logIn("anna")
	if err := m.AddEvents(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	c.radicale.Write("/var/lib/radicale/collection-root/anna/calendar/event000.ics", []byte("BEGIN:VCALENDAR\nno"))
	if out, err := c.radicale.Run(c.box.Repair("calendar", "verify").Command...); err == nil {
		t.Errorf("a damaged event goes unnoticed: %s", out)
	}
}

func TestPasswords(t *testing.T) {
	c := newClub(t)
	m := c.logIn("anna")
	path := m.Calendar
	c.mustGet(m, path, http.StatusOK)
	for _, wrong := range []string{"", "wrong", password + " "} {
		c.mustGet(c.as(m, "anna", wrong), path, http.StatusUnauthorized)
	}
	for _, name := range []string{"", "cora", "nobody", "*", "anna)(uid=*", "../anna"} {
		c.mustGet(c.as(m, name, password), path, http.StatusUnauthorized)
	}

	bert := c.as(m, "bert", password)
	if err := c.portal.Deactivate(t.Context(), "bert"); err != nil {
		t.Fatal(err)
	}
	c.mustGet(bert, "/calendar/bert/calendar/", http.StatusUnauthorized)
	if err := c.portal.Activate(t.Context(), "bert"); err != nil {
		t.Fatal(err)
	}

	// Who gave the right password is known for a while, and the others are not.
	c.stop()
	c.mustGet(m, path, http.StatusOK)
	c.mustGet(c.as(m, "anna", "wrong"), path, http.StatusInternalServerError)
	c.mustGet(c.as(m, "bert", password), "/calendar/bert/calendar/", http.StatusInternalServerError)
	c.startDirectory()
	c.mustGet(c.as(m, "bert", password), "/calendar/bert/calendar/", http.StatusOK)
}

// as is the same program with another name and password.
func (c *club) as(m *davtest.Member, name, password string) *davtest.Member {
	other := *m
	other.Name, other.Password = name, password
	return &other
}

// TestWrongReader looks that a member whose password cannot be checked is not told that it is wrong, since programs throw
// such a password away.
func TestWrongReader(t *testing.T) {
	c := newClub(t)
	m := c.logIn("anna")
	c.stopCal()
	c.configure(c.box.Secret("calendar", "ldap"), "not the one")
	c.startCalendar()
	c.mustGet(m, m.Calendar, http.StatusInternalServerError)
}

// TestJourney makes the requests of the module's journey as the supervisor does, without the gateway.
func TestJourney(t *testing.T) {
	c := newClub(t)
	for _, journey := range c.box.Declared("calendar").Journeys {
		for _, step := range journey.Steps {
			r := step.HTTP
			req, err := http.NewRequestWithContext(t.Context(), r.Method, "http://"+c.address+r.Path, strings.NewReader(r.Body))
			if err != nil {
				t.Fatal(err)
			}
			req.SetBasicAuth(r.User, c.box.Secret("calendar", r.Secret))
			for _, h := range r.Headers {
				name, value, _ := strings.Cut(h, ": ")
				req.Header.Set(name, value)
			}
			resp, err := (&http.Client{Timeout: time.Minute}).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if len(r.Status) > 0 && !slices.Contains(r.Status, resp.StatusCode) || len(r.Status) == 0 && resp.StatusCode/100 != 2 {
				t.Errorf("%s: status %s", step.Title, resp.Status)
			}
		}
	}
}
