package sso

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"allotment/portal/directory"
	"allotment/portal/session"
	"allotment/portal/store"
)

// grant is what a client may know, as long as the visitor's session lasts. Names of its tokens begin with its ID and a
// point.
type grant struct {
	Client   string    `json:"client"`
	Person   string    `json:"person"`
	Session  string    `json:"session"`
	Scopes   []string  `json:"scopes"`
	AMR      []string  `json:"amr"`
	AuthTime time.Time `json:"authTime"`
	Access   []access  `json:"access"`            // those that have not expired
	Refresh  string    `json:"refresh,omitempty"` // hash of the token that is good; empty: there is none
}

// access is an access token.
type access struct {
	Hash    string    `json:"hash"` // of its ID
	Expires time.Time `json:"expires"`
}

var (
	grants   = store.NewBucket[grant]("sso-grants")
	errToken = errors.New("the token is not good any more")
)

// addAccess adds an access token to a grant.
func (g *grant) addAccess(id string, now time.Time) (token string, expires time.Time) {
	g.Access = slices.DeleteFunc(g.Access, func(a access) bool { return !now.Before(a.Expires) })
	token, expires = id+"."+rand.Text(), now.Add(accessTime)
	g.Access = append(g.Access, access{hashText(token), expires})
	return token, expires
}

// addRefresh gives a grant another refresh token: the one before is worth nothing then.
func (g *grant) addRefresh(id string) (token string) {
	token = id + "." + rand.Text() + rand.Text()
	g.Refresh = hashText(token)
	return token
}

// CreateAccessToken makes the token for a request.
func (s *storage) CreateAccessToken(_ context.Context, r op.TokenRequest) (string, time.Time, error) {
	token, _, expires, err := s.grant(r, false)
	return token, expires, err
}

// CreateAccessAndRefreshTokens makes both, for a request or by the refresh token that was current.
func (s *storage) CreateAccessAndRefreshTokens(_ context.Context, r op.TokenRequest, current string) (
	token, again string, expires time.Time, err error) {
	if renewed, ok := r.(*refreshRequest); ok {
		return s.renew(renewed.id, current)
	}
	return s.grant(r, true)
}

// grant makes a grant of a request.
func (s *storage) grant(r op.TokenRequest, refresh bool) (token, again string, expires time.Time, err error) {
	a, ok := r.(*request)
	if !ok {
		return "", "", expires, errNotServed
	}
	id := rand.Text()
	g := grant{Client: a.ClientID, Person: a.Person, Session: a.Session, Scopes: a.Scopes, AMR: a.AMR, AuthTime: a.AuthTime}
	token, expires = g.addAccess(id, s.Now())
	if refresh {
		again = g.addRefresh(id)
	}
	if err = s.DB.Update(func(tx *store.Tx) error { return grants.Put(tx, id, g) }); err != nil {
		return "", "", expires, err
	}
	replayed := true // if the request is gone
	s.requests.Change(a.id, func(a *authRequest) { a.Grant, replayed = id, a.Replayed })
	if replayed {
		return "", "", expires, errors.Join(oidc.ErrInvalidGrant(), s.endGrant(id))
	}
	return token, again, expires, nil
}

// renew exchanges a refresh token. Two exchanges of one at once are as bad as one after the other.
func (s *storage) renew(id, current string) (token, again string, expires time.Time, err error) {
	err = s.DB.Update(func(tx *store.Tx) error {
		g, err := grants.Get(tx, id)
		if err != nil {
			return err
		}
		if !equal(g.Refresh, hashText(current)) {
			return errToken
		}
		token, expires = g.addAccess(id, s.Now())
		again = g.addRefresh(id)
		return grants.Put(tx, id, g)
	})
	if err != nil {
		return "", "", expires, errors.Join(oidc.ErrInvalidGrant().WithParent(err), s.endGrant(id))
	}
	return token, again, expires, nil
}

// refreshRequest is what a refresh token stands for.
type refreshRequest struct {
	grant
	id string
}

func (r *refreshRequest) GetAMR() []string            { return r.AMR }
func (r *refreshRequest) GetAudience() []string       { return []string{r.Client} }
func (r *refreshRequest) GetAuthTime() time.Time      { return r.AuthTime }
func (r *refreshRequest) GetClientID() string         { return r.Client }
func (r *refreshRequest) GetScopes() []string         { return r.Scopes }
func (r *refreshRequest) GetSubject() string          { return r.Person }
func (r *refreshRequest) SetCurrentScopes(s []string) { r.Scopes = s }

func (s *SSO) grantByID(id string) (g grant, err error) {
	err = s.DB.View(func(tx *store.Tx) error {
		g, err = grants.Get(tx, id)
		return err
	})
	return g, err
}

// holder is the person of a grant, if her session goes on and she may still use what the client belongs to.
func (s *SSO) holder(ctx context.Context, g grant) (directory.Person, error) {
	c, err := s.client(g.Client)
	if err != nil {
		return directory.Person{}, err
	}
	found, err := s.Sessions.Get(g.Session)
	if err != nil {
		return directory.Person{}, err
	}
	return s.visitor(ctx, found, c.Module)
}

// TokenRequestByRefreshToken checks a refresh token. One that was exchanged before has been stolen, or its successor
// has: both end (RFC 9700 section 4.14.2).
func (s *storage) TokenRequestByRefreshToken(ctx context.Context, token string) (op.RefreshTokenRequest, error) {
	id, _, _ := strings.Cut(token, ".")
	g, err := s.grantByID(id)
	if err != nil || g.Refresh == "" {
		return nil, op.ErrInvalidRefreshToken
	}
	if !equal(g.Refresh, hashText(token)) {
		return nil, errors.Join(op.ErrInvalidRefreshToken, s.endGrant(id))
	}
	if _, err := s.holder(ctx, g); err != nil {
		return nil, err
	}
	return &refreshRequest{g, id}, nil
}

// grantOfToken is the grant of an access token that has not expired.
func (s *SSO) grantOfToken(tokenID string) (grant, error) {
	id, _, _ := strings.Cut(tokenID, ".")
	g, err := s.grantByID(id)
	if err != nil {
		return g, err
	}
	good := slices.ContainsFunc(g.Access, func(a access) bool {
		return equal(a.Hash, hashText(tokenID)) && s.Now().Before(a.Expires)
	})
	if !good {
		return g, errToken
	}
	return g, nil
}

// GetRefreshTokenInfo says whose refresh token it is.
func (s *storage) GetRefreshTokenInfo(_ context.Context, _, token string) (person, id string, err error) {
	grantID, _, _ := strings.Cut(token, ".")
	g, err := s.grantByID(grantID)
	if err != nil || !equal(g.Refresh, hashText(token)) {
		return "", "", op.ErrInvalidRefreshToken
	}
	return g.Person, token, nil
}

// RevokeToken ends the grant of a client's token, of either kind.
func (s *storage) RevokeToken(_ context.Context, token, _, client string) *oidc.Error {
	id, _, _ := strings.Cut(token, ".")
	g, err := s.grantByID(id)
	if err != nil || g.Client != client {
		return nil // RFC 7009 section 2.2: the client has what it wants
	}
	known := equal(g.Refresh, hashText(token)) ||
		slices.ContainsFunc(g.Access, func(a access) bool { return equal(a.Hash, hashText(token)) })
	if !known {
		return nil
	}
	if err := s.endGrant(id); err != nil {
		return oidc.ErrServerError().WithParent(err)
	}
	return nil
}

func (s *SSO) endGrant(id string) error {
	return s.DB.Update(func(tx *store.Tx) error { return grants.Delete(tx, id) })
}

// sweepGrants removes grants whose session or client is gone, or that have no token left.
func (s *SSO) sweepGrants() error {
	var over []string
	all := map[string]grant{}
	if err := s.DB.View(func(tx *store.Tx) error {
		return grants.All(tx, "", func(id string, g grant) bool { all[id] = g; return true })
	}); err != nil {
		return err
	}
	for id, g := range all {
		_, sessionErr := s.Sessions.Get(g.Session)
		_, clientErr := s.client(g.Client)
		alive := slices.ContainsFunc(g.Access, func(a access) bool { return s.Now().Before(a.Expires) })
		if errors.Is(sessionErr, session.ErrNone) || errors.Is(clientErr, store.ErrNotFound) || !alive && g.Refresh == "" {
			over = append(over, id)
		}
	}
	var errs []error
	for _, id := range over {
		errs = append(errs, s.endGrant(id))
	}
	return errors.Join(errs...)
}
