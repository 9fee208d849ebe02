package web

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
)

// A form counts only if it came from one of our pages. Browsers of these years say so (Sec-Fetch-Site, Origin); beside that
// each form has a token, made of the visitor's cookie and of her session.

// TokenField is the name of the token's field; scripts send it in header TokenHeader.
const (
	TokenField  = "form_token"
	TokenHeader = "X-Form-Token"
)

// Names of cookies begin with portal-, by which the gateway knows what it must not hand to modules.
const (
	visitorCookie = "portal-visitor"
	noticeCookie  = "portal-notice"
)

// cookieName is the name of a cookie that no other host can set, where browsers come by HTTPS (RFC 6265bis 4.1.3.2).
func cookieName(name string, secure bool) string {
	if secure {
		return "__Host-" + name
	}
	return name
}

func (s *Site) cookie(name, value string, seconds int) *http.Cookie {
	secure := s.deps.Config().Secure
	return &http.Cookie{Name: cookieName(name, secure), Value: value, Path: "/", MaxAge: seconds, Secure: secure,
		HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

func (s *Site) readCookie(r *http.Request, name string) string {
	c, err := r.Cookie(cookieName(name, s.deps.Config().Secure))
	if err != nil {
		return ""
	}
	return c.Value
}

// sign is a message authentication code of parts, which contain no newline.
func (s *Site) sign(parts ...string) string {
	h := hmac.New(sha256.New, s.key)
	h.Write([]byte(strings.Join(parts, "\n")))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// Token is what this visitor's forms must bring along. It sets the cookie that it needs.
func (r *Request) Token() string {
	visitor := r.site.readCookie(r.HTTP, visitorCookie)
	if len(visitor) < 20 {
		visitor = rand.Text()
		c := r.site.cookie(visitorCookie, visitor, 0)
		r.HTTP.AddCookie(c) // for the page's further forms
		http.SetCookie(r.W, c)
	}
	return r.site.sign("form", visitor, r.Session.ID)
}

// fromOurPage tells whether a form that was sent came from one of our pages.
func (r *Request) fromOurPage() bool {
	if r.site.origins.Check(r.HTTP) != nil {
		return false
	}
	got := r.HTTP.Header.Get(TokenHeader)
	if got == "" {
		got = r.Form.Value(TokenField)
	}
	visitor := r.site.readCookie(r.HTTP, visitorCookie)
	return visitor != "" && hmac.Equal([]byte(got), []byte(r.site.sign("form", visitor, r.Session.ID)))
}

// setNotice keeps a text for the visitor's next page.
func (s *Site) setNotice(r *Request, text string) {
	v := base64.RawURLEncoding.EncodeToString([]byte(text))
	http.SetCookie(r.W, s.cookie(noticeCookie, v+"."+s.sign("notice", v), 60))
}

// takeNotice is the text of the page before, which is said once.
func (s *Site) takeNotice(r *Request) string {
	v, mac, ok := strings.Cut(s.readCookie(r.HTTP, noticeCookie), ".")
	if !ok {
		return ""
	}
	http.SetCookie(r.W, s.cookie(noticeCookie, "", -1))
	text, err := base64.RawURLEncoding.DecodeString(v)
	if err != nil || !hmac.Equal([]byte(mac), []byte(s.sign("notice", v))) {
		return ""
	}
	return string(text)
}
