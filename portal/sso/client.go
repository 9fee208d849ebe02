package sso

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"allotment/portal/audit"
	"allotment/portal/store"
)

// Client is a program that asks by OpenID Connect who a visitor is.
type Client struct {
	ID         string   `json:"id"`
	Title      string   `json:"title"`
	Redirects  []string `json:"redirects"`            // addresses that visitors come back to, compared byte by byte
	Logouts    []string `json:"logouts,omitempty"`    // addresses that they come to after logging out
	Module     string   `json:"module,omitempty"`     // only who may use it can log in; empty: everybody
	Public     bool     `json:"public,omitempty"`     // cannot keep a secret, such as a script in a browser
	Offline    bool     `json:"offline,omitempty"`    // may have refresh tokens
	SecretHash []byte   `json:"secretHash,omitempty"` // SHA-256
}

var clients = store.NewBucket[Client]("sso-clients")

// ErrClient says that a client cannot be registered as it is.
var ErrClient = errors.New("not a usable client")

// RegisterClient adds a client, or changes the one with its ID, and gives it a new secret, which is told this once;
// a public one has none. Actor is the officer who does it; empty: the box.
func (s *SSO) RegisterClient(actor string, c Client) (secret string, err error) {
	if err := s.check(c); err != nil {
		return "", err
	}
	c.SecretHash = nil
	if !c.Public {
		secret = rand.Text() + rand.Text()
		sum := sha256.Sum256([]byte(secret))
		c.SecretHash = sum[:]
	}
	if err := s.DB.Update(func(tx *store.Tx) error { return clients.Put(tx, c.ID, c) }); err != nil {
		return "", err
	}
	return secret, s.Audit.Record(audit.Entry{Actor: actor, Kind: "client.registered", Subject: c.ID})
}

// RemoveClient removes a client and ends what it was granted.
func (s *SSO) RemoveClient(actor, id string) error {
	err := s.DB.Update(func(tx *store.Tx) error {
		if _, err := clients.Get(tx, id); err != nil {
			return err
		}
		return clients.Delete(tx, id)
	})
	if err != nil {
		return fmt.Errorf("cannot remove client %q: %w", id, err)
	}
	return errors.Join(s.sweepGrants(), s.Audit.Record(audit.Entry{Actor: actor, Kind: "client.removed", Subject: id}))
}

// Clients lists all clients.
func (s *SSO) Clients() (all []Client, err error) {
	err = s.DB.View(func(tx *store.Tx) error {
		return clients.All(tx, "", func(_ string, c Client) bool { all = append(all, c); return true })
	})
	return all, err
}

func (s *SSO) check(c Client) error {
	if !hostForm.MatchString(c.ID) || len(c.ID) > 63 {
		return fmt.Errorf("%w: ID %q is not of letters, digits, dots and hyphens", ErrClient, c.ID)
	}
	if len(c.Redirects) == 0 {
		return fmt.Errorf("%w: it has no address to come back to", ErrClient)
	}
	for _, address := range slices.Concat(c.Redirects, c.Logouts) {
		u, err := url.Parse(address)
		local := err == nil && slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, u.Hostname())
		switch {
		case err != nil || u.Host == "" || u.Fragment != "" || u.User != nil:
			return fmt.Errorf("%w: %q is not a whole address", ErrClient, address)
		case u.Scheme != "https" && (u.Scheme != "http" || s.Config().Secure && !local):
			return fmt.Errorf("%w: %q is not by HTTPS", ErrClient, address)
		}
	}
	return nil
}

func (s *SSO) client(id string) (c Client, err error) {
	err = s.DB.View(func(tx *store.Tx) error {
		c, err = clients.Get(tx, id)
		return err
	})
	return c, err
}

// hasSecret says whether secret is the client's.
func (c Client) hasSecret(secret string) bool {
	sum := sha256.Sum256([]byte(secret))
	return !c.Public && subtle.ConstantTimeCompare(sum[:], c.SecretHash) == 1
}

// registered is a client as package op wants it.
type registered struct {
	Client
	insecure bool // visitors do not come by HTTPS, so clients need not
}

func (c registered) GetID() string                    { return c.ID }
func (c registered) RedirectURIs() []string           { return c.Redirects }
func (c registered) PostLogoutRedirectURIs() []string { return c.Logouts }
func (c registered) ResponseTypes() []oidc.ResponseType {
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}
func (c registered) AccessTokenType() op.AccessTokenType  { return op.AccessTokenTypeBearer }
func (c registered) IDTokenLifetime() time.Duration       { return idTokenTime }
func (c registered) DevMode() bool                        { return c.insecure }
func (c registered) IDTokenUserinfoClaimsAssertion() bool { return true }
func (c registered) ClockSkew() time.Duration             { return 0 }
func (c registered) IsScopeAllowed(scope string) bool     { return scope == scopeGroups }
func (c registered) LoginURL(id string) string {
	return OIDCPath + continuePath + "?id=" + url.QueryEscape(id)
}
func (c registered) RestrictAdditionalIdTokenScopes() func([]string) []string {
	return slices.Clone[[]string]
}
func (c registered) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return slices.Clone[[]string]
}

func (c registered) ApplicationType() op.ApplicationType {
	if c.Public {
		return op.ApplicationTypeUserAgent
	}
	return op.ApplicationTypeWeb
}

func (c registered) AuthMethod() oidc.AuthMethod {
	if c.Public {
		return oidc.AuthMethodNone
	}
	return oidc.AuthMethodBasic
}

func (c registered) GrantTypes() []oidc.GrantType {
	if c.Offline {
		return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken}
	}
	return []oidc.GrantType{oidc.GrantTypeCode}
}
