package qemutests

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"allotment/api"
	"allotment/builder/profile"
	"allotment/gateway"
	"allotment/image"
	"allotment/qemu-tests/browser"
	"allotment/qemu-tests/vm"
)

const (
	clubDomain = "club.example"
	clubPortal = "portal." + clubDomain
	clubWWW    = "www." + clubDomain
)

// TestDomain gives a box a domain after it was used without one. It gets certificates for its names from an authority that looks
// for it, the portal moves to its own name, and people go on there: one login for all names, and a passkey. The twin is a name
// that the authority refuses: it goes on with the box's own authority.
func TestDomain(t *testing.T) {
	full(t)
	a := newAuthority(t, clubDomain)
	path := clubImageWith(t, image.AMD64, []string{"directory", "web"}, func(p *profile.Profile) {
		p.Gateway.ACME, p.Network.DNS = a.acme, []string{hostSeen}
	})
	v := bootImage(t, path, vm.Options{Forward: []int{80, 443}, Limit: vm.Patience(25 * time.Minute)})
	defer showLogs(t, v)
	d := &domainBox{VM: v, authority: a}
	if err := v.API().Claimed(t.Context()); err != nil {
		t.Fatal(err)
	}
	password := accounts(t, v, 1)["user01"]
	tab := d.browse(t)
	d.logInByAddress(tab, password)

	a.open(t, port(t, v, 80), port(t, v, 443), clubWWW)
	if err := v.API().SetSettings(t.Context(), "", map[string]any{"domain": clubDomain}); err != nil {
		t.Fatal(err)
	}
	d.awaitCertificate(t, clubDomain, a.roots)
	d.awaitCertificate(t, clubPortal, a.roots)
	t.Run("names", d.testNames)
	t.Run("refused", d.testRefused)
	t.Run("login", func(t *testing.T) { d.testLogin(t, tab.For(t), password) })
	t.Run("passkey", func(t *testing.T) { d.testPasskey(t, tab.For(t)) })

	made := a.made.Load()
	if err := v.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustBeReadyAgain(t, v)
	t.Run("names after a reset", d.testNames)
	tab.Visit("https://" + clubPortal + "/portal/")
	tab.Press("Log out") // who was logged in still is
	byPasskeyAt(tab, "https://"+clubPortal, "Hello, ")
	if n := a.made.Load(); n != made {
		t.Errorf("a reset costs %d orders of certificates", n-made)
	}
}

// domainBox is a machine with a domain.
type domainBox struct {
	*vm.VM
	authority *authority
}

func port(t *testing.T, v *vm.VM, inside int) int {
	t.Helper()
	_, text, err := net.SplitHostPort(v.Address(inside))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// browse starts a browser that finds the domain's names at the machine, and whose device makes passkeys.
func (d *domainBox) browse(t *testing.T) *browser.Tab {
	t.Helper()
	hosts := map[string]string{}
	for _, name := range []string{clubDomain, clubPortal, clubWWW} {
		hosts[name+":80"], hosts[name+":443"] = d.Address(80), d.Address(443)
	}
	tab := browser.Start(t, browser.Options{Hosts: hosts}).Open(t)
	tab.GiveAuthenticator()
	return tab
}

// logInByAddress logs in while there is no domain.
func (d *domainBox) logInByAddress(tab *browser.Tab, password string) {
	tab.Visit("https://" + d.Address(443) + "/portal/login")
	tab.Fill("Name or mail address", "user01")
	tab.Fill("Password", password)
	tab.Press("Log in")
	tab.Await("Log out")
}

// client makes one that finds the domain's names at the machine, trusts the roots alone and follows no redirects.
func (d *domainBox) client(t *testing.T, roots *x509.CertPool) *http.Client {
	t.Helper()
	transport := &http.Transport{
		ForceAttemptHTTP2: true, DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, inside, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			n, err := strconv.Atoi(inside)
			if err != nil {
				return nil, err
			}
			return (&net.Dialer{}).DialContext(ctx, network, d.Address(n))
		},
	}
	return &http.Client{Transport: transport, Timeout: vm.Patience(time.Minute),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// awaitCertificate waits until the name has a certificate that leads to the roots.
func (d *domainBox) awaitCertificate(t *testing.T, name string, roots *x509.CertPool) {
	t.Helper()
	client := d.client(t, roots)
	for end := time.Now().Add(vm.Patience(3 * time.Minute)); ; {
		r, err := client.Get("https://" + name + gateway.HealthPath)
		if err == nil {
			r.Body.Close()
			return
		}
		if time.Now().After(end) {
			for line, err := range d.API().Logs(t.Context(), api.LogQuery{Lines: 30}) {
				t.Log(line.Text, err)
			}
			t.Fatalf("no certificate for %s: %v", name, err)
		}
		time.Sleep(time.Second)
	}
}

// testNames looks at what each name answers, with certificates of the authority.
func (d *domainBox) testNames(t *testing.T) {
	client := d.client(t, d.authority.roots)
	for _, c := range []struct {
		url    string
		status int
		to     string
	}{
		{"http://" + clubDomain + "/a?b=c", http.StatusPermanentRedirect, "https://" + clubDomain + "/a?b=c"},
		{"http://" + clubPortal + "/", http.StatusPermanentRedirect, "https://" + clubPortal + "/"},
		{"http://" + clubWWW + "/a", http.StatusPermanentRedirect, "https://" + clubDomain + "/a"},
		{"https://" + clubPortal + "/", http.StatusFound, "/portal/"},
		{"https://" + clubPortal + "/wp-login.php", http.StatusNotFound, ""}, // no module shares the portal's origin
		{"https://" + clubDomain + "/portal/login", http.StatusTemporaryRedirect, "https://" + clubPortal + "/portal/login"},
		{"https://" + clubDomain + "/", http.StatusOK, ""},
	} {
		r := d.awaitAnswer(t, client, c.url, c.status)
		if to := r.Header.Get("Location"); r.StatusCode != c.status || to != c.to {
			t.Errorf("%s: %s to %q", c.url, r.Status, to)
		}
		if !strings.HasPrefix(c.url, "https:") {
			continue
		}
		if r.ProtoMajor != 2 || !strings.HasPrefix(r.Header.Get("Strict-Transport-Security"), "max-age=86400") ||
			!strings.HasPrefix(r.Header.Get("Alt-Svc"), `h3=":443"`) {
			t.Errorf("%s: %s, %v", c.url, r.Proto, r.Header)
		}
	}
}

// awaitAnswer waits for an answer with the status, as the portal moves within a minute, and returns the last one.
func (d *domainBox) awaitAnswer(t *testing.T, client *http.Client, url string, status int) *http.Response {
	t.Helper()
	for end := time.Now().Add(vm.Patience(2 * time.Minute)); ; time.Sleep(time.Second) {
		r, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode == status || time.Now().After(end) {
			return r
		}
	}
}

// testRefused looks at the name that the authority refuses.
func (d *domainBox) testRefused(t *testing.T) {
	const page = "https://" + clubWWW + "/a"
	if r, err := d.client(t, d.authority.roots).Get(page); err == nil {
		t.Errorf("the authority has certified a name that it refuses: %s", r.Status)
	}
	r, err := d.client(t, nil).Get("http://" + clubWWW + gateway.AuthorityPath)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	own := x509.NewCertPool()
	text := make([]byte, 1<<14)
	n, _ := r.Body.Read(text)
	if !own.AppendCertsFromPEM(text[:n]) {
		t.Fatalf("the box's own authority is %q", text[:n])
	}
	r, err = d.client(t, own).Get(page)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if to := r.Header.Get("Location"); to != "https://"+clubDomain+"/a" {
		t.Errorf("%s leads to %q", page, to)
	}
}

// testLogin comes by an old bookmark, logs in at the portal's own name, and is known to the web site without another login. No
// other name can set the portal's cookies.
func (d *domainBox) testLogin(t *testing.T, tab *browser.Tab, password string) {
	tab.Visit("https://" + clubDomain + "/portal/login")
	tab.Fill("Name or mail address", "user01")
	tab.Fill("Password", password)
	tab.Press("Log in")
	tab.Await("Log out")
	if at, err := url.Parse(tab.URL()); err != nil || at.Host != clubPortal {
		t.Errorf("the portal is at %s", tab.URL())
	}
	tab.Visit("https://" + clubDomain + "/wp-admin/profile.php")
	tab.Await("user01")
	if at, err := url.Parse(tab.URL()); err != nil || at.Host != clubDomain {
		t.Errorf("the web site is at %s", tab.URL())
	}
	r, err := d.client(t, d.authority.roots).Get("https://" + clubPortal + "/portal/login")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	for _, c := range r.Cookies() {
		if !strings.HasPrefix(c.Name, "__Host-") || c.Domain != "" {
			t.Errorf("other names of the domain can set the portal's cookie %s", c.Name)
		}
	}
}

// testPasskey makes a passkey, logs out and logs in with it alone.
func (d *domainBox) testPasskey(t *testing.T, tab *browser.Tab) {
	const portal = "https://" + clubPortal
	tab.Visit(portal + "/portal/me/passkeys")
	tab.Press("Make a passkey")
	tab.Await("is ready")
	tab.Press("Log out")
	byPasskeyAt(tab, portal, "Hello, ")
}

// byPasskeyAt logs in at the portal by the passkey of the tab's device.
func byPasskeyAt(tab *browser.Tab, portal, shows string) {
	tab.Visit(portal + "/portal/login")
	tab.Press("Log in with a passkey")
	tab.Await(shows)
}
