package sso

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"allotment/portal/store"
)

const callback = "https://client.elsewhere.example/callback?from=ashwell"

// outside is a client by a library that is not ours.
type outside struct {
	s        *site
	ctx      context.Context
	provider *gooidc.Provider
	config   oauth2.Config
	verifier string
}

func (s *site) outside(c Client) *outside {
	s.t.Helper()
	c.Redirects, c.Logouts = []string{callback}, []string{"https://client.elsewhere.example/bye"}
	secret, err := s.RegisterClient("otto", c)
	s.must(err)
	web := s.browser()
	web.Jar = nil
	ctx := gooidc.ClientContext(s.t.Context(), web.Client)
	p, err := gooidc.NewProvider(ctx, origin+"/portal/oidc")
	s.must(err)
	return &outside{s, ctx, p, oauth2.Config{ClientID: c.ID, ClientSecret: secret, Endpoint: p.Endpoint(),
		RedirectURL: callback, Scopes: []string{gooidc.ScopeOpenID, "profile", "email", "groups"}}, oauth2.GenerateVerifier()}
}

// address is where the client sends a visitor.
func (o *outside) address(more ...oauth2.AuthCodeOption) string {
	more = append(more, oauth2.S256ChallengeOption(o.verifier), gooidc.Nonce("n0nce"))
	return o.config.AuthCodeURL("st4te", more...)
}

// code has a browser log in, and returns the code that the client gets.
func (o *outside) code(b *browser, person string, more ...oauth2.AuthCodeOption) string {
	o.s.t.Helper()
	at, _ := b.follow(o.address(more...), person)
	q := at.Query()
	if at.Host != "client.elsewhere.example" || q.Get("from") != "ashwell" || q.Get("state") != "st4te" ||
		q.Get("iss") != origin+"/portal/oidc" || q.Get("code") == "" {
		o.s.t.Fatalf("the visitor comes to %s", at)
	}
	return q.Get("code")
}

func (o *outside) exchange(code string) (*oauth2.Token, error) {
	return o.config.Exchange(o.ctx, code, oauth2.VerifierOption(o.verifier))
}

func (o *outside) token(b *browser, person string, more ...oauth2.AuthCodeOption) *oauth2.Token {
	o.s.t.Helper()
	token, err := o.exchange(o.code(b, person, more...))
	o.s.must(err)
	return token
}

// knows says whether a token still tells who the visitor is.
func (o *outside) knows(token *oauth2.Token) bool {
	info, err := o.provider.UserInfo(o.ctx, oauth2.StaticTokenSource(token))
	return err == nil && info.Subject != ""
}

// refresh exchanges a refresh token.
func (o *outside) refresh(token *oauth2.Token) (*oauth2.Token, error) {
	return o.config.TokenSource(o.ctx, &oauth2.Token{RefreshToken: token.RefreshToken}).Token()
}

func (o *outside) verify(token *oauth2.Token) (*gooidc.IDToken, error) {
	raw, _ := token.Extra("id_token").(string)
	return o.provider.Verifier(&gooidc.Config{ClientID: o.config.ClientID}).Verify(o.ctx, raw)
}

func (s *site) testFlow() {
	for _, c := range []Client{{ID: "shop"}, {ID: "app", Public: true}} {
		o := s.outside(c)
		token := o.token(s.browser(), "anna")
		id, err := o.verify(token)
		s.must(err)
		var claims struct {
			Name, Email, Locale string
			EmailVerified       bool   `json:"email_verified"`
			Username            string `json:"preferred_username"`
			Groups              []string
		}
		s.must(id.Claims(&claims), id.VerifyAccessToken(token.AccessToken))
		if id.Subject != "anna" || id.Nonce != "n0nce" || claims.Name != "Änne anna" || claims.Email != "anna@"+domain ||
			!claims.EmailVerified || claims.Username != "anna" || strings.Join(claims.Groups, ",") != "gardeners" ||
			claims.Locale != "de" {
			s.t.Errorf("%s: %+v, %+v", c.ID, id, claims)
		}
		info, err := o.provider.UserInfo(o.ctx, oauth2.StaticTokenSource(token))
		if err != nil || info.Subject != "anna" || info.Email != "anna@"+domain {
			s.t.Errorf("%s: userinfo %+v, error %v", c.ID, info, err)
		}
		if token.RefreshToken != "" {
			s.t.Errorf("%s: a refresh token that nobody asked for", c.ID)
		}
	}
}

func (s *site) testAuthorizeAttacks() {
	o := s.outside(Client{ID: "shop"})
	b := s.browser()
	b.login("anna")
	none := "eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"shop","aud":["`+origin+
		`/portal/oidc"],"redirect_uri":"https://evil.example/"}`)) + "."
	for name, c := range map[string]struct {
		key, value string
		told       bool // the client, at its own address
	}{
		"redirect elsewhere":      {"redirect_uri", "https://evil.example/", false},
		"redirect below":          {"redirect_uri", callback + "&evil=1", false},
		"redirect to a folder up": {"redirect_uri", "https://client.elsewhere.example/callback/../evil", false},
		"redirect by user":        {"redirect_uri", "https://client.elsewhere.example@evil.example/callback", false},
		"redirect in upper case":  {"redirect_uri", strings.ToUpper(callback), false},
		"no redirect":             {"redirect_uri", "", false},
		"unknown client":          {"client_id", "nobody", false},
		"no PKCE":                 {"code_challenge", "", true},
		"short PKCE":              {"code_challenge", "short", true},
		"plain PKCE":              {"code_challenge_method", "plain", true},
		"PKCE without method":     {"code_challenge_method", "", true},
		"implicit":                {"response_type", "id_token token", true},
		"no response type":        {"response_type", "", true},
		"fragment":                {"response_mode", "fragment", false},
		"form":                    {"response_mode", "form_post", false},
		"unsigned request object": {"request", none, true},
		"hint of nobody":          {"id_token_hint", none, true},
	} {
		u, err := url.Parse(o.address())
		s.must(err)
		q := u.Query()
		q.Set(c.key, c.value)
		u.RawQuery = q.Encode()
		at, status := b.follow(u.String(), "")
		told := at.Host == "client.elsewhere.example"
		if told != c.told || at.Query().Has("code") || strings.Contains(at.Host, "evil") || !told && status != 400 {
			s.t.Errorf("%s: status %d at %s", name, status, at)
		}
		answer := at.Query()
		if name == "implicit" { // is told so in the fragment
			answer, _ = url.ParseQuery(at.Fragment)
			answer.Set("iss", "")
		}
		if told && (answer.Get("error") == "" || !answer.Has("iss")) {
			s.t.Errorf("%s: the client is not told at %s", name, at)
		}
	}
}

// testOtherBrowser has a thief begin a request and somebody else finish it: what comes of it must not be his.
func (s *site) testOtherBrowser() {
	o := s.outside(Client{ID: "shop"})
	thief, anna := s.browser(), s.browser()
	anna.login("anna")
	_, to, _ := thief.get(o.address())
	if to := anna.leads(to.String()); to != origin+"/portal/" {
		s.t.Errorf("going on in another browser leads to %q", to)
	}
	back := strings.Replace(to.String(), continuePath, callbackPath, 1)
	if status, _, _ := thief.get(back); status != 404 {
		s.t.Errorf("the library's way back: status %d", status)
	}
	for _, path := range []string{"healthz", "ready", "oauth/introspect", "device_authorization", "oauth/token"} {
		if status, _, _ := thief.get(origin + OIDCPath + path); status != 404 {
			s.t.Errorf("%s: status %d", path, status)
		}
	}
	if status, _, _ := anna.get(wiki + OIDCPath + "keys"); status != 404 {
		s.t.Errorf("at another host name: status %d", status)
	}
}

func (s *site) testCodeAttacks() {
	o, other := s.outside(Client{ID: "shop"}), s.outside(Client{ID: "other"})
	b := s.browser()
	refused := func(name string, token *oauth2.Token, err error) {
		var e *oauth2.RetrieveError
		if !errors.As(err, &e) || e.Response.StatusCode/100 != 4 {
			s.t.Errorf("%s: %v, error %v", name, token, err)
		}
	}
	code := o.code(b, "anna")
	token, err := o.config.Exchange(o.ctx, code)
	refused("without a verifier", token, err)
	token, err = o.exchange(code)
	refused("after a try without a verifier", token, err)
	token, err = o.config.Exchange(o.ctx, o.code(b, ""), oauth2.VerifierOption(oauth2.GenerateVerifier()))
	refused("another verifier", token, err)
	other.verifier = o.verifier
	token, err = other.exchange(o.code(b, ""))
	refused("another client", token, err)
	code = o.code(b, "")
	secret := o.config.ClientSecret
	o.config.ClientSecret = "wrong"
	token, err = o.exchange(code)
	refused("a wrong secret", token, err)
	o.config.ClientSecret = secret
	code = o.code(b, "")
	s.now = s.now.Add(codeTime)
	token, err = o.exchange(code)
	refused("too late", token, err)
	code = o.code(b, "")
	good, err := o.exchange(code)
	if err != nil || !o.knows(good) {
		s.t.Fatalf("a good code: %v", err)
	}
	token, err = o.exchange(code)
	refused("replayed", token, err)
	if o.knows(good) {
		s.t.Error("after a replay the first token is good still")
	}
	for _, grant := range []string{"urn:ietf:params:oauth:grant-type:jwt-bearer", "client_credentials", "password", "implicit"} {
		resp, err := s.browser().PostForm(origin+OIDCPath+tokenPath, url.Values{"grant_type": {grant}, "assertion": {"e30.e30."}})
		s.must(err)
		resp.Body.Close()
		if resp.StatusCode != 400 {
			s.t.Errorf("grant type %s: status %d", grant, resp.StatusCode)
		}
	}
}

func (s *site) testRefresh() {
	o := s.outside(Client{ID: "mailer", Offline: true})
	o.config.Scopes = append(o.config.Scopes, gooidc.ScopeOfflineAccess)
	b := s.browser()
	first := o.token(b, "anna")
	second, err := o.refresh(first)
	if err != nil || second.RefreshToken == first.RefreshToken || !o.knows(second) {
		s.t.Fatalf("%v, error %v", second, err)
	}
	if token, err := o.refresh(first); err == nil {
		s.t.Errorf("a refresh token for the second time: %v", token)
	}
	if token, err := o.refresh(second); err == nil || o.knows(second) {
		s.t.Errorf("its successor after that: %v", token)
	}
	first = o.token(b, "")
	other := s.outside(Client{ID: "other", Offline: true})
	if token, err := other.refresh(first); err == nil {
		s.t.Errorf("by another client: %v", token)
	}
	b.get(origin + PassPath + "logout")
	if token, err := o.refresh(first); err == nil || o.knows(first) {
		s.t.Errorf("after the logout: %v", token)
	}
}

func (s *site) testTokensEnd() {
	ctx := s.t.Context()
	o := s.outside(Client{ID: "shop", Module: "wiki"})
	b := s.browser()
	for name, c := range map[string]struct{ end, undo func() error }{
		"deactivated": {func() error { return s.directory.Deactivate(ctx, "anna") },
			func() error { return s.directory.Activate(ctx, "anna") }},
		"not allowed any more": {func() error { return s.directory.RemoveMember(ctx, "gardeners", "anna") },
			func() error { return s.directory.AddMember(ctx, "gardeners", "anna") }},
		"session ended": {func() error { return s.Sessions.EndAll("anna") }, func() error { return nil }},
		"expired":       {func() error { s.now = s.now.Add(accessTime); return nil }, func() error { return nil }},
		"client removed": {func() error { return s.RemoveClient("otto", "shop") },
			func() error { o = s.outside(Client{ID: "shop", Module: "wiki"}); return nil }},
	} {
		token := o.token(b, "anna")
		if !o.knows(token) {
			s.t.Errorf("%s: the token is no good before", name)
		}
		s.must(c.end())
		if o.knows(token) {
			s.t.Errorf("%s: the token is good still", name)
		}
		s.must(c.undo())
	}
	if at, _ := s.browser().follow(o.address(), "bert"); at.Query().Get("error") != "access_denied" {
		s.t.Errorf("who may not use the module comes to %s", at)
	}
	token := o.token(b, "anna")
	token.AccessToken = token.AccessToken[:len(token.AccessToken)-4] + "AAAA"
	if o.knows(token) {
		s.t.Error("a token that was changed is good")
	}
	s.must(s.Sweep(ctx))
}

func (s *site) testLoginAgain() {
	o := s.outside(Client{ID: "shop"})
	b := s.browser()
	if at, _ := b.follow(o.address(oauth2.SetAuthURLParam("prompt", "none")), ""); at.Query().Get("error") != "login_required" {
		s.t.Errorf("nobody, quietly: %s", at)
	}
	b.login("anna")
	o.code(b, "", oauth2.SetAuthURLParam("prompt", "none"))
	s.now = s.now.Add(2 * time.Minute)
	for _, p := range [][2]string{{"prompt", "login"}, {"max_age", "60"}} {
		if at, _ := b.follow(o.address(oauth2.SetAuthURLParam(p[0], p[1])), ""); at.Path != againPage {
			s.t.Errorf("%v: she comes to %s", p, at)
		}
	}
	o.code(b, "", oauth2.SetAuthURLParam("max_age", "600"))
	o.code(b, "anna", oauth2.SetAuthURLParam("prompt", "login"))
}

func (s *site) testLogout() {
	o := s.outside(Client{ID: "shop"})
	b := s.browser()
	token := o.token(b, "anna")
	raw, _ := token.Extra("id_token").(string)
	end := func(hint, back string) *url.URL {
		q := url.Values{"post_logout_redirect_uri": {back}, "client_id": {"shop"}}
		if hint != "" {
			q.Set("id_token_hint", hint)
		}
		_, to, _ := b.get(origin + OIDCPath + endPath + "?" + q.Encode())
		return to
	}
	if to := end("", "https://client.elsewhere.example/bye"); to == nil || to.String() != origin+"/portal/" {
		s.t.Errorf("without a hint: %v", to)
	}
	parts := strings.Split(raw, ".")
	forged := "eyJhbGciOiJub25lIn0." + parts[1] + "."
	for _, hint := range []string{forged, raw[:len(raw)-6] + "AAAAAA"} {
		if to := end(hint, "https://client.elsewhere.example/bye"); to != nil {
			s.t.Errorf("with a forged hint: %v", to)
		}
	}
	if to := end(raw, "https://evil.example/"); to != nil {
		s.t.Errorf("to an address that is not the client's: %v", to)
	}
	if !o.knows(token) {
		s.t.Fatal("one of these has ended the session")
	}
	if to := end(raw, "https://client.elsewhere.example/bye"); to == nil || to.String() != "https://client.elsewhere.example/bye" {
		s.t.Errorf("with a hint: %v", to)
	}
	if o.knows(token) {
		s.t.Error("the session goes on")
	}
}

// published are the keys that clients can get.
func (s *site) published() string {
	s.t.Helper()
	var set struct{ Keys []struct{ Kid, D string } }
	_, _, body := s.browser().get(origin + OIDCPath + keysPath)
	s.must(json.Unmarshal([]byte(body), &set))
	var all []string
	for _, k := range set.Keys {
		if k.D != "" {
			s.t.Error("a private key is published")
		}
		all = append(all, k.Kid)
	}
	return strings.Join(all, " ")
}

// testKeys moves the clock on and looks that each key is published a day before it signs, and after it.
func (s *site) testKeys() {
	start := s.now
	defer func() {
		s.now = start
		s.must(s.DB.Update(func(tx *store.Tx) error {
			return signingKeys.All(tx, "", func(id string, _ signingKey) bool { return signingKeys.Delete(tx, id) == nil })
		}))
	}()
	first, err := s.signing()
	s.must(err)
	seen, last := map[string]time.Time{}, first.id
	for ; s.now.Before(start.Add(3 * keyUsed)); s.now = s.now.Add(12 * time.Hour) {
		set := s.published()
		for _, id := range strings.Fields(set) {
			if _, ok := seen[id]; !ok {
				seen[id] = s.now
			}
		}
		k, err := s.signing()
		s.must(err)
		if !strings.Contains(set, k.id) || !strings.Contains(set, last) {
			s.t.Fatalf("%v: %q and %q before are not all among %q", s.now.Sub(start), k.id, last, set)
		}
		if k.id != last && s.now.Sub(seen[k.id]) < keyAhead {
			s.t.Errorf("%q signs %v after it was published", k.id, s.now.Sub(seen[k.id]))
		}
		last = k.id
	}
	if len(seen) < 3 || strings.Contains(s.published(), first.id) {
		s.t.Errorf("%d keys in all, published are %q", len(seen), s.published())
	}
}

func (s *site) testClients() {
	for name, c := range map[string]Client{
		"no address":          {ID: "x"},
		"not by HTTPS":        {ID: "x", Redirects: []string{"http://client.example/"}},
		"script":              {ID: "x", Redirects: []string{"javascript:alert(1)"}},
		"part of an address":  {ID: "x", Redirects: []string{"/callback"}},
		"fragment":            {ID: "x", Redirects: []string{"https://client.example/#a"}},
		"logout not by HTTPS": {ID: "x", Redirects: []string{"https://client.example/"}, Logouts: []string{"http://client.example/"}},
		"ID":                  {ID: "x y", Redirects: []string{"https://client.example/"}},
	} {
		if _, err := s.RegisterClient("otto", c); !errors.Is(err, ErrClient) {
			s.t.Errorf("%s: error %v", name, err)
		}
	}
	if all, err := s.Clients(); err != nil || len(all) == 0 {
		s.t.Errorf("%v, error %v", all, err)
	}
	if err := s.RemoveClient("otto", "nobody"); !errors.Is(err, store.ErrNotFound) {
		s.t.Errorf("error %v", err)
	}
}
