// Package sso tells others who a visitor of the portal is: the gateway (/-/whois), other host names of the box
// (/.well-known/allotment/sso/) and clients of OpenID Connect (/portal/oidc/). docs/formats/sso.md describes all three.
package sso

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"

	"allotment/portal/audit"
	"allotment/portal/config"
	"allotment/portal/directory"
	"allotment/portal/session"
	"allotment/portal/store"
	"allotment/portal/ticket"
)

// Paths of the handler.
const (
	WhoisPath = "/-/whois"
	OIDCPath  = "/portal/oidc/"
	PassPath  = "/.well-known/allotment/sso/"
)

// loginPage is where visitors log in; it leads on to the local path in parameter "to". againPage asks those who are
// logged in for their password once more.
const (
	loginPage = "/portal/login"
	againPage = "/portal/login/again"
)

// People is what of the directory this package needs: (*directory.Directory) has it.
type People interface {
	Person(ctx context.Context, name string) (directory.Person, error)
	AddAppPassword(ctx context.Context, name, label string, expires time.Time) (id, secret string, err error)
	RemoveAppPassword(ctx context.Context, name, id string) error
}

// Deps is what an SSO needs.
type Deps struct {
	Directory People
	DB        *store.DB
	Audit     *audit.Log
	Sessions  *session.Sessions
	Config    func() config.Config
	Now       func() time.Time
	Log       *slog.Logger
}

// SSO answers below WhoisPath, OIDCPath and PassPath.
type SSO struct {
	Deps
	mux      *http.ServeMux
	provider *op.Provider
	requests *ticket.Tickets[authRequest]
	passes   *ticket.Tickets[pass]

	making sync.Mutex // held while a password of a session is made, so that a browser's many requests make one
}

// New makes an SSO.
func New(d Deps) (*SSO, error) {
	s := &SSO{Deps: d, mux: http.NewServeMux(), requests: ticket.New[authRequest](d.Now, requestTime),
		passes: ticket.New[pass](d.Now, passTime)}
	if err := s.openProvider(); err != nil {
		return nil, err
	}
	s.mux.HandleFunc("GET "+WhoisPath, s.whois)
	s.mux.HandleFunc("GET "+PassPath+"login", s.login)
	s.mux.HandleFunc("GET "+PassPath+"pass", s.pass)
	s.mux.HandleFunc("GET "+PassPath+"enter", s.enter)
	s.mux.HandleFunc("GET "+PassPath+"logout", s.logout)
	s.mux.HandleFunc("GET "+PassPath+"credentials", s.credentials)
	s.mux.HandleFunc(OIDCPath, s.oidc)
	return s, nil
}

// maxBody bounds what a client sends.
const maxBody = 64 << 10

// ServeHTTP answers one request. Nothing of it may be kept by a cache or told to another site.
func (s *SSO) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	s.mux.ServeHTTP(w, r)
}

// sweepEvery is how often Run looks for what has expired.
const sweepEvery = time.Minute

// Run removes what belongs to sessions that have ended, soon after each end, until ctx ends.
func (s *SSO) Run(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("cannot remove all of what ended sessions leave", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.Sessions.Ended():
		case <-tick.C:
		}
	}
}

// Sweep removes once what belongs to sessions that have ended, and makes the next key if it is time.
func (s *SSO) Sweep(ctx context.Context) error {
	_, err := s.keys()
	return errors.Join(err, s.Sessions.Sweep(), s.sweepPasswords(ctx), s.sweepGrants())
}

// errDenied says that a person may not use a module, or is deactivated.
var errDenied = errors.New("not allowed")

// usePermission is the permission that a module declares if not everybody may use it.
const usePermission = "use"

// visitor is the person of a session, who must be active and allowed to use a module (empty: none). The sessions of
// whoever was deactivated end here.
func (s *SSO) visitor(ctx context.Context, found session.Session, module string) (directory.Person, error) {
	p, err := s.Directory.Person(ctx, found.Person)
	if errors.Is(err, directory.ErrNotFound) || err == nil && !p.Active {
		return p, errors.Join(errDenied, s.Sessions.EndAll(found.Person))
	}
	if err != nil {
		return p, fmt.Errorf("cannot look up the visitor: %w", err)
	}
	if module == "" {
		return p, nil
	}
	m := s.module(module)
	if m == nil {
		return p, errDenied
	}
	restricted := slices.ContainsFunc(m.Permissions, func(x config.Permission) bool { return x.Name == usePermission })
	if restricted && !slices.Contains(p.Permissions, module+"."+usePermission) {
		return p, errDenied
	}
	return p, nil
}

// module is a module that is on, or nil.
func (s *SSO) module(name string) *config.Module {
	for _, m := range s.Config().Modules {
		if m.Name == name {
			return &m
		}
	}
	return nil
}

// refuse answers what went wrong: with status 401 to nobody, 403 to somebody who may not, 503 without the directory.
func (s *SSO) refuse(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, session.ErrNone):
		status = http.StatusUnauthorized
	case errors.Is(err, errDenied):
		status = http.StatusForbidden
	case errors.Is(err, directory.ErrUnavailable):
		status = http.StatusServiceUnavailable
	default:
		s.Log.Error("cannot say who a visitor is", "error", err)
	}
	http.Error(w, http.StatusText(status), status)
}

// LocalPath is to if it is a path of the same origin, with a query perhaps, that no browser and no proxy could take for
// another origin's address.
func LocalPath(to string) (path string, ok bool) {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "" || u.Host != "" || u.Opaque != "" || u.User != nil {
		return "", false
	}
	for _, form := range []string{to, u.Path} { // as it stands, and decoded
		if !strings.HasPrefix(form, "/") || strings.HasPrefix(form, "//") || strings.ContainsRune(form, '\\') ||
			strings.ContainsFunc(form, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			return "", false
		}
	}
	return to, true
}

// origin is the portal's scheme and host as the visitor sees it.
func (s *SSO) origin(r *http.Request) string {
	c := s.Config()
	switch {
	case c.Origin != "":
		return c.Origin
	case c.Secure || r.Header.Get("X-Forwarded-Proto") == "https": // which the gateway says
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// atPortal says whether r asks the portal's own host name: then the portal's cookie is here.
func (s *SSO) atPortal(r *http.Request) bool {
	u, err := url.Parse(s.Config().Origin)
	return err == nil && (u.Host == "" || session.Host(u.Host) == session.Host(r.Host))
}
