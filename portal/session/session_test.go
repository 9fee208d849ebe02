package session

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"allotment/portal/store"
)

type site struct {
	*Sessions
	db  *store.DB
	now time.Time
}

func newSite(t *testing.T) *site {
	t.Helper()
	db, err := store.Open(filepath.Join(t.TempDir(), "portal.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s := &site{db: db, now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	s.Sessions = New(db, func() time.Time { return s.now }, func() bool { return true })
	return s
}

// ask is a request of a browser with a cookie to a host name.
func ask(host, cookie string) *http.Request {
	r := httptest.NewRequest("GET", "https://"+host+"/", nil)
	if cookie != "" {
		r.AddCookie(&http.Cookie{Name: CookieSecure, Value: cookie})
	}
	return r
}

// login logs person in at a browser with a cookie, and returns the cookie that it has then.
func (s *site) login(t *testing.T, person, host, cookie string) (Session, string) {
	t.Helper()
	w := httptest.NewRecorder()
	got, err := s.Begin(w, ask(host, cookie), person, Password)
	if err != nil {
		t.Fatal(err)
	}
	c := w.Result().Cookies()
	if len(c) != 1 || c[0].Name != CookieSecure || !c[0].Secure || !c[0].HttpOnly || c[0].Path != "/" || c[0].Domain != "" {
		t.Fatalf("cookies %v", c)
	}
	return got, c[0].Value
}

// who is the person that a browser with a cookie is logged in as at a host name.
func (s *site) who(t *testing.T, host, cookie string) string {
	t.Helper()
	got, err := s.Find(ask(host, cookie))
	if err != nil && !errors.Is(err, ErrNone) {
		t.Fatal(err)
	}
	return got.Person
}

func TestLoginAndLogout(t *testing.T) {
	s := newSite(t)
	got, cookie := s.login(t, "anna", "portal.example", "")
	if who := s.who(t, "portal.example", cookie); who != "anna" {
		t.Errorf("logged in as %q", who)
	}
	if who := s.who(t, "Portal.Example.:443", cookie); who != "anna" {
		t.Errorf("with another spelling of the host name logged in as %q", who)
	}
	for _, cookie := range []string{"", "x", hash(cookie), got.ID} {
		if who := s.who(t, "portal.example", cookie); who != "" {
			t.Errorf("cookie %q is logged in as %q", cookie, who)
		}
	}
	if err := s.End(got.ID); err != nil {
		t.Fatal(err)
	}
	if who := s.who(t, "portal.example", cookie); who != "" {
		t.Errorf("after the logout logged in as %q", who)
	}
	select {
	case <-s.Ended():
	default:
		t.Error("nobody is told of the end")
	}
}

func TestNoFixation(t *testing.T) {
	s := newSite(t)
	_, thiefs := s.login(t, "mallory", "portal.example", "")
	_, annas := s.login(t, "anna", "portal.example", thiefs)
	if annas == thiefs || s.who(t, "portal.example", thiefs) != "" || s.who(t, "portal.example", annas) != "anna" {
		t.Error("the cookie from before the login is still good")
	}
	_, planted := s.login(t, "anna", "portal.example", "planted")
	if planted == "planted" || s.who(t, "portal.example", "planted") != "" {
		t.Error("a cookie that was never given counts")
	}
}

func TestLoginAgainKeepsTheSession(t *testing.T) {
	s := newSite(t)
	first, before := s.login(t, "anna", "portal.example", "")
	other, err := s.Pass(first.ID, "wiki.example")
	if err != nil {
		t.Fatal(err)
	}
	s.now = s.now.Add(time.Hour)
	second, after := s.login(t, "anna", "portal.example", before)
	if second.ID != first.ID || !second.Created.Equal(first.Created) || !second.Fresh.After(s.now) {
		t.Errorf("first %+v, second %+v", first, second)
	}
	if s.who(t, "portal.example", before) != "" || s.who(t, "portal.example", after) != "anna" ||
		s.who(t, "wiki.example", other) != "anna" {
		t.Error("wrong cookies are good")
	}
}

func TestHostNames(t *testing.T) {
	s := newSite(t)
	first, cookie := s.login(t, "anna", "portal.example", "")
	other, err := s.Pass(first.ID, "Wiki.example:443")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ host, cookie, who string }{
		{"portal.example", cookie, "anna"}, {"wiki.example", other, "anna"},
		{"wiki.example", cookie, ""}, {"portal.example", other, ""}, {"chat.example", other, ""},
	} {
		if who := s.who(t, c.host, c.cookie); who != c.who {
			t.Errorf("at %s logged in as %q, want %q", c.host, who, c.who)
		}
	}
	if err := s.EndAll("anna"); err != nil {
		t.Fatal(err)
	}
	if s.who(t, "wiki.example", other) != "" {
		t.Error("the other host name does not know of the logout")
	}
	if _, err := s.Pass(first.ID, "wiki.example"); !errors.Is(err, ErrNone) {
		t.Errorf("passing an ended session on: %v", err)
	}
	left := 0
	if err := s.db.View(func(tx *store.Tx) error {
		return tokens.All(tx, "", func(string, token) bool { left++; return true })
	}); err != nil || left != 0 {
		t.Errorf("%d tokens are left, error %v", left, err)
	}
}

func TestExpires(t *testing.T) {
	for name, c := range map[string]struct {
		step  time.Duration
		steps int
		who   string
	}{
		"used each week":            {7 * 24 * time.Hour, 12, "anna"},
		"used each week, too long":  {7 * 24 * time.Hour, 13, ""},
		"not used":                  {Idle + time.Minute, 1, ""},
		"not used, not long enough": {Idle - time.Minute, 1, "anna"},
		"clock set back by years":   {-5 * 365 * 24 * time.Hour, 1, ""},
		"clock set back by an hour": {-time.Hour, 1, "anna"},
	} {
		s := newSite(t)
		_, cookie := s.login(t, "anna", "portal.example", "")
		who := ""
		for range c.steps {
			s.now = s.now.Add(c.step)
			who = s.who(t, "portal.example", cookie)
		}
		if who != c.who {
			t.Errorf("%s: logged in as %q, want %q", name, who, c.who)
		}
	}
}

func TestPowersNeedUse(t *testing.T) {
	s := newSite(t)
	first, cookie := s.login(t, "anna", "portal.example", "")
	for range 3 {
		s.now = s.now.Add(PowersIdle - time.Minute)
		got, err := s.Find(ask("portal.example", cookie))
		if err != nil || !s.now.Before(got.Powers) || s.now.Before(got.Fresh) {
			t.Fatalf("used in time: %+v, error %v", got, err)
		}
	}
	s.now = s.now.Add(PowersIdle + time.Minute)
	for range 2 { // the second time too: use alone does not bring them back
		got, err := s.Find(ask("portal.example", cookie))
		if err != nil || s.now.Before(got.Powers) {
			t.Errorf("not used: %+v, error %v", got, err)
		}
		s.now = s.now.Add(2 * seenEvery)
	}
	if got, _ := s.login(t, "anna", "portal.example", cookie); !s.now.Before(got.Powers) || got.ID != first.ID {
		t.Errorf("logged in again: %+v", got)
	}
}

func TestListAndEndOthers(t *testing.T) {
	s := newSite(t)
	s.login(t, "anna.b", "portal.example", "") // her name begins with the other's
	var last Session
	for range mostPerPerson + 5 {
		s.now = s.now.Add(time.Second)
		last, _ = s.login(t, "anna", "portal.example", "")
	}
	if all, err := s.List("anna"); err != nil || len(all) != mostPerPerson || all[0].ID != last.ID {
		t.Errorf("%d sessions, error %v", len(all), err)
	}
	if err := s.EndOthers("anna", last.ID); err != nil {
		t.Fatal(err)
	}
	if all, err := s.List("anna"); err != nil || len(all) != 1 || all[0].ID != last.ID {
		t.Errorf("left are %v, error %v", all, err)
	}
	if all, err := s.List("anna.b"); err != nil || len(all) != 1 {
		t.Errorf("the other has %v, error %v", all, err)
	}
	s.now = s.now.Add(Absolute + time.Hour)
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	left := 0
	if err := s.db.View(func(tx *store.Tx) error {
		return records.All(tx, "", func(string, record) bool { left++; return true })
	}); err != nil || left != 0 {
		t.Errorf("%d sessions are left after the sweep, error %v", left, err)
	}
	if _, err := s.Get(last.ID); !errors.Is(err, ErrNone) {
		t.Errorf("after the sweep: %v", err)
	}
}

func TestManyHosts(t *testing.T) {
	s := newSite(t)
	first, cookie := s.login(t, "anna", "portal.example", "")
	var values []string
	for range mostHosts + 3 {
		v, err := s.Pass(first.ID, "wiki.example")
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, v)
	}
	if s.who(t, "portal.example", cookie) != "anna" || s.who(t, "wiki.example", values[len(values)-1]) != "anna" {
		t.Error("the login, or the newest, is gone")
	}
	if s.who(t, "wiki.example", values[0]) != "" {
		t.Error("the oldest is still good")
	}
}

func TestTokens(t *testing.T) {
	s := newSite(t)
	first, before := s.login(t, "anna", "portal.example", "")
	old, key := s.TokenID(ask("portal.example", before)), string(s.Key(ask("portal.example", before), "a"))
	_, after := s.login(t, "anna", "portal.example", before)
	id := s.TokenID(ask("portal.example", after))
	for token, want := range map[string]bool{old: false, id: true, "": false} {
		if got, err := s.Alive(token); err != nil || got != want {
			t.Errorf("%q is alive: %v, error %v", token, got, err)
		}
	}
	for _, other := range [][]byte{s.Key(ask("portal.example", before), "b"), s.Key(ask("portal.example", after), "a")} {
		if string(other) == key || len(other) != 32 {
			t.Error("one key for two purposes or browsers")
		}
	}
	if err := s.End(first.ID); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Alive(id); err != nil || got {
		t.Errorf("after the end: %v, error %v", got, err)
	}
}

func TestClient(t *testing.T) {
	r := ask("x", "")
	r.RemoteAddr = "192.0.2.9:4711"
	if got := Client(r); got != "192.0.2.9" {
		t.Errorf("without a header %q", got)
	}
	for header, want := range map[string]string{"2001:DB8::1": "2001:db8::1", "6.6.6.6, 192.0.2.1": "192.0.2.1",
		"<b>": "192.0.2.9"} {
		r.Header.Set("X-Forwarded-For", header)
		if got := Client(r); got != want {
			t.Errorf("%q: %q, want %q", header, got, want)
		}
	}
}

func TestDevice(t *testing.T) {
	for agent, want := range map[string]string{
		"Mozilla/5.0 (iPad; CPU OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML) Version/17.0 Mobile/15E148 Safari/604.1": "Safari, iPad",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML) Chrome/120.0 Safari/537.36 Edg/120.0":          "Edge, Windows",
		"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0":                                             "Firefox, Linux",
		"curl/8": "",
	} {
		if got := Device(agent); got != want {
			t.Errorf("%q: %q", agent, got)
		}
	}
}

// TestPeople has people whose names begin alike.
func TestPeople(t *testing.T) {
	s := newSite(t)
	for _, name := range []string{"anna", "anna2", "anna", "bert", "ann"} {
		s.login(t, name, "portal.example", "")
	}
	if got, err := s.People(); err != nil || !slices.Equal(got, []string{"anna2", "anna", "ann", "bert"}) {
		t.Errorf("%q, %v", got, err)
	}
	if err := s.EndAll("anna"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.People(); err != nil || !slices.Equal(got, []string{"anna2", "ann", "bert"}) {
		t.Errorf("%q, %v", got, err)
	}
}
