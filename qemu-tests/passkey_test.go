package qemutests

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"allotment/modules/directory/directorytest"
	"allotment/portal/directory"
	"allotment/portal/portaltest"
	"allotment/qemu-tests/browser"
)

// portalName is the host name at which a portal of these tests is reached.
const portalName = "portal.club.example"

// named gives the portal a host name, as the gateway does: by HTTPS. It returns a browser that finds it.
func named(t *testing.T, p *portaltest.Portal) *browser.Browser {
	t.Helper()
	to, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	p.Config.Secure, p.Config.Origin, p.Config.Domain = true, "https://"+portalName, "club.example"
	gateway := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host
		r.SetXForwarded()
	}})
	t.Cleanup(gateway.Close)
	return browser.Start(t, browser.Options{Hosts: map[string]string{portalName: gateway.Listener.Addr().String()}})
}

// TestPasskeys has the first officer make a passkey in the wizard, and a newcomer one instead of a password. Each gets in by
// it alone; after the passkey was removed, or the person deactivated, it opens nothing.
func TestPasskeys(t *testing.T) {
	address, password := directorytest.Start(t)
	p := portaltest.StartNew(t, address, password)
	b := named(t, p)

	olga := b.Open(t)
	olga.GiveAuthenticator()
	claimWithPasskey(olga)
	olga.Press("Log out")
	byPasskey(olga, "Hello, Olga Oberst")

	nora := b.Open(t)
	nora.GiveAuthenticator()
	setUpWithPasskey(t, p, nora, "olga")
	nora.Press("Log out")
	const refused = "do not fit"
	if err := p.Directory.Deactivate(t.Context(), "nora"); err != nil {
		t.Fatal(err)
	}
	byPasskey(nora, refused)
	if err := p.Directory.Activate(t.Context(), "nora"); err != nil {
		t.Fatal(err)
	}
	byPasskey(nora, "Hello, Nora Neu")
	nora.Visit("https://" + portalName + "/portal/me/login")
	nora.Press("Remove Safari, iPad")
	nora.Await("The passkey is removed")
	nora.Press("Log out")
	byPasskey(nora, refused)
}

// byPasskey logs in, or tries to, by the passkey of the tab's device.
func byPasskey(tab *browser.Tab, shows string) {
	tab.Visit("https://" + portalName + "/portal/login")
	tab.Press("Log in with a passkey")
	tab.Await(shows)
}

// claimWithPasskey goes through the wizard until its officer has a passkey.
func claimWithPasskey(tab *browser.Tab) {
	tab.Visit("https://" + portalName + "/portal/")
	tab.Fill("Claim code", portaltest.Claim)
	tab.Press("Go on")
	tab.Fill("First name", "Olga")
	tab.Fill("Last name", "Oberst")
	tab.Fill("Your own mail address", "olga@mail.example")
	tab.Choose("Treasurer")
	tab.Fill("Name to log in with", "olga")
	tab.Fill("Password", demoPassword)
	tab.Fill("The same password again", demoPassword)
	tab.Press("Make my account")
	tab.Await("If you ever cannot get in")
	tab.Press("Make a passkey")
	tab.Await("The passkey “Safari, iPad” lets you in.")
	tab.Choose("I have the codes on paper, or a passkey.")
	tab.Press("Go on")
	tab.Await("A second officer")
}

// setUpWithPasskey has somebody whom an officer has entered follow the link of her welcome.
func setUpWithPasskey(t *testing.T, p *portaltest.Portal, tab *browser.Tab, officer string) {
	t.Helper()
	nora := directory.Person{Name: "nora", Given: "Nora", Family: "Neu", OutsideMail: "nora@mail.example"}
	if err := p.Directory.AddPerson(t.Context(), nora); err != nil {
		t.Fatal(err)
	}
	link, err := p.Onboarding().Welcome(t.Context(), officer, "nora")
	if err != nil {
		t.Fatal(err)
	}
	tab.Visit(link)
	tab.Press("Make a passkey")
	tab.Await("Welcome! You are logged in.")
	tab.Visit(link)
	tab.Await("This link is not good any more")
	tab.Visit("https://" + portalName + "/portal/")
}

// TestNoPasskeys opens the wizard by an address of numbers, for which browsers make no passkeys.
func TestNoPasskeys(t *testing.T) {
	address, password := directorytest.Start(t)
	p := portaltest.Start(t, address, password)
	page := p.LogIn(t, portaltest.Officer).Get("/portal/first/recovery")
	if page.Status != http.StatusOK || !page.Says("needs an address with a name") || page.Says("Make a passkey") {
		t.Errorf("%d %s", page.Status, page.Words())
	}
}
