package portal_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"allotment/api"
	"allotment/portal/directory"
	"allotment/portal/portaltest"
	"allotment/portal/web"
)

// These tests walk through the route table, so that a new route is attacked as the others are.

// examples are objects of the portal of package portaltest, by the names that parts of paths have.
var examples = map[string]string{"person": portaltest.Member, "group": "bees", "office": "treasurer", "collective": "youth",
	"module": "page", "name": "style.css", "number": "1"}

var pathPart = regexp.MustCompile(`\{[a-z$]+\}`)

// at is a route's path with objects for its parts, or with one value for all of them.
func at(route web.Route, value string) string {
	return pathPart.ReplaceAllStringFunc(route.Path, func(part string) string {
		name := strings.Trim(part, "{}")
		switch {
		case name == "$":
			return ""
		case value != "":
			return value
		case examples[name] != "":
			return examples[name]
		}
		return "unknown"
	})
}

func send(b *portaltest.Browser, route web.Route, path string, fields url.Values) *portaltest.Page {
	if route.Method == http.MethodGet {
		return b.Get(path)
	}
	return b.Post(path, fields)
}

func isLogin(page *portaltest.Page) bool {
	return page.Status == http.StatusSeeOther && strings.HasPrefix(page.Header.Get("Location"), "/portal/login?to=")
}

// TestAccess asks for every route with less than it needs.
func TestAccess(t *testing.T) {
	p := start(t)
	stranger, member := p.Stranger(t), p.LogIn(t, portaltest.Member)
	gone := p.LogIn(t, portaltest.Other)
	if err := p.Directory.Deactivate(context.Background(), portaltest.Other); err != nil {
		t.Fatal(err)
	}
	tokens := map[*portaltest.Browser]url.Values{}
	for _, b := range []*portaltest.Browser{stranger, member, gone} {
		tokens[b] = url.Values{"form_token": {b.Token()}}
	}
	for _, route := range p.Site().Routes() {
		path := at(route, "")
		if route.Access >= api.Member {
			for _, b := range []*portaltest.Browser{stranger, gone} {
				if page := send(b, route, path, tokens[b]); !isLogin(page) {
					t.Errorf("%s: %d for somebody who is not logged in", route.Pattern(), page.Status)
				}
			}
		}
		if route.Access >= api.Officer {
			if page := send(member, route, path, tokens[member]); page.Status != http.StatusForbidden {
				t.Errorf("%s: %d for a member", route.Pattern(), page.Status)
			}
		}
	}
}

// TestForgery sends every form from somebody else's page.
func TestForgery(t *testing.T) {
	p := start(t)
	officer := p.LogIn(t, portaltest.Officer)
	foreign := p.LogIn(t, portaltest.Member).Token()
	own := officer.Token()
	for _, route := range p.Site().Routes() {
		if route.Method != http.MethodPost {
			continue
		}
		for what, fields := range map[string]url.Values{"without a token": {}, "with another's token": {"form_token": {foreign}},
			"with no visitor": {"form_token": {""}}} {
			if page := officer.Post(at(route, ""), fields); page.Status != http.StatusForbidden || !page.Says("Nothing was changed") {
				t.Errorf("%s %s: %d", route.Pattern(), what, page.Status)
			}
		}
		for header, value := range map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"} {
			r, _ := http.NewRequest("POST", p.URL+at(route, ""), strings.NewReader(url.Values{"form_token": {own}}.Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set(header, value)
			if page := officer.Do(r); page.Status != http.StatusForbidden {
				t.Errorf("%s with %s %s: %d", route.Pattern(), header, value, page.Status)
			}
		}
	}
}

// TestFresh asks for what is dangerous a quarter of an hour after the login, and for officers' pages a day after.
func TestFresh(t *testing.T) {
	p := start(t)
	b := p.LogIn(t, portaltest.Officer)
	p.Advance(15 * time.Minute)
	token := url.Values{"form_token": {b.Token()}}
	check := func(route web.Route) {
		page := send(b, route, at(route, ""), token)
		if !strings.HasPrefix(page.Header.Get("Location"), "/portal/login/again?to=") {
			t.Errorf("%s: %d %s", route.Pattern(), page.Status, page.Header.Get("Location"))
		}
	}
	some := 0
	for _, route := range p.Site().Routes() {
		if route.Fresh {
			some++
			check(route)
		}
	}
	if some < 15 {
		t.Errorf("only %d routes ask for a fresh login", some)
	}
	p.Advance(24 * time.Hour)
	for _, route := range p.Site().Routes() {
		if route.Access == api.Officer {
			check(route)
		}
	}
}

// TestBodies sends to every form more than it takes, and what is no form.
func TestBodies(t *testing.T) {
	p := start(t)
	b := p.LogIn(t, portaltest.Officer)
	large := []byte("form_token=" + b.Token() + "&x=" + strings.Repeat("a", 5<<20))
	for _, route := range p.Site().Routes() {
		if route.Method != http.MethodPost {
			continue
		}
		for _, c := range []struct {
			kind string
			body []byte
			want int
		}{
			{"application/x-www-form-urlencoded", large, http.StatusRequestEntityTooLarge},
			{"multipart/form-data; boundary=b", append([]byte("--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n"), large...), http.StatusRequestEntityTooLarge},
			{"multipart/form-data", []byte("x"), http.StatusBadRequest},
			{"application/x-www-form-urlencoded", []byte("a=%zz"), http.StatusBadRequest},
			{"text/plain", []byte("x"), http.StatusUnsupportedMediaType},
			{"", []byte("x"), http.StatusUnsupportedMediaType},
		} {
			r, _ := http.NewRequest("POST", p.URL+at(route, ""), bytes.NewReader(c.body))
			r.Header.Set("Content-Type", c.kind)
			if page := b.Do(r); page.Status != c.want {
				t.Errorf("%s with %d bytes of %q: %d, not %d", route.Pattern(), len(c.body), c.kind, page.Status, c.want)
			}
		}
	}
}

// TestPaths puts into every part of a path what is no name.
func TestPaths(t *testing.T) {
	p := start(t)
	b := p.LogIn(t, portaltest.Officer)
	token := url.Values{"form_token": {b.Token()}}
	for _, route := range p.Site().Routes() {
		if !strings.Contains(strings.ReplaceAll(route.Path, "{$}", ""), "{") {
			continue
		}
		for _, value := range []string{"..%2f..%2f..%2fetc%2fpasswd", "%00", "%ff%fe", strings.Repeat("a", 5000), "anna,ou=people", "*)(uid=*",
			"%3Cscript%3Ealert(1)%3C%2Fscript%3E", "probe-web", "%0d%0aSet-Cookie:x=y", "-1", "99999999999999999999"} {
			page := send(b, route, at(route, value), token)
			if page.Status >= 500 || page.Status == 200 && route.Method == http.MethodGet && !strings.HasPrefix(route.Path, "/portal/box/") ||
				strings.Contains(page.Text, "root:") || page.Header.Get("Set-Cookie") == "x=y" {
				t.Errorf("%s with %q: %d", route.Pattern(), value[:min(len(value), 30)], page.Status)
			}
		}
	}
}

const payload = `"'><script>alert(1)</script>{{.}}`

// TestScripts writes a script into everything that can have a text, and looks for it on every page.
func TestScripts(t *testing.T) {
	p := start(t)
	ctx := context.Background()
	p.Config.Modules[0].Title = payload
	for _, err := range []error{
		p.Directory.ChangePerson(ctx, portaltest.Officer, "", func(v *directory.Person) { v.Given, v.Display = payload, payload }),
		p.Directory.ChangePerson(ctx, portaltest.Member, "", func(v *directory.Person) { v.Family, v.Display = payload, payload }),
		p.Directory.ChangeGroup(ctx, "bees", "", func(g *directory.Group) { g.Title, g.About, g.Owners = payload, payload, []string{portaltest.Officer} }),
		p.Directory.AddOffice(ctx, directory.Office{Name: "archivist", Title: payload, Occupant: portaltest.Officer}),
		p.Directory.AddCollective(ctx, directory.Collective{Name: "youth", Title: payload}),
		p.Onboarding().JoinAsk(ctx, portaltest.Other, "bees", payload),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	b := p.LogIn(t, portaltest.Officer)
	b.Send("/portal/me/apps", "label", payload)
	p.Deps().Audit.Record(auditEntry(payload))
	seen := 0
	check := func(what string, page *portaltest.Page) {
		t.Helper()
		if page.Root == nil {
			return
		}
		if strings.Contains(page.Text, "<script>alert") || strings.Contains(page.Text, "script>alert(1)<") {
			t.Errorf("%s: the script is on the page", what)
		}
		seen += strings.Count(page.Words(), "<script>alert(1)</script>")
		for n := range page.All("script") {
			if portaltest.Attr(n, "src") == "" {
				t.Errorf("%s has a script of its own", what)
			}
		}
	}
	for _, route := range p.Site().Routes() {
		if route.Method != http.MethodGet || route.Wire {
			continue
		}
		for _, query := range []string{"q", "to", "token", "invitation", "before", "search", "service", "unknown"} {
			path := at(route, "") + "?" + url.Values{query: {payload}}.Encode()
			check(path, b.Get(path))
		}
		page := b.Get(at(route, ""))
		check(route.Pattern(), page)
		for path, fields := range formsOf(page, payload) {
			if !strings.HasPrefix(path, "/portal/logout") {
				check("form "+path, b.Follow(b.Post(path, fields)))
			}
		}
	}
	if seen < 20 {
		t.Errorf("the text is only %d times on the pages", seen)
	}
}

// formsOf are the forms of a page with a text in all fields that take one.
func formsOf(page *portaltest.Page, text string) map[string]url.Values {
	forms := map[string]url.Values{}
	for f := range page.All("form") {
		if portaltest.Attr(f, "method") != "post" || portaltest.Attr(f, "enctype") != "" {
			continue
		}
		path, fields := portaltest.Attr(f, "action"), url.Values{}
		if path == "" {
			path = page.Path
		}
		for n := range f.Descendants() {
			name := portaltest.Attr(n, "name")
			switch {
			case name == "":
			case portaltest.Attr(n, "type") == "hidden":
				fields.Add(name, portaltest.Attr(n, "value"))
			default:
				fields.Set(name, text)
			}
		}
		forms[path] = fields
	}
	return forms
}

// TestOthers asks as one member for what is another's.
func TestOthers(t *testing.T) {
	p := start(t)
	ctx := context.Background()
	otto := p.LogIn(t, portaltest.Other)
	id, _, err := p.Directory.AddAppPassword(ctx, portaltest.Other, "calendar", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Onboarding().JoinAsk(ctx, portaltest.Other, "bees", "please"); err != nil {
		t.Fatal(err)
	}
	waiting, err := p.Onboarding().AskedBy(portaltest.Other)
	if err != nil || len(waiting) != 1 {
		t.Fatal(waiting, err)
	}
	b := p.LogIn(t, portaltest.Member)
	token := url.Values{"form_token": {b.Token()}, "answer": {"yes"}}
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{"POST", "/portal/me/sessions/" + otto.Session.ID + "/end", http.StatusNotFound},
		{"POST", "/portal/me/apps/" + id + "/remove", http.StatusNotFound},
		{"GET", "/portal/requests/" + waiting[0].ID, http.StatusForbidden},
		{"POST", "/portal/requests/" + waiting[0].ID, http.StatusForbidden},
		{"POST", "/portal/groups/choir/leave", http.StatusNotFound},
	} {
		if page := send(b, web.Route{Method: c.method}, c.path, token); page.Status != c.want {
			t.Errorf("%s %s: %d %s", c.method, c.path, page.Status, page.Words())
		}
	}
	if page := otto.Get("/portal/"); page.Status != http.StatusOK {
		t.Errorf("otto is logged out: %d", page.Status)
	}
	if all, err := p.Directory.AppPasswords(ctx, portaltest.Other); err != nil || len(all) != 1 {
		t.Errorf("otto has app passwords %v, %v", all, err)
	}
	berta := p.LogIn(t, portaltest.Owner) // the twin: who may
	if page := berta.Send("/portal/requests/"+waiting[0].ID, "answer", "yes"); !page.Says("is let in") {
		t.Errorf("the owner of the group: %d %s", page.Status, page.Words())
	}
}

// TestWhereTo asks to be led elsewhere after the login.
func TestWhereTo(t *testing.T) {
	for _, path := range []string{"//evil.example", "/\\evil.example", "https://evil.example", "/portal//../..//evil", "javascript:alert(1)",
		"/portal/\r\nX: y", "/portalevil", "", "portal/", "\t/portal/", "/portal/é"} {
		good := path == "/portal//../..//evil" // stays on this host
		if got := web.LocalPath(path); got != good {
			t.Errorf("%q: %v", path, got)
		}
	}
	for _, path := range []string{"/portal/", "/portal/me?x=y", "/.well-known/allotment/sso/login?to=%2F"} {
		if !web.LocalPath(path) {
			t.Errorf("%q is refused", path)
		}
	}
}

func TestHeaders(t *testing.T) {
	p := start(t)
	page := p.Stranger(t).Get("/portal/login")
	for name, want := range map[string]string{"Content-Security-Policy": "default-src 'none'; script-src 'self'", "X-Content-Type-Options": "nosniff",
		"Cache-Control": "no-store", "Referrer-Policy": "same-origin", "X-Frame-Options": "DENY"} {
		if got := page.Header.Get(name); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	for _, c := range page.Header["Set-Cookie"] {
		if !strings.Contains(c, "HttpOnly") || !strings.Contains(c, "SameSite=Lax") {
			t.Errorf("cookie %q", c)
		}
	}
	p.Config.Secure = true
	page = p.Stranger(t).Get("/portal/login")
	if got := fmt.Sprint(page.Header["Set-Cookie"]); !strings.Contains(got, "__Host-portal-visitor") || !strings.Contains(got, "Secure") {
		t.Errorf("cookies by HTTPS: %s", got)
	}
	p.Config.Origin = "https://portal.club.example"
	for host, want := range map[string]string{"club.example": "https://portal.club.example/portal/login?to=x", "portal.club.example": "",
		"192.0.2.7": "", "[2001:db8::7]:443": "", "garden.local": ""} {
		r, err := http.NewRequest(http.MethodGet, p.URL+"/portal/login?to=x", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		answer, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if got := answer.Header.Get("Location"); got != want {
			t.Errorf("at %s: %s to %q, want %q", host, answer.Status, got, want)
		}
	}
}
