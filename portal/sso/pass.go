package sso

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"allotment/portal/session"
)

const (
	passTime  = time.Minute      // how long a code of a pass is good
	stateTime = 15 * time.Minute // how long a visitor may take to log in
)

// pass lets one browser take a session along to one host name.
type pass struct {
	session string
	host    string
	state   string // hash of the cookie that the browser has there
	to      string
}

// login brings a visitor who must log in at the host name that she asks to the portal, and back to the path in "to".
// Whoever is logged in and may not use the module in "module" is led to what she may use: no module can send her round.
func (s *SSO) login(w http.ResponseWriter, r *http.Request) {
	to, ok := LocalPath(r.FormValue("to"))
	if !ok {
		to = "/"
	}
	if found, err := s.Sessions.Find(r); err == nil {
		_, err := s.visitor(r.Context(), found, r.FormValue("module"))
		switch {
		case errors.Is(err, errDenied):
			s.home(w, r)
		case err != nil:
			s.refuse(w, err)
		default:
			http.Redirect(w, r, to, http.StatusSeeOther)
		}
		return
	}
	if s.atPortal(r) {
		back := PassPath + "login?" + url.Values{"to": {to}, "module": {r.FormValue("module")}}.Encode()
		http.Redirect(w, r, loginPage+"?to="+url.QueryEscape(back), http.StatusSeeOther)
		return
	}
	state := rand.Text()
	s.setState(w, state, int(stateTime/time.Second))
	q := url.Values{"host": {r.Host}, "state": {hashState(state)}, "to": {to}}
	http.Redirect(w, r, s.Config().Origin+PassPath+"pass?"+q.Encode(), http.StatusSeeOther)
}

// home leads a visitor to the portal's first page, where it goes on in her language: what she came with is of no use.
func (s *SSO) home(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, s.origin(r)+"/portal/", http.StatusSeeOther)
}

// pass, at the portal's host name, sends a visitor back to another host name with a code for one use.
func (s *SSO) pass(w http.ResponseWriter, r *http.Request) {
	host, state := r.FormValue("host"), r.FormValue("state")
	to, ok := LocalPath(r.FormValue("to"))
	target := s.target(host)
	if !ok || target == "" || !s.atPortal(r) || len(state) != 2*sha256.Size {
		http.Error(w, http.StatusText(http.StatusBadRequest), http.StatusBadRequest)
		return
	}
	found, err := s.Sessions.Find(r)
	if err != nil {
		http.Redirect(w, r, loginPage+"?to="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
		return
	}
	if _, err := s.visitor(r.Context(), found, ""); err != nil {
		s.refuse(w, err)
		return
	}
	code := s.passes.Put(pass{found.ID, session.Host(host), state, to})
	http.Redirect(w, r, target+PassPath+"enter?code="+code, http.StatusSeeOther)
}

var hostForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?$`)

// target is the origin of another host name of the box, or "" if host is none: the organisation's domain, or a name
// right below it. Scheme and port are the portal's.
func (s *SSO) target(host string) string {
	c := s.Config()
	u, err := url.Parse(c.Origin)
	if err != nil || u.Host == "" || c.Domain == "" || !hostForm.MatchString(host) {
		return ""
	}
	o := url.URL{Scheme: u.Scheme, Host: host}
	label, below := strings.CutSuffix(o.Hostname(), "."+c.Domain)
	ours := o.Hostname() == c.Domain || below && label != "" && !strings.Contains(label, ".")
	if !ours || o.Port() != u.Port() {
		return ""
	}
	return o.String()
}

// enter, at the other host name, takes the code: in the browser alone that began there.
func (s *SSO) enter(w http.ResponseWriter, r *http.Request) {
	p, ok := s.passes.Take(r.FormValue("code"))
	if !ok || p.host != session.Host(r.Host) || !s.hasState(r, p.state) {
		s.home(w, r)
		return
	}
	value, err := s.Sessions.Pass(p.session, p.host)
	if err != nil {
		s.refuse(w, err)
		return
	}
	s.Sessions.SetCookie(w, value)
	http.Redirect(w, r, p.to, http.StatusSeeOther)
}

// logout ends the session everywhere, and leads to the path in "to". Another site, or a picture in a page, cannot do it.
func (s *SSO) logout(w http.ResponseWriter, r *http.Request) {
	to, ok := LocalPath(r.FormValue("to"))
	if !ok {
		to = "/"
	}
	site, mode := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Sec-Fetch-Mode")
	if site == "cross-site" || mode != "" && mode != "navigate" {
		s.refuse(w, errDenied)
		return
	}
	if found, err := s.Sessions.Find(r); err == nil {
		if err := s.Sessions.End(found.ID); err != nil {
			s.refuse(w, err)
			return
		}
	}
	s.Sessions.ClearCookie(w)
	http.Redirect(w, r, to, http.StatusSeeOther)
}

func hashState(state string) string {
	sum := sha256.Sum256([]byte(state))
	return hex.EncodeToString(sum[:])
}

// stateCookie is the name of the cookie with a state whose hash begins so: each tab of a browser has its own.
func (s *SSO) stateCookie(hash string) string {
	name := session.CookiePlain + "-state-" + hash[:8]
	if s.Config().Secure {
		return "__Host-" + name
	}
	return name
}

func (s *SSO) setState(w http.ResponseWriter, state string, maxAge int) {
	http.SetCookie(w, &http.Cookie{Name: s.stateCookie(hashState(state)), Value: state, Path: "/", MaxAge: maxAge,
		Secure: s.Config().Secure, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

func (s *SSO) hasState(r *http.Request, hash string) bool {
	c, err := r.Cookie(s.stateCookie(hash))
	return err == nil && subtle.ConstantTimeCompare([]byte(hashState(c.Value)), []byte(hash)) == 1
}
