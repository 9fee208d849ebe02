package sso_test

import (
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"allotment/modules/directory/directorytest"
	"allotment/portal/portaltest"
	"allotment/portal/sso"
)

// TestPortal has an outside client ask the whole portal, whose own pages log the visitor in, until an officer ends her
// access in hers.
func TestPortal(t *testing.T) {
	address, password := directorytest.Start(t)
	p := portaltest.Start(t, address, password)
	config, provider := register(t, p)
	ctx, verifier := t.Context(), oauth2.GenerateVerifier()
	b := p.Stranger(t)
	page := b.Get(strings.TrimPrefix(config.AuthCodeURL("st4te", oauth2.S256ChallengeOption(verifier)), p.URL))
	for page.Header.Get("Location") != "" {
		page = b.Get(strings.TrimPrefix(page.Header.Get("Location"), p.URL))
	}
	if page.Status != http.StatusOK || !strings.HasPrefix(page.Path, "/portal/login?to=") {
		t.Fatalf("status %d at %s", page.Status, page.Path)
	}
	form := url.Values{"name": {portaltest.Member}, "password": {portaltest.Password}}
	at, err := url.Parse(page.Path)
	if err != nil {
		t.Fatal(err)
	}
	form.Set("to", at.Query().Get("to"))
	if page := b.Post("/portal/login", form); page.Status != http.StatusForbidden {
		t.Errorf("the login form of another site: status %d", page.Status)
	}
	form.Set("form_token", b.Token())
	if page = b.Post("/portal/login", form); page.Status != http.StatusOK ||
		!strings.Contains(page.Header.Get("Refresh"), "/portal/oidc/") {
		t.Fatalf("status %d, header %v", page.Status, page.Header)
	}
	page = b.Get(form.Get("to"))
	to, err := url.Parse(page.Header.Get("Location"))
	if err != nil || to.Host != "client.example" || to.Query().Get("state") != "st4te" ||
		to.Query().Get("iss") != p.URL+"/portal/oidc" {
		t.Fatalf("the visitor comes to %v, error %v", to, err)
	}
	token, err := config.Exchange(ctx, to.Query().Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	info, err := provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil || info.Subject != portaltest.Member {
		t.Fatalf("%+v, error %v", info, err)
	}
	if page := b.Get(sso.WhoisPath + "?module=web"); page.Status != http.StatusOK ||
		!strings.Contains(page.Text, `"person":"anna"`) {
		t.Errorf("whois: status %d, %s", page.Status, page.Text)
	}
	officer := p.LogIn(t, portaltest.Officer)
	if page := officer.Send("/portal/people/p/" + portaltest.Member + "/deactivate"); page.Status != http.StatusOK {
		t.Fatalf("deactivate: status %d", page.Status)
	}
	if info, err := provider.UserInfo(ctx, oauth2.StaticTokenSource(token)); err == nil {
		t.Errorf("deactivated, the client still gets %+v", info)
	}
	if page := b.Get(sso.WhoisPath + "?module=web"); page.Status == http.StatusOK {
		t.Errorf("deactivated, whois says %s", page.Text)
	}
}

// register makes a client of the portal, by whose own words it knows where to ask.
func register(t *testing.T, p *portaltest.Portal) (oauth2.Config, *gooidc.Provider) {
	t.Helper()
	d := p.Deps()
	s, err := sso.New(sso.Deps{Directory: d.Directory, DB: d.DB, Audit: d.Audit, Sessions: d.Sessions, Config: d.Config,
		Now: d.Clock, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	const callback = "https://client.example/callback"
	secret, err := s.RegisterClient(portaltest.Officer, sso.Client{ID: "shop", Redirects: []string{callback}})
	if err != nil {
		t.Fatal(err)
	}
	provider, err := gooidc.NewProvider(t.Context(), p.URL+"/portal/oidc")
	if err != nil {
		t.Fatal(err)
	}
	return oauth2.Config{ClientID: "shop", ClientSecret: secret, RedirectURL: callback, Endpoint: provider.Endpoint(),
		Scopes: []string{gooidc.ScopeOpenID}}, provider
}
