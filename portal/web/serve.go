package web

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"allotment/api"
	"allotment/portal/directory"
	"allotment/portal/session"
)

// ServeHTTP answers one request.
func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// serve does for every route, in this order, what must be done before its handler may answer. Route is nil for what is
// nowhere.
func (s *Site) serve(w http.ResponseWriter, h *http.Request, route *Route) {
	r := &Request{Deps: s.deps, HTTP: h, W: w, Route: route, Now: s.deps.Clock(), site: s, Language: fallback}
	r.Form = &Form{values: url.Values{}, text: r.html}
	s.setHeaders(w)
	if route != nil && route.Wire {
		if err := route.Handle(r); err != nil {
			http.Error(w, http.StatusText(problemOf(err).Status), problemOf(err).Status)
		}
		return
	}
	err := r.visitor()
	r.chooseLanguage()
	if err == nil {
		err = r.handle()
	}
	if err != nil {
		r.fail(err)
	}
}

// handle is what comes after the visitor is known.
func (r *Request) handle() error {
	switch moved, err := r.elsewhere(); {
	case err != nil || moved:
		return err
	case r.Route == nil:
		return ErrNotFound
	case r.Unclaimed != nil && r.Unclaimed() && !r.Route.FirstRun:
		return r.Redirect("/portal/first/")
	case r.access() < r.Route.Access && !r.LoggedIn():
		return r.Redirect("/portal/login?to=" + url.QueryEscape(r.wanted()))
	case r.access() < r.Route.Access && r.tired:
		return r.again()
	case r.access() < r.Route.Access:
		return ErrForbidden
	}
	if r.HTTP.Method == http.MethodPost {
		if err := r.readForm(); err != nil {
			return err
		}
		if !r.fromOurPage() {
			return Fail(http.StatusForbidden, "problem.token")
		}
	}
	if r.Route.Fresh && !r.Now.Before(r.Session.Fresh) {
		return r.again()
	}
	return r.Route.Handle(r)
}

// again asks for the password once more before what needs a fresh login.
func (r *Request) again() error {
	return r.Redirect("/portal/login/again?to=" + url.QueryEscape(r.wanted()))
}

// wanted is the page that the visitor was to see, or the one that the form was on.
func (r *Request) wanted() string {
	if r.HTTP.Method == http.MethodGet {
		return r.HTTP.URL.RequestURI()
	}
	if from, err := url.Parse(r.HTTP.Referer()); err == nil && LocalPath(from.Path) {
		return from.Path
	}
	return "/portal/"
}

// elsewhere leads visitors who came by another host name to the portal's own. By an address of the box, or a name of its own
// network, officers get in also while the domain does not lead here.
func (r *Request) elsewhere() (bool, error) {
	origin, err := url.Parse(r.Config().Origin)
	if err != nil || origin.Host == "" || origin.Host == r.HTTP.Host || r.HTTP.Method != http.MethodGet || local(r.HTTP.Host) {
		return false, nil
	}
	http.Redirect(r.W, r.HTTP, r.Config().Origin+r.HTTP.URL.RequestURI(), http.StatusTemporaryRedirect)
	return true, nil
}

// local tells whether a host, with or without a port, is an address or a name that only its own network knows.
func local(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	return host == "localhost" || strings.HasSuffix(host, ".local") || strings.HasSuffix(host, ".internal")
}

// access is the class that the visitor has.
func (r *Request) access() api.Access {
	switch {
	case r.Officer:
		return api.Officer
	case r.LoggedIn():
		return api.Member
	}
	return api.Public
}

// visitor finds who has the session of this browser. Whoever was deactivated has none.
func (r *Request) visitor() error {
	found, err := r.Sessions.Find(r.HTTP)
	if errors.Is(err, session.ErrNone) {
		return nil
	}
	if err != nil {
		return err
	}
	p, err := r.Directory.Person(r.HTTP.Context(), found.Person)
	if errors.Is(err, directory.ErrNotFound) || err == nil && !p.Active {
		return nil
	}
	if err != nil {
		return err
	}
	r.Session, r.Person = found, p
	r.HTTP = r.HTTP.WithContext(api.WithActor(r.HTTP.Context(), p.Name))
	r.Officer, err = r.Directory.HoldsOffice(r.HTTP.Context(), p.Name, r.Now)
	if r.Officer && !r.Now.Before(found.Powers) {
		r.Officer, r.tired = false, true
	}
	if r.Officer && r.Reached != nil {
		r.Reached(r.Origin())
	}
	return err
}

func (r *Request) chooseLanguage() {
	r.Language = r.site.messages.choose(chosen(r.HTTP), r.Person.Language, r.HTTP.Header.Get("Accept-Language"))
}

// readForm reads what was sent. Files stay in memory: the limit is small.
func (r *Request) readForm() error {
	limit := r.Route.Body
	if limit == 0 {
		limit = bodyLimit
	}
	r.HTTP.Body = http.MaxBytesReader(r.W, r.HTTP.Body, limit)
	var err error
	switch mediaType, _, _ := strings.Cut(r.HTTP.Header.Get("Content-Type"), ";"); mediaType {
	case "multipart/form-data":
		err = r.HTTP.ParseMultipartForm(2 * limit)
	case "application/x-www-form-urlencoded":
		err = r.HTTP.ParseForm()
	case "application/json": // the handler reads it
		return nil
	default:
		return Fail(http.StatusUnsupportedMediaType, "problem.form")
	}
	var large *http.MaxBytesError
	if err != nil && !errors.As(err, &large) {
		return &Problem{Status: http.StatusBadRequest, Key: "problem.form", Err: err}
	}
	r.Form.values = r.HTTP.PostForm
	return err
}

// Client is the address of the visitor.
func (r *Request) Client() string { return session.Client(r.HTTP) }

func (s *Site) setHeaders(w http.ResponseWriter) {
	targets := "'self'" // browsers look at where a form's answer leads to, too
	c := s.deps.Config()
	if c.Secure && c.Domain != "" {
		targets += " https://" + c.Domain + " https://*." + c.Domain
	}
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "+
		"base-uri 'none'; frame-ancestors 'none'; form-action "+targets)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}
