package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"allotment/gateway"
)

// fetched asks and reads the whole answer.
func fetched(t *testing.T, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(b)
}

// outcome is an answer in short: where it leads to, or its status and first words.
func outcome(r *http.Response, body string) string {
	if to := r.Header.Get("Location"); to != "" {
		return fmt.Sprint(r.StatusCode, " to ", to)
	}
	if _, after, ok := strings.Cut(body, "<h1>"); ok {
		body, _, _ = strings.Cut(after, "</h1>")
	}
	return fmt.Sprint(r.StatusCode, " ", body)
}

func club(t *testing.T) gateway.Config {
	return gateway.Config{
		Names:      []string{"club.org", "www.club.org", "portal.club.org", "calendar.club.org", "new.club.org", "127.0.0.1"},
		Portal:     portalAt(t, say("portal")),
		PortalHost: "portal.club.org",
		Routes: []gateway.Route{
			{Path: "/", Target: module(t, say("web")), Ready: true},
			{Path: "/calendar", Target: module(t, say("calendar")), Ready: true},
			{Path: "/", Hosts: []string{"Calendar.club.org"}, Target: module(t, say("calendar")), Ready: true},
		},
	}
}

func TestHosts(t *testing.T) {
	b := open(t, club(t), DefaultLimits(), "club.org", "www.club.org", "portal.club.org")
	browser := b.browser(t)
	for _, c := range []struct{ url, want string }{
		// HTTP leads to HTTPS where browsers will trust it, and works elsewhere.
		{"http://club.org/a?b=c", "308 to https://club.org/a?b=c"},
		{"http://CLUB.org./a", "308 to https://club.org/a"},
		{"http://club.org//evil.org/%61", "308 to https://club.org//evil.org/%61"},
		{"http://new.club.org/a", "200 web new.club.org/a"},
		{"http://127.0.0.1/a", "200 web 127.0.0.1/a"},
		{"https://club.org/a", "200 web club.org/a"},
		{"https://new.club.org/a", "200 web new.club.org/a"}, // by the box's own authority
		{"https://127.0.0.1/a", "200 web 127.0.0.1/a"},

		// Hosts of their own for a module and for the portal.
		{"https://club.org/calendar/x", "200 calendar club.org/calendar/x"},
		{"https://calendar.club.org/x", "200 calendar calendar.club.org/x"},
		{"https://portal.club.org/", "302 to /portal/"},
		{"https://portal.club.org/portal/x", "200 portal portal.club.org/portal/x"},
		{"https://portal.club.org/.well-known/change-password", "200 portal portal.club.org/.well-known/change-password"},
		{"https://portal.club.org/calendar", "404 Nothing is here"},
		{"https://portal.club.org/-/whois", "404 Nothing is here"},
		{"https://portal.club.org/portal/../-/whois", "400 This address is not understood"},
		{"https://club.org/-/whois", "200 web club.org/-/whois"},
		{"https://club.org/portal/x?y", "307 to https://portal.club.org/portal/x?y"},
		{"http://new.club.org/portal/", "307 to https://portal.club.org/portal/"},
		{"https://club.org/portals", "200 web club.org/portals"},
		{"http://127.0.0.1/portal/x", "307 to https://portal.club.org/portal/x"}, // a bookmark of the time before
		{"https://127.0.0.1/portal/x", "200 portal 127.0.0.1/portal/x"},          // where officers come while the name does not work
		{"https://club.org/.well-known/allotment/sso/login?to=/", "200 portal club.org/.well-known/allotment/sso/login"},
		{"https://club.org/.well-known/allotment/ssoX", "200 web club.org/.well-known/allotment/ssoX"},

		{"http://evil.org/", "421 This name leads nowhere here"},
		{"http://evil.org" + gateway.HealthPath, "200 "},
	} {
		r, body := fetched(t, browser, c.url)
		if got := outcome(r, body); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s, want %s", c.url, got, c.want)
		}
	}
}

// TestStrictTransport promises HTTPS where it will stay, and for long only once a certificate was renewed.
func TestStrictTransport(t *testing.T) {
	c := club(t)
	c.Routes[0].Target = module(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Strict-Transport-Security", "max-age=63072000; preload")
	})
	b := open(t, c, DefaultLimits(), "club.org", "www.club.org")
	browser := b.browser(t)
	for url, want := range map[string]string{
		"https://club.org/": "max-age=86400", "https://www.club.org/": "max-age=31536000",
		"https://new.club.org/": "", "http://new.club.org/": "", "https://127.0.0.1/": "", "http://club.org/": "",
	} {
		r, _ := fetched(t, browser, url)
		if got := strings.Join(r.Header.Values("Strict-Transport-Security"), "|"); got != want {
			t.Errorf("%s: %q, want %q", url, got, want)
		}
		if alt := r.Header.Get("Alt-Svc"); (alt != "") != (want != "") {
			t.Errorf("%s: HTTP/3 by %q", url, alt)
		}
	}
}

// TestBeforeThereIsADomain takes all names for the box's own, and has the portal at each.
func TestBeforeThereIsADomain(t *testing.T) {
	c := club(t)
	c.PortalHost, c.Names = "", []string{"box.internal", "127.0.0.1"}
	b := open(t, c, DefaultLimits())
	for url, want := range map[string]string{
		"http://anything.lan/a": "200 web anything.lan/a", "http://anything.lan/portal/a": "200 portal anything.lan/portal/a",
		"https://box.internal/portal/": "200 portal box.internal/portal/", "https://127.0.0.1/": "200 web 127.0.0.1/",
	} {
		r, body := fetched(t, b.browser(t), url)
		if got := outcome(r, body); got != want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
	}
	if err := b.gateway.SetConfig(gateway.Config{Portal: "tcp:1.2.3.4:80"}); err == nil {
		t.Error("a portal elsewhere is accepted")
	}
}

// TestAuthorityCanBeHad is how a visitor comes to trust a box without a domain.
func TestAuthorityCanBeHad(t *testing.T) {
	b := open(t, gateway.Config{Names: []string{"box.local"}}, DefaultLimits())
	r, body := fetched(t, b.browser(t), "http://box.local"+gateway.AuthorityPath)
	if r.Header.Get("Content-Type") != "application/x-x509-ca-cert" || body != string(b.gateway.keeper.Authority()) {
		t.Errorf("%v %q", r.Header, body)
	}
}

func FuzzHostOf(f *testing.F) {
	f.Add("club.org:443")
	f.Add("[::1]:80")
	f.Add("CLUB.org.")
	f.Fuzz(func(t *testing.T, host string) {
		got := hostOf(&http.Request{Host: host})
		if again := hostOf(&http.Request{Host: hostText(got)}); again != got && !strings.ContainsAny(host, ":[]") {
			t.Errorf("%q is %q, and that %q", host, got, again)
		}
	})
}

// TestWWW leads from the name that people write out of habit to the domain, by HTTPS as soon as the domain has a certificate.
func TestWWW(t *testing.T) {
	for _, c := range []struct {
		name, domain string
		certified    []string
		url, want    string
	}{
		{"all have certificates", "club.org", []string{"club.org", "www.club.org"}, "https://www.club.org/a?b=c", "308 to https://club.org/a?b=c"},
		{"HTTP comes to HTTPS first", "club.org", []string{"club.org", "www.club.org"}, "http://www.club.org/a", "308 to https://www.club.org/a"},
		{"www has none yet", "club.org", []string{"club.org"}, "http://www.club.org/a", "308 to https://club.org/a"},
		{"nobody has one yet", "club.org", nil, "http://www.club.org/portal/x", "308 to http://club.org/portal/x"},
		{"health", "club.org", nil, "http://www.club.org" + gateway.AuthorityPath, "200 "},
		{"the twin: another domain", "club.net", nil, "http://www.club.org/a", "200 web www.club.org/a"},
		{"no domain", "", nil, "http://www.club.org/a", "200 web www.club.org/a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := club(t)
			config.Domain = c.domain
			b := open(t, config, DefaultLimits(), c.certified...)
			if got := outcome(fetched(t, b.browser(t), c.url)); !strings.HasPrefix(got, c.want) {
				t.Errorf("%s: %s, want %s", c.url, got, c.want)
			}
		})
	}
}
