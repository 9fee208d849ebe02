package qemutests

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"testing"
	"time"

	"allotment/modules/directory/directorytest"
	"allotment/portal/directory"
	"allotment/portal/mail"
	"allotment/portal/portaltest"
	"allotment/portal/store"
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
	claimWithPasskey(t, p, olga)
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
// She takes her time, so that she is asked for her password once more.
func claimWithPasskey(t *testing.T, p *portaltest.Portal, tab *browser.Tab) {
	t.Helper()
	tab.Visit("https://" + portalName + "/portal/")
	tab.Fill("Claim code", portaltest.Claim)
	tab.Press("Go on")
	introduceOlga(tab)
	tab.Press("Make my account")
	tab.Await("If you ever cannot get in")
	p.Advance(15 * time.Minute)
	tab.Visit("https://" + portalName + "/portal/first/")
	tab.Press("Also log in by face or finger")
	tab.Fill("Password", demoPassword)
	inspect(t, tab)
	tab.Press("Go on")
	tab.Await("If you ever cannot get in")
	inspect(t, tab)
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
	tab.Await("Please choose a password, or have a passkey")
	inspect(t, tab)
	tab.Press("Make a passkey")
	tab.Await("Welcome! You are logged in.")
	tab.Visit(link)
	tab.Await("This link is not good any more")
	tab.Visit("https://" + portalName + "/portal/")
}

// inspect finds what is wrong with a page for those who see or hear badly.
func inspect(t *testing.T, tab *browser.Tab) {
	t.Helper()
	tab.Zoom(2)
	for _, wide := range tab.Overflow() {
		t.Errorf("%s: too wide: %s", tab.URL(), wide)
	}
	tab.Zoom(1)
	for _, f := range tab.Faults() {
		t.Errorf("%s: %s", tab.URL(), f)
	}
}

// TestForgottenPassword leads a member who has forgotten hers to a new one, by what is in her mail.
func TestForgottenPassword(t *testing.T) {
	address, password := directorytest.Start(t)
	p := portaltest.Start(t, address, password)
	b := named(t, p)
	relay := mail.Relay{Host: "relay.example", Port: 465, TLS: mail.TLS, From: "club@club.example"}
	if err := p.Deps().DB.Update(func(tx *store.Tx) error { return mail.SetRelay(tx, relay) }); err != nil {
		t.Fatal(err)
	}
	tab := b.Open(t)
	tab.Visit("https://" + portalName + "/portal/login")
	tab.Fill("Name or mail address", portaltest.Member)
	tab.Fill("Password", portaltest.Password)
	tab.Press("Log in")
	tab.Press("Please confirm your own mail address")
	inspect(t, tab)
	tab.Press("Send me a link to confirm it")
	tab.Await("is on its way to anna@mail.example")
	tab.Visit(newestLink(t, p, "anna@mail.example"))
	inspect(t, tab)
	tab.Press("Yes, it is mine")
	tab.Await("The address is confirmed.")
	inspect(t, tab)
	tab.Press("Log out")

	tab.Press("Forgotten?")
	inspect(t, tab)
	tab.Fill("Name or mail address", "anna@mail.example")
	tab.Press("Send me a link")
	tab.Await("If there is such an account")
	inspect(t, tab)
	p.Deps().Login.Wait()
	tab.Visit(newestLink(t, p, "anna@mail.example"))
	tab.Await("You are then logged out everywhere")
	inspect(t, tab)
	tab.Fill("New password", demoPassword)
	tab.Fill("The same once more", demoPassword)
	tab.Press("Save")
	tab.Await("Please log in with it.")
	tab.Fill("Name or mail address", portaltest.Member)
	tab.Fill("Password", demoPassword)
	tab.Press("Log in")
	tab.Await("Hello, Anna Apfel")
}

// newestLink is the link in the newest mail to an address.
func newestLink(t *testing.T, p *portaltest.Portal, to string) string {
	t.Helper()
	all, err := p.Deps().Mail.Pending()
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range slices.Backward(all) {
		if link := anyLink.FindString(item.Message.Text); item.Message.To == to && link != "" {
			return link
		}
	}
	t.Fatalf("no mail to %s has a link", to)
	return ""
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
