package proxy

import (
	"bytes"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/smallstep/pkcs7"

	"allotment/gateway"
)

// TestProfilesAreSigned has the portal offer profiles on its own name and on an address, and a module one that is none of ours.
func TestProfilesAreSigned(t *testing.T) {
	const profile = "<?xml version=\"1.0\"?><plist/>\n"
	offer := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", strings.TrimPrefix(r.URL.Path, "/portal/"))
		if r.URL.Query().Get("long") != "" {
			w.Write(bytes.Repeat([]byte("x"), mostProfile+1))
			return
		}
		io.WriteString(w, profile)
	}
	module := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", profileType)
		io.WriteString(w, profile)
	}))
	t.Cleanup(module.Close)
	b := open(t, gateway.Config{Names: []string{domain, "portal." + domain, "127.0.0.1"}, Domain: domain, PortalHost: "portal." + domain,
		Portal: portalAt(t, offer), Routes: []gateway.Route{{Path: "/", Target: module.URL, Ready: true}}}, DefaultLimits(), domain, "portal."+domain)
	client := b.browser(t)
	get := func(address string) (int, []byte) {
		t.Helper()
		r, err := client.Get(address)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		all, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, all
	}
	for _, host := range []string{"portal." + domain, "127.0.0.1"} {
		_, signed := get("https://" + host + "/portal/" + profileType)
		p, err := pkcs7.Parse(signed)
		if err != nil {
			t.Fatalf("%s: %v: %q", host, err, signed)
		}
		if err := p.VerifyWithChain(b.browsers); err != nil || string(p.Content) != profile {
			t.Errorf("%s: %v, %q", host, err, p.Content)
		}
		if err := p.GetOnlySigner().VerifyHostname(host); err != nil {
			t.Error(err)
		}
		if err := p.VerifyWithChain(x509.NewCertPool()); err == nil {
			t.Errorf("%s: whoever trusts nobody trusts it", host)
		}
		p.Content = append(p.Content, ' ')
		if err := p.VerifyWithChain(b.browsers); err == nil {
			t.Errorf("%s: another profile has the same signature", host)
		}
	}
	for _, address := range []string{"https://portal." + domain + "/portal/text/plain", "https://" + domain + "/x"} {
		if _, got := get(address); string(got) != profile {
			t.Errorf("%s: %q", address, got)
		}
	}
	if status, _ := get("https://portal." + domain + "/portal/" + profileType + "?long=yes"); status != http.StatusBadGateway {
		t.Errorf("a profile that is too long: %d", status)
	}
}
