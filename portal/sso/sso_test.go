package sso

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"allotment/modules/directory/directorytest"
	"allotment/portal/audit"
	"allotment/portal/config"
	"allotment/portal/directory"
	"allotment/portal/session"
	"allotment/portal/store"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // the library tells there of each attack
	directorytest.Main(m)
}

const (
	domain = "ashwell.example"
	origin = "https://portal." + domain
	wiki   = "https://wiki." + domain
)

// site is an SSO behind a web server that answers for all host names, with a directory of its own. In the place of the
// login page is one that logs in whomever the parameter "person" names.
type site struct {
	*SSO
	t         testing.TB
	directory *directory.Directory
	ldap      string
	now       time.Time
	server    *httptest.Server
}

func newSite(t testing.TB) *site {
	t.Helper()
	address, password := directorytest.Start(t)
	// Close to the clock, because the library has that one.
	s := &site{t: t, ldap: address, now: time.Now().UTC(),
		directory: directory.Open(address, func() (string, error) { return password, nil })}
	t.Cleanup(func() { s.directory.Close() })
	db, err := store.Open(filepath.Join(t.TempDir(), "portal.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s.open(db)
	s.server = httptest.NewTLSServer(http.HandlerFunc(s.answer))
	t.Cleanup(s.server.Close)
	ctx := t.Context()
	for _, name := range []string{"anna", "bert"} {
		s.must(s.directory.AddPerson(ctx, directory.Person{Name: name, Given: "Änne", Family: name, Language: "de",
			Mail: name + "@" + domain}))
	}
	s.must(s.directory.AddGroup(ctx, directory.Group{Name: "gardeners", Title: "Gardeners", Members: []string{"anna"}}),
		s.directory.DeclarePermission(ctx, "wiki", "use", "gardeners"))
	return s
}

// open makes the SSO of a database, as the portal's start does.
func (s *site) open(db *store.DB) {
	clock := func() time.Time { return s.now }
	c := config.Config{Domain: domain, Origin: origin, Secure: true, Modules: []config.Module{
		{Name: "wiki", SSO: "header", Permissions: []config.Permission{{Name: "use"}}}, {Name: "calendar", SSO: "basic"}}}
	var err error
	s.SSO, err = New(Deps{Directory: s.directory, DB: db, Audit: audit.New(db, clock), Now: clock,
		Sessions: session.New(db, clock, func() bool { return true }), Config: func() config.Config { return c },
		Log: slog.New(slog.DiscardHandler)})
	s.must(err)
}

func (s *site) must(errs ...error) {
	s.t.Helper()
	if err := errors.Join(errs...); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) answer(w http.ResponseWriter, r *http.Request) {
	switch person := r.FormValue("person"); {
	case r.URL.Path != loginPage && r.URL.Path != againPage:
		s.ServeHTTP(w, r)
	case person == "":
		io.WriteString(w, "log in")
	default:
		if _, err := s.Sessions.Begin(w, r, person, session.Password); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		http.Redirect(w, r, r.FormValue("to"), http.StatusSeeOther)
	}
}

// browser is a browser with cookies of its own, for which all host names are the site.
type browser struct {
	*http.Client
	s *site
}

func (s *site) browser() *browser {
	jar, err := cookiejar.New(nil)
	s.must(err)
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, s.server.Listener.Addr().String())
	}
	transport := &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &browser{&http.Client{Jar: jar, Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, s}
}

// get asks for one address and returns the status, the address that it leads to, and the body.
func (b *browser) get(address string, headers ...string) (status int, to *url.URL, body string) {
	b.s.t.Helper()
	r, err := http.NewRequest("GET", address, nil)
	b.s.must(err)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := b.Do(r)
	b.s.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	b.s.must(err)
	to, err = resp.Location()
	if err != nil {
		to = nil
	}
	return resp.StatusCode, to, string(text)
}

// leads is where an address leads.
func (b *browser) leads(address string) string {
	b.s.t.Helper()
	_, to, _ := b.get(address)
	if to == nil {
		return ""
	}
	return to.String()
}

// follow goes where an address leads, until a page comes or an address of a host that is not ours. If the login page
// comes on the way, person logs in there.
func (b *browser) follow(address, person string) (at *url.URL, status int) {
	b.s.t.Helper()
	at, err := url.Parse(address)
	b.s.must(err)
	for range 12 {
		if at.Host != domain && !strings.HasSuffix(at.Host, "."+domain) {
			return at, 0
		}
		if (at.Path == loginPage || at.Path == againPage) && person != "" {
			q := at.Query()
			q.Set("person", person)
			at.RawQuery, person = q.Encode(), ""
		}
		status, to, _ := b.get(at.String())
		if to == nil {
			return at, status
		}
		at = to
	}
	b.s.t.Fatalf("%s leads nowhere", address)
	return nil, 0
}

// login logs person in at the portal.
func (b *browser) login(person string) {
	b.s.t.Helper()
	if status, _, _ := b.get(origin + loginPage + "?to=/portal/&person=" + person); status != http.StatusSeeOther {
		b.s.t.Fatalf("login: status %d", status)
	}
}

// cookies are those that the browser has for an address, as a header.
func (b *browser) cookies(address string) string {
	u, err := url.Parse(address)
	b.s.must(err)
	var all []string
	for _, c := range b.Jar.Cookies(u) {
		all = append(all, c.Name+"="+c.Value)
	}
	return strings.Join(all, "; ")
}

// whois asks as the gateway does for a browser that has asked host.
func (s *site) whois(module, host, cookies string) (v Visitor, status int) {
	s.t.Helper()
	status, _, body := s.browser().get("https://gateway/-/whois?module="+module, "X-Forwarded-Host", host, "Cookie", cookies)
	if status == http.StatusOK {
		s.must(json.Unmarshal([]byte(body), &v))
	}
	return v, status
}

// TestSSO starts slapd once for all that needs it.
func TestSSO(t *testing.T) {
	s := newSite(t)
	run := func(name string, f func(*site)) {
		t.Run(name, func(t *testing.T) {
			s.t = t
			f(s)
			s.t = t
		})
	}
	run("pass", (*site).testPass)
	run("pass attacks", (*site).testPassAttacks)
	run("whois", (*site).testWhois)
	run("passwords", (*site).testPasswords)
	run("flow", (*site).testFlow)
	run("authorize attacks", (*site).testAuthorizeAttacks)
	run("other browser", (*site).testOtherBrowser)
	run("code attacks", (*site).testCodeAttacks)
	run("refresh", (*site).testRefresh)
	run("tokens end", (*site).testTokensEnd)
	run("login again", (*site).testLoginAgain)
	run("logout", (*site).testLogout)
	run("keys", (*site).testKeys)
	run("clients", (*site).testClients)
}

const enterWiki = wiki + PassPath + "login?to=%2Fpage%3Fa%3D1"

func (s *site) testPass() {
	b := s.browser()
	at, _ := b.follow(enterWiki, "")
	if at.Host != "portal."+domain || at.Path != loginPage {
		s.t.Fatalf("a visitor comes to %s", at)
	}
	if at, _ = b.follow(at.String(), "anna"); at.String() != wiki+"/page?a=1" {
		s.t.Fatalf("after the login she comes to %s", at)
	}
	v, status := s.whois("wiki", "wiki."+domain, b.cookies(wiki))
	if status != 200 || v.Person != "anna" || v.Name != "Änne anna" || v.Mail != "anna@"+domain ||
		strings.Join(v.Groups, ",") != "gardeners" || v.Password != "" {
		s.t.Errorf("status %d, %+v", status, v)
	}
	if at, _ = b.follow("https://blog."+domain+PassPath+"login?to=/", ""); at.String() != "https://blog."+domain+"/" {
		s.t.Errorf("at one more host name, without another login, she comes to %s", at)
	}
	if to := b.leads(wiki + PassPath + "login?to=/page&module=wiki"); to != wiki+"/page" {
		s.t.Errorf("logged in already she comes to %q", to)
	}
	bert := s.browser()
	bert.follow(enterWiki, "bert")
	if to := bert.leads(wiki + PassPath + "login?to=/page&module=wiki"); to != origin+"/portal/" {
		s.t.Errorf("who may not use the module comes to %q", to)
	}
	if status, to, _ := b.get(wiki + PassPath + "logout?to=/bye"); status != 303 || to.String() != wiki+"/bye" {
		s.t.Errorf("logout: status %d, to %v", status, to)
	}
	for _, host := range []string{wiki, "https://blog." + domain, origin} {
		u, _ := url.Parse(host)
		if _, status := s.whois("wiki", u.Host, b.cookies(host)); status != http.StatusNoContent {
			s.t.Errorf("after the logout at %s: status %d", host, status)
		}
	}
}

// begin goes from the wiki to the portal and back, up to the address with the code.
func (b *browser) begin(person string) (enter *url.URL) {
	b.s.t.Helper()
	_, to, _ := b.get(enterWiki)
	b.login(person)
	status, enter, _ := b.get(to.String())
	if status != 303 || !strings.HasPrefix(enter.String(), wiki+PassPath+"enter?code=") {
		b.s.t.Fatalf("status %d, to %v", status, enter)
	}
	return enter
}

func (s *site) testPassAttacks() {
	thief, anna := s.browser(), s.browser()
	enter := anna.begin("anna")
	if to := thief.leads(enter.String()); to != origin+"/portal/" {
		s.t.Errorf("the code in another browser leads to %q", to)
	}
	if to := anna.leads(enter.String()); to != origin+"/portal/" {
		s.t.Errorf("a code that another browser has tried leads to %q", to)
	}
	enter = thief.begin("bert")
	if to := anna.leads(enter.String()); to != origin+"/portal/" { // or else she would write as him
		s.t.Errorf("the code of somebody else leads to %q", to)
	}
	enter = anna.begin("anna")
	enter.Host = "blog." + domain
	if to := anna.leads(enter.String()); to != origin+"/portal/" {
		s.t.Errorf("the code at another host name leads to %q", to)
	}
	enter = anna.begin("anna")
	s.now = s.now.Add(passTime)
	if to := anna.leads(enter.String()); to != origin+"/portal/" {
		s.t.Errorf("the code after its time leads to %q", to)
	}
	enter = anna.begin("anna")
	if status, to, _ := anna.get(enter.String()); status != 303 || to.String() != wiki+"/page?a=1" {
		s.t.Errorf("status %d, to %v", status, to)
	}
	if to := anna.leads(enter.String()); to != origin+"/portal/" {
		s.t.Errorf("the code once more leads to %q", to)
	}
	s.openRedirects(anna)
	for host, cookies := range map[string]string{"portal." + domain: anna.cookies(wiki), "blog." + domain: anna.cookies(wiki),
		"wiki." + domain: anna.cookies(origin)} {
		if _, status := s.whois("wiki", host, cookies); status != http.StatusNoContent {
			s.t.Errorf("a cookie of another host name at %s: status %d", host, status)
		}
	}
	for _, headers := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Mode", "no-cors"}} {
		if status, _, _ := anna.get(wiki+PassPath+"logout", headers...); status != 403 {
			s.t.Errorf("logout by %q: status %d", headers, status)
		}
	}
	if _, status := s.whois("wiki", "wiki."+domain, anna.cookies(wiki)); status != 200 {
		s.t.Errorf("after all that: status %d", status)
	}
}

func (s *site) openRedirects(b *browser) {
	s.t.Helper()
	for _, to := range evilPaths {
		for _, path := range []string{"login", "logout"} {
			fresh := s.browser()
			if path == "login" {
				fresh = b
			}
			_, at, _ := fresh.get(wiki + PassPath + path + "?to=" + url.QueryEscape(to))
			if at == nil || at.String() != wiki+"/" {
				s.t.Errorf("%s to %q leads to %v", path, to, at)
			}
		}
	}
	for _, host := range []string{"evil.example", "evil.example/." + domain, domain + ".evil.example", "evil" + domain,
		"a@b." + domain, "a.b." + domain, "wiki." + domain + ":444", "", "." + domain, "wiki." + domain + "#",
		"wiki." + domain + "\\x"} {
		q := url.Values{"host": {host}, "to": {"/"}, "state": {strings.Repeat("0", 64)}}
		if status, at, _ := b.get(origin + PassPath + "pass?" + q.Encode()); status != 400 || at != nil {
			s.t.Errorf("pass to %q: status %d, leads to %v", host, status, at)
		}
	}
}

func (s *site) testWhois() {
	ctx := s.t.Context()
	b := s.browser()
	b.login("bert")
	if _, status := s.whois("wiki", "portal."+domain, b.cookies(origin)); status != 403 {
		s.t.Errorf("who may not use the module: status %d", status)
	}
	if _, status := s.whois("nothing", "portal."+domain, b.cookies(origin)); status != 403 {
		s.t.Errorf("a module that is not there: status %d", status)
	}
	s.must(s.directory.AddMember(ctx, "gardeners", "bert"))
	if _, status := s.whois("wiki", "portal."+domain, b.cookies(origin)); status != 200 {
		s.t.Errorf("who may now: status %d", status)
	}
	s.must(s.directory.Deactivate(ctx, "bert"))
	if _, status := s.whois("wiki", "portal."+domain, b.cookies(origin)); status != 403 {
		s.t.Errorf("deactivated: status %d", status)
	}
	s.must(s.directory.Activate(ctx, "bert"), s.directory.RemoveMember(ctx, "gardeners", "bert"))
	if _, status := s.whois("calendar", "portal."+domain, b.cookies(origin)); status != http.StatusNoContent {
		s.t.Errorf("active again, with the session of before: status %d", status)
	}
}

// binds says whether the directory takes a password, as modules ask it.
func (s *site) binds(person, password string) bool {
	s.t.Helper()
	c, err := ldap.DialURL("ldap://" + s.ldap)
	s.must(err)
	defer c.Close()
	err = c.Bind("uid="+person+",ou=people,o=organisation", password)
	if err != nil && !ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials) {
		s.t.Fatal(err)
	}
	return err == nil
}

func (s *site) testPasswords() {
	b := s.browser()
	b.login("anna")
	first, status := s.whois("calendar", "portal."+domain, b.cookies(origin))
	if status != 200 || !s.binds("anna", first.Password) {
		s.t.Fatalf("status %d, %+v", status, first)
	}
	s.open(s.DB) // the portal starts again
	if again, _ := s.whois("calendar", "portal."+domain, b.cookies(origin)); again.Password != first.Password {
		s.t.Errorf("after a start %q", again.Password)
	}
	var other Visitor
	status, _, body := b.get(origin + PassPath + "credentials?module=wiki")
	if status == 200 {
		s.must(json.Unmarshal([]byte(body), &other))
	}
	if other.Person != "anna" || other.Password == first.Password || !s.binds("anna", other.Password) {
		s.t.Errorf("credentials: status %d, %+v", status, other)
	}
	for _, site := range []string{"cross-site", "same-site", "none"} {
		if status, _, _ := b.get(origin+PassPath+"credentials?module=wiki", "Sec-Fetch-Site", site); status != 403 {
			s.t.Errorf("credentials for a page that is %s: status %d", site, status)
		}
	}
	if status, _, _ := s.browser().get(origin + PassPath + "credentials?module=wiki"); status != 401 {
		s.t.Errorf("credentials for nobody: status %d", status)
	}
	s.must(s.Sweep(s.t.Context()))
	if !s.binds("anna", first.Password) {
		s.t.Error("a sweep has taken a password that is needed")
	}
	b.get(origin + PassPath + "logout")
	s.must(s.Sweep(s.t.Context()))
	if s.binds("anna", first.Password) || s.binds("anna", other.Password) {
		s.t.Error("after the logout the passwords are good still")
	}
}

var evilPaths = []string{"//evil.example", "/\\evil.example", "\\\\evil.example", "https:evil.example",
	"https://evil.example", "/%2f%2fevil.example", "/%2Fevil.example", "/%5cevil.example", "javascript:alert(1)", "/\tevil",
	"/\r\nLocation: x", "/%0d%0aX: y",
	"evil.example", "", "/\x00", "/%00", "///evil.example", "?to=/", "#x", "//user@evil.example", "/%zz"}

func TestLocalPath(t *testing.T) {
	for _, to := range evilPaths {
		if _, ok := LocalPath(to); ok {
			t.Errorf("%q is taken for a local path", to)
		}
	}
	for _, to := range []string{"/", "/wiki/Page?a=b&c=//d#e", "/%C3%A4", "/a//b", "/?to=https://evil.example"} {
		if got, ok := LocalPath(to); !ok || got != to {
			t.Errorf("%q is not taken for a local path", to)
		}
	}
}

func FuzzLocalPath(f *testing.F) {
	for _, to := range evilPaths {
		f.Add(to)
	}
	base, err := url.Parse(wiki + "/a/b")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, to string) {
		path, ok := LocalPath(to)
		if !ok {
			return
		}
		u, err := base.Parse(path)
		if err != nil || u.Host != base.Host || u.Scheme != base.Scheme || u.User != nil {
			t.Errorf("%q leads to %v, error %v", to, u, err)
		}
	})
}
