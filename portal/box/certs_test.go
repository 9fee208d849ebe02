package box

import (
	"strings"
	"testing"
	"time"

	"allotment/api"
	"allotment/gateway"
)

// TestCertificates tells an officer of each name why it has no certificate, what to do and when the box tries again.
func TestCertificates(t *testing.T) {
	o := open(t)
	const print = "AA:BB:CC"
	o.box.Net = api.Network{Domain: "club.example", Authority: print, Names: []api.Name{{Host: "club.example"},
		{Host: "www.club.example", Optional: true}}}
	tell := func(c ...api.Certificate) { o.box.Net.Certificates = c }
	show := func(path, language string, wants ...string) {
		t.Helper()
		status, page := o.get(root+path, language)
		for _, want := range wants {
			not, refused := strings.CutPrefix(want, "not ")
			if status != 200 || strings.Contains(page, not) == refused {
				t.Errorf("%s in %s: %d, not as wanted: %q in %s", path, language, status, want, page)
			}
		}
	}
	name, again := []string{"club.example"}, o.now.Add(3*time.Hour)
	for _, why := range []string{gateway.WhyElsewhere, gateway.WhyUnreached, gateway.WhyForbidden, gateway.WhyOften, gateway.WhyAway,
		gateway.WhyRefused} {
		tell(api.Certificate{Names: name, Failures: 2, Why: why, Error: "urn:ietf <it>", Again: again})
		for _, language := range []string{"en", "de"} {
			show("dns", language, o.say(language, "box.certs.why."+why), o.say(language, "box.certs.why."+why+".do"),
				`<pre lang="en" tabindex="0">urn:ietf &lt;it&gt;</pre>`, "16:00", "<details open>", print)
		}
		show("health", "en", "or soon will not have one: club.example")
		show("", "en", "or soon will not have one: club.example")
	}
	tell(api.Certificate{Names: name, Failures: 1, Why: "something new"})
	show("dns", "en", "The authority refuses a certificate for this name.")

	fine := api.Certificate{Names: name, Until: o.now.Add(60 * 24 * time.Hour)}
	failing := fine
	failing.Failures, failing.Why = 3, gateway.WhyAway
	late := failing
	late.Until = o.now.Add(soonOver - time.Hour)
	over := failing
	over.Until = o.now
	for what, c := range map[string]struct {
		of   api.Certificate
		page string
		lamp bool
	}{
		"good": {fine, "Good until 21 January 2027", false}, "renewal fails": {failing, "cannot be reached", false},
		"soon over": {late, "Good until 6 December 2026", true}, "over": {over, "browsers warn visitors", true},
		"at the beginning":        {api.Certificate{Names: name}, "getting it just now", false},
		"address behind a router": {api.Certificate{Names: []string{"2001:db8::1"}, Failures: 1, Why: gateway.WhyUnreached}, "ports 80", false},
	} {
		tell(c.of)
		show("dns", "en", c.page)
		lamp := "or soon will not have one"
		if !c.lamp {
			lamp = "not " + lamp
		}
		t.Log(what)
		show("health", "en", lamp)
	}
	tell(fine, api.Certificate{Names: []string{"www.club.example"}, Failures: 5, Why: gateway.WhyElsewhere})
	show("dns", "en", "not <h3 class=\"lamp \"><code>www.club.example", "not <details open>", print) // nobody needs it
}

// say is a message as a page shows it.
func (o *office) say(language, key string) string {
	o.t.Helper()
	for line := range strings.Lines(words(o.t, language)) {
		if text, ok := strings.CutPrefix(line, `"`+key+`" = "`); ok {
			return strings.TrimSuffix(strings.TrimSpace(text), `"`)
		}
	}
	o.t.Fatalf("no %q in %s", key, language)
	return ""
}

func words(t *testing.T, language string) string {
	t.Helper()
	b, err := files.ReadFile("messages/" + language + ".toml")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
