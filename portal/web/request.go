package web

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"allotment/portal/directory"
	"allotment/portal/session"
)

// Request is one visit of a page or one form that was sent: who, what, and how to answer.
type Request struct {
	Deps
	HTTP     *http.Request
	W        http.ResponseWriter
	Route    *Route
	Session  session.Session  // the zero value if nobody is logged in
	Person   directory.Person // whose session it is
	Officer  bool             // she holds an office now
	Language string           // BCP 47, one that there are messages for
	Form     *Form            // empty but for forms that were sent
	Now      time.Time
	Status   int // of the page; zero: 200, or 422 where the form has something wrong

	site  *Site
	done  string
	tired bool // she holds an office, but used its powers too long ago
}

// Context ends when the visitor goes away; what is asked of the box with it is asked in her name.
func (r *Request) Context() context.Context { return r.HTTP.Context() }

// LoggedIn tells whether somebody is.
func (r *Request) LoggedIn() bool { return r.Person.Name != "" }

// Path is what a part in braces of the route's path stands for.
func (r *Request) Path(name string) string { return r.HTTP.PathValue(name) }

// Query is a value of the address after the question mark, up to a line long.
func (r *Request) Query(name string) string {
	s := r.HTTP.URL.Query().Get(name)
	if !utf8.ValidString(s) || len(s) > 4*Line {
		return ""
	}
	return strings.TrimSpace(s)
}

// T is a message in the visitor's language.
func (r *Request) T(key string, args ...any) string {
	return r.site.text(r.Language, key, args...)
}

// Moment is a day in words with the time of day.
func (r *Request) Moment(t time.Time) string {
	return r.site.messages.Moment(r.Language, r.site.local(t))
}

// FixedGroups are those of every organisation; see docs/modules/directory.md. They cannot be removed.
var FixedGroups = []string{"members", "officers"}

// GroupTitle is a group's name as people see it: its own title, or that of the language for those of every organisation.
func (r *Request) GroupTitle(g directory.Group) string {
	switch {
	case g.Title != "" && g.Title != g.Name:
		return g.Title
	case slices.Contains(FixedGroups, g.Name):
		return r.T("group." + g.Name)
	}
	return g.Name
}

// Has tells whether there is a message.
func (r *Request) Has(key string) bool { return r.site.messages.Has(key) }

// Languages are those that there are messages for.
func (r *Request) Languages() []string { return r.site.messages.Languages() }

// Host is the host name, or address, by which the visitor came, with the port if it is not the usual one.
func (r *Request) Host() string { return r.HTTP.Host }

// Origin is the scheme and host of the portal as the visitor sees it, such as https://portal.example.org.
func (r *Request) Origin() string { return r.Login.Origin(r.HTTP) }

// Render writes a page: pages/NAME.html of the route's section, or of package web.
func (r *Request) Render(name string, data any) error {
	b, err := r.site.page(r, name, data)
	if err != nil {
		return err
	}
	status := r.Status
	if status == 0 {
		status = http.StatusOK
		if !r.Form.OK() {
			status = http.StatusUnprocessableEntity
		}
	}
	r.W.Header().Set("Content-Type", "text/html; charset=utf-8")
	r.W.WriteHeader(status)
	_, err = r.W.Write(b)
	return err
}

// Redirect leads the visitor to another page of this host. What is no such page is a mistake in what she sent.
func (r *Request) Redirect(path string) error {
	if !LocalPath(path) {
		return Fail(http.StatusBadRequest, "problem.form")
	}
	http.Redirect(r.W, r.HTTP, path, http.StatusSeeOther)
	return nil
}

// Done leads the visitor to another page, which says what was done, by a message's key.
func (r *Request) Done(path, key string, args ...any) error {
	r.site.setNotice(r, r.T(key, args...))
	return r.Redirect(path)
}

// File offers bytes to be kept as a file.
func (r *Request) File(name, mediaType string, b []byte) error {
	h := r.W.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", name))
	_, err := r.W.Write(b)
	return err
}

// LocalPath tells whether a path leads to a page of ours: it can be a visitor's wish for where to go after something.
func LocalPath(path string) bool {
	if strings.ContainsFunc(path, func(c rune) bool { return c <= ' ' || c == '\\' || c >= 0x7f }) {
		return false
	}
	return strings.HasPrefix(path, "/portal/") || strings.HasPrefix(path, "/.well-known/allotment/sso/")
}

// To is where the visitor wanted to go before she had to do something else, or otherwise a page.
func (r *Request) To(otherwise string) string {
	for _, to := range []string{r.Form.Value("to"), r.Query("to")} {
		if LocalPath(to) {
			return to
		}
	}
	return otherwise
}
