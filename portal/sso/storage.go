package sso

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"allotment/portal/directory"
	"allotment/portal/session"
)

// authRequest is what a client asks for a visitor. It is kept for some time after its code was used, so that a second
// use is seen.
type authRequest struct {
	oidc.AuthRequest
	Browser string    // value of the cookie of the browser that began it
	Hint    string    // person whom the client thinks it has
	Begun   time.Time //
	Person  string    // empty until she is logged in
	Session string
	AMR     []string

	AuthTime time.Time
	Code     string // hash; empty until it is made
	CodeEnds time.Time
	Used     bool // the code
	Replayed bool
	Grant    string // what came of it
}

// request is an authRequest as package op wants it.
type request struct {
	authRequest
	id string
}

func (r *request) GetID() string                      { return r.id }
func (r *request) GetACR() string                     { return "" }
func (r *request) GetAMR() []string                   { return r.AMR }
func (r *request) GetAudience() []string              { return []string{r.ClientID} }
func (r *request) GetAuthTime() time.Time             { return r.AuthTime }
func (r *request) GetClientID() string                { return r.ClientID }
func (r *request) GetNonce() string                   { return r.Nonce }
func (r *request) GetRedirectURI() string             { return r.RedirectURI }
func (r *request) GetResponseType() oidc.ResponseType { return r.ResponseType }
func (r *request) GetResponseMode() oidc.ResponseMode { return oidc.ResponseModeQuery }
func (r *request) GetScopes() []string                { return r.Scopes }
func (r *request) GetState() string                   { return r.State }
func (r *request) GetSubject() string                 { return r.Person }
func (r *request) Done() bool                         { return r.Person != "" }
func (r *request) GetCodeChallenge() *oidc.CodeChallenge {
	return &oidc.CodeChallenge{Challenge: r.CodeChallenge, Method: r.CodeChallengeMethod}
}

// storage is an SSO as package op wants it.
type storage struct{ *SSO }

var errNotServed = errors.New("not served")

// CreateAuthRequest keeps a request whose client and addresses the library has checked. PKCE with S256 is a must (RFC
// 9700 section 2.1.1).
func (s *storage) CreateAuthRequest(ctx context.Context, a *oidc.AuthRequest, hint string) (op.AuthRequest, error) {
	if a.CodeChallengeMethod != oidc.CodeChallengeMethodS256 || len(a.CodeChallenge) != 43 {
		return nil, oidc.ErrInvalidRequest().WithDescription("a code_challenge with code_challenge_method S256 is needed")
	}
	browser, _ := ctx.Value(browserKey{}).(string)
	v := authRequest{AuthRequest: *a, Browser: browser, Hint: hint, Begun: s.Now()}
	return &request{v, s.requests.Put(v)}, nil
}

func (s *storage) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	v, ok := s.requests.Get(id)
	if !ok {
		return nil, oidc.ErrInvalidRequest().WithDescription("this took too long")
	}
	return &request{v, id}, nil
}

func hashText(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// SaveAuthCode notes the code of a request.
func (s *storage) SaveAuthCode(_ context.Context, id, code string) error {
	ok := s.requests.Change(id, func(a *authRequest) {
		a.Code, a.CodeEnds = hashText(code), s.Now().Add(codeTime)
	})
	if !ok {
		return oidc.ErrInvalidRequest().WithDescription("this took too long")
	}
	return nil
}

// AuthRequestByCode takes a code. The second use of one is an attack: what the first gave ends (RFC 6749 4.1.2).
func (s *storage) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	id, err := s.provider.Crypto().Decrypt(code)
	if err != nil {
		return nil, err
	}
	var v authRequest
	good := false
	s.requests.Change(id, func(a *authRequest) {
		known := a.Code != "" && equal(a.Code, hashText(code))
		good = known && !a.Used && s.Now().Before(a.CodeEnds)
		a.Replayed = a.Replayed || known && a.Used
		a.Used = a.Used || known
		v = *a
	})
	if v.Replayed && v.Grant != "" {
		err = s.endGrant(v.Grant)
	}
	if !good {
		return nil, errors.Join(oidc.ErrInvalidGrant(), err)
	}
	return &request{v, id}, nil
}

// DeleteAuthRequest does nothing: a request that was answered stays until it expires, see AuthRequestByCode.
func (s *storage) DeleteAuthRequest(context.Context, string) error { return nil }

// TerminateSessionFromRequest ends the browser's session, if the client shows by an ID token that it is its person's.
// Otherwise the portal asks her: any site can send her here.
func (s *storage) TerminateSessionFromRequest(ctx context.Context, e *op.EndSessionRequest) (string, error) {
	found, _ := ctx.Value(sessionKey{}).(session.Session)
	switch {
	case found.ID == "":
		return e.RedirectURI, nil
	case e.IDTokenHintClaims == nil || e.UserID != found.Person:
		return "/portal/", nil
	}
	return e.RedirectURI, s.Sessions.End(found.ID)
}

// GetClientByClientID finds a client.
func (s *storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	c, err := s.client(id)
	if err != nil {
		return nil, oidc.ErrInvalidClient().WithParent(err)
	}
	return registered{c, !s.Config().Secure}, nil
}

// AuthorizeClientIDSecret checks a client's secret.
func (s *storage) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	c, err := s.client(id)
	if err != nil || !c.hasSecret(secret) {
		return oidc.ErrInvalidClient().WithParent(err)
	}
	return nil
}

// SetUserinfoFromScopes does nothing: see SetUserinfoFromRequest.
func (s *storage) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return nil
}

// SetUserinfoFromRequest fills an ID token.
func (s *storage) SetUserinfoFromRequest(ctx context.Context, u *oidc.UserInfo, r op.IDTokenRequest,
	scopes []string) error {
	p, err := s.Directory.Person(ctx, r.GetSubject())
	if err != nil {
		return err
	}
	fill(u, p, scopes)
	return nil
}

// SetUserinfoFromToken answers userinfo.
func (s *storage) SetUserinfoFromToken(ctx context.Context, u *oidc.UserInfo, tokenID, subject, _ string) error {
	g, err := s.grantOfToken(tokenID)
	if err != nil || g.Person != subject {
		return oidc.ErrAccessDenied().WithParent(err)
	}
	p, err := s.holder(ctx, g)
	if err != nil {
		return oidc.ErrAccessDenied().WithParent(err)
	}
	fill(u, p, g.Scopes)
	return nil
}

// fill tells of a person what the scopes (OpenID Connect Core 5.4, and "groups") ask for.
func fill(u *oidc.UserInfo, p directory.Person, scopes []string) {
	u.Subject = p.Name
	for _, scope := range scopes {
		switch scope {
		case oidc.ScopeProfile:
			u.Name, u.GivenName, u.FamilyName, u.PreferredUsername = p.Display, p.Given, p.Family, p.Name
			if p.Language != "" {
				u.AppendClaims("locale", p.Language)
			}
		case oidc.ScopeEmail:
			u.Email, u.EmailVerified = p.Mail, oidc.Bool(p.Mail != "")
		case scopeGroups:
			u.AppendClaims("groups", append([]string{}, p.Groups...))
		}
	}
}

// SigningKey is the key to sign with.
func (s *storage) SigningKey(context.Context) (op.SigningKey, error) { return s.signing() }

// SignatureAlgorithms are those of the keys.
func (s *storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{algorithm}, nil
}

// KeySet is the public halves of all keys that are good.
func (s *storage) KeySet(context.Context) ([]op.Key, error) {
	all, err := s.keys()
	var public []op.Key
	for _, k := range all {
		k.half = &k.private.PublicKey
		public = append(public, k)
	}
	return public, err
}

// Health is nothing to ask for: the supervisor has a page of its own for it.
func (s *storage) Health(context.Context) error { return nil }

// What follows belongs to endpoints that are not served.

// TerminateSession is replaced by TerminateSessionFromRequest.
func (s *storage) TerminateSession(context.Context, string, string) error { return errNotServed }

// SetIntrospectionFromToken belongs to introspection.
func (s *storage) SetIntrospectionFromToken(context.Context, *oidc.IntrospectionResponse, string, string, string) error {
	return errNotServed
}

// GetPrivateClaimsFromScopes belongs to access tokens that are JWTs.
func (s *storage) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, errNotServed
}

// GetKeyByIDAndClientID belongs to clients that sign.
func (s *storage) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errNotServed
}

// ValidateJWTProfileScopes belongs to clients that sign.
func (s *storage) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errNotServed
}
