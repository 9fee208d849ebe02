package sso

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"allotment/portal/session"
)

// Endpoints below OIDCPath. All others that the library has are not served.
const (
	authorizePath = "authorize"
	callbackPath  = "authorize/callback" // of the library, for continuePath alone
	continuePath  = "continue"           // the visitor comes back from the login
	tokenPath     = "token"
	userinfoPath  = "userinfo"
	revokePath    = "revoke"
	endPath       = "end_session"
	keysPath      = "keys"
)

const scopeGroups = "groups"

// How long things last.
const (
	requestTime = 15 * time.Minute // for the visitor to log in
	codeTime    = time.Minute
	accessTime  = 5 * time.Minute
	idTokenTime = time.Hour
)

// openProvider makes the library's part. Its key encrypts codes and access tokens: both are too short of life to outlive
// the portal.
func (s *SSO) openProvider() (err error) {
	c := &op.Config{CodeMethodS256: true, AuthMethodPost: true, GrantTypeRefreshToken: true,
		DefaultLogoutRedirectURI: "/portal/",
		SupportedScopes: []string{oidc.ScopeOpenID, oidc.ScopeProfile, oidc.ScopeEmail, scopeGroups,
			oidc.ScopeOfflineAccess},
		SupportedClaims: []string{"sub", "aud", "exp", "iat", "iss", "auth_time", "nonce", "amr", "name", "given_name",
			"family_name", "preferred_username", "locale", "email", "email_verified", "groups"}}
	rand.Read(c.CryptoKey[:])
	issuer := func(bool) (op.IssuerFromRequest, error) { return s.Issuer, nil }
	s.provider, err = op.NewProvider(c, &storage{s}, issuer, op.WithCORSOptions(nil),
		op.WithCrypto(op.NewAES256GCMCrypto(c.CryptoKey, "")), // the default would read unauthenticated ciphers too
		op.WithCustomEndpoints(op.NewEndpoint(authorizePath), op.NewEndpoint(tokenPath), op.NewEndpoint(userinfoPath),
			op.NewEndpoint(revokePath), op.NewEndpoint(endPath), op.NewEndpoint(keysPath)))
	if err != nil {
		return fmt.Errorf("cannot make the OpenID provider: %w", err)
	}
	return nil
}

// Issuer names the provider as the visitor of r sees it (OpenID Connect Discovery 1.0 section 3).
func (s *SSO) Issuer(r *http.Request) string { return s.origin(r) + OIDCPath[:len(OIDCPath)-1] }

// oidc answers below OIDCPath, at the portal's host name alone.
func (s *SSO) oidc(w http.ResponseWriter, r *http.Request) {
	if !s.atPortal(r) {
		http.NotFound(w, r)
		return
	}
	path := r.URL.Path[len(OIDCPath):]
	switch path {
	case oidc.DiscoveryEndpoint[1:]:
		s.discovery(w, r)
	case authorizePath:
		s.authorize(w, r)
	case continuePath:
		s.proceed(w, r)
	case tokenPath:
		switch r.FormValue("grant_type") {
		case string(oidc.GrantTypeCode), string(oidc.GrantTypeRefreshToken), "":
			s.serve(w, r, path)
		default:
			op.RequestError(w, r, oidc.ErrUnsupportedGrantType(), nil)
		}
	case keysPath:
		w.Header().Set("Cache-Control", "max-age=3600") // less than keyAhead
		s.serve(w, r, path)
	case userinfoPath, revokePath, endPath:
		s.serve(w, r, path)
	default:
		http.NotFound(w, r)
	}
}

// serve has the library answer a request for a path below its root.
func (s *SSO) serve(w http.ResponseWriter, r *http.Request, path string) {
	inner := r.Clone(r.Context())
	inner.URL.Path, inner.URL.RawPath = "/"+path, ""
	if path == endPath { // the session that is to end is of this browser
		found, err := s.Sessions.Find(r)
		if err != nil && !errors.Is(err, session.ErrNone) {
			s.refuse(w, err)
			return
		}
		inner = inner.WithContext(context.WithValue(inner.Context(), sessionKey{}, found))
	}
	s.provider.ServeHTTP(w, inner)
}

// discovery describes the provider: what the library knows, less what is not served.
func (s *SSO) discovery(w http.ResponseWriter, r *http.Request) {
	ctx := op.ContextWithIssuer(r.Context(), s.Issuer(r))
	d := op.CreateDiscoveryConfig(ctx, s.provider, s.provider.Storage())
	d.IntrospectionEndpoint, d.DeviceAuthorizationEndpoint = "", ""
	d.IntrospectionEndpointAuthMethodsSupported, d.IntrospectionEndpointAuthSigningAlgValuesSupported = nil, nil
	d.TokenEndpointAuthSigningAlgValuesSupported, d.RevocationEndpointAuthSigningAlgValuesSupported = nil, nil
	d.RequestObjectSigningAlgValuesSupported = nil
	d.ResponseTypesSupported = []string{string(oidc.ResponseTypeCode)}
	d.ResponseModesSupported = []string{string(oidc.ResponseModeQuery)}
	d.GrantTypesSupported = []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken}
	methods := []oidc.AuthMethod{oidc.AuthMethodBasic, oidc.AuthMethodPost, oidc.AuthMethodNone}
	d.TokenEndpointAuthMethodsSupported, d.RevocationEndpointAuthMethodsSupported = methods, methods
	w.Header().Set("Cache-Control", "max-age=3600")
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(struct {
		*oidc.DiscoveryConfiguration
		Iss bool `json:"authorization_response_iss_parameter_supported"` // RFC 9207
	}{d, true})
}

// browserKey and sessionKey are where a context has what the library does not pass on.
type (
	browserKey struct{}
	sessionKey struct{}
)

// authorize begins a request of a client, for this browser alone: whoever knows its ID could otherwise have somebody
// else finish it, and get her code.
func (s *SSO) authorize(w http.ResponseWriter, r *http.Request) {
	switch r.FormValue("response_mode") {
	case "", string(oidc.ResponseModeQuery):
	default:
		op.RequestError(w, r, oidc.ErrInvalidRequest().WithDescription("response_mode is not supported"), nil)
		return
	}
	browser, err := r.Cookie(s.browserCookie())
	if err != nil || len(browser.Value) < 26 {
		browser = &http.Cookie{Name: s.browserCookie(), Value: rand.Text(), Path: "/", Secure: s.Config().Secure,
			HttpOnly: true, SameSite: http.SameSiteLaxMode}
		http.SetCookie(w, browser)
	}
	s.serve(&issWriter{w, s.Issuer(r)}, r.WithContext(context.WithValue(r.Context(), browserKey{}, browser.Value)),
		authorizePath)
}

func (s *SSO) browserCookie() string {
	if s.Config().Secure {
		return "__Host-portal-oidc"
	}
	return "portal-oidc"
}

// proceed goes on with a request when the visitor is logged in, and sends her to the login until then.
func (s *SSO) proceed(w http.ResponseWriter, r *http.Request) {
	id := r.FormValue("id")
	req, ok := s.requests.Get(id)
	browser, err := r.Cookie(s.browserCookie())
	if !ok || req.Code != "" || err != nil || browser.Value != req.Browser {
		s.home(w, r)
		return
	}
	w = &issWriter{w, s.Issuer(r)}
	found, err := s.Sessions.Find(r)
	fail := s.goOn(r, req, found, err)
	var where elsewhere
	var refusal *oidc.Error
	switch {
	case fail == nil:
	case errors.As(fail, &where):
		http.Redirect(w, r, string(where)+"?to="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
		return
	case errors.As(fail, &refusal):
		op.AuthRequestError(w, r, &request{req, id}, refusal, s.provider)
		return
	default:
		s.refuse(w, fail)
		return
	}
	s.requests.Change(id, func(a *authRequest) {
		a.Person, a.Session, a.AuthTime, a.AMR = found.Person, found.ID, loginTime(found), methods(found.Strength)
	})
	back := r.Clone(r.Context())
	back.Method, back.URL.RawQuery, back.Form, back.PostForm = http.MethodGet, url.Values{"id": {id}}.Encode(), nil, nil
	s.serve(w, back, callbackPath)
}

// elsewhere is a page that a visitor must see first.
type elsewhere string

func (e elsewhere) Error() string { return "see " + string(e) }

// goOn says what keeps a request from going on with a session, if there is one.
func (s *SSO) goOn(r *http.Request, req authRequest, found session.Session, err error) error {
	quiet := len(req.Prompt) > 0 && req.Prompt[0] == oidc.PromptNone
	page := elsewhere("")
	switch {
	case errors.Is(err, session.ErrNone):
		page = loginPage
	case err != nil:
		return err
	case req.Hint != "" && req.Hint != found.Person:
		return oidc.ErrLoginRequired()
	case req.MaxAge != nil && loginTime(found).Before(req.Begun) &&
		s.Now().Sub(loginTime(found)) > time.Duration(*req.MaxAge)*time.Second:
		page = againPage
	}
	if page != "" && quiet {
		return oidc.ErrLoginRequired()
	}
	if page != "" {
		return page
	}
	c, err := s.client(req.ClientID)
	if err != nil {
		return err
	}
	if _, err = s.visitor(r.Context(), found, c.Module); errors.Is(err, errDenied) {
		return oidc.ErrAccessDenied()
	}
	return err
}

// loginTime is when a session's person last logged in.
func loginTime(found session.Session) time.Time { return found.Fresh.Add(-session.FreshFor) }

// methods are the authentication methods (RFC 8176) of a strength.
func methods(strength string) []string {
	switch strength {
	case session.Passkey:
		return []string{"hwk"}
	case session.TOTP, session.Printed:
		return []string{"pwd", "otp", "mfa"}
	}
	return []string{"pwd"}
}

// issWriter adds the issuer to the address that a client gets an answer at, so that it cannot take it for another
// provider's (RFC 9207).
type issWriter struct {
	http.ResponseWriter
	issuer string
}

// WriteHeader changes the header Location.
func (w *issWriter) WriteHeader(status int) {
	u, err := url.Parse(w.Header().Get("Location"))
	if err == nil && status == http.StatusFound {
		if q := u.Query(); q.Has("code") || q.Has("error") {
			q.Set("iss", w.issuer)
			u.RawQuery = q.Encode()
			w.Header().Set("Location", u.String())
		}
	}
	w.ResponseWriter.WriteHeader(status)
}
