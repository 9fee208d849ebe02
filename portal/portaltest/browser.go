package portaltest

import (
	"io"
	"mime"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"allotment/portal/session"
)

// Browser is a browser without scripts: it keeps cookies and follows links and forms.
type Browser struct {
	t      testing.TB
	portal *Portal
	client *http.Client

	Session  session.Session // of LogIn
	Language string          // that pages are asked for; empty: the portal's choice
}

// Page is what a browser shows.
type Page struct {
	Status int
	Header http.Header
	Path   string // where redirects have led to, with the query
	Text   string
	Root   *html.Node // nil if it is no HTML
}

// Stranger is a browser in which nobody is logged in. It does not follow redirects.
func (p *Portal) Stranger(t testing.TB) *Browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &Browser{t: t, portal: p, client: &http.Client{Jar: jar,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// LogIn is a browser in which a person has just logged in by a passkey.
func (p *Portal) LogIn(t testing.TB, person string) *Browser {
	t.Helper()
	b := p.Stranger(t)
	at, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", p.URL+"/portal/", nil)
	w := httptest.NewRecorder()
	if b.Session, err = p.Deps().Sessions.Begin(w, r, person, session.Passkey); err != nil {
		t.Fatal(err)
	}
	b.client.Jar.SetCookies(at, w.Result().Cookies())
	return b
}

// Get asks for a page.
func (b *Browser) Get(path string) *Page {
	b.t.Helper()
	r, err := http.NewRequest("GET", b.portal.URL+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.Do(r)
}

// Post sends a form as it is given.
func (b *Browser) Post(path string, values url.Values) *Page {
	b.t.Helper()
	r, err := http.NewRequest("POST", b.portal.URL+path, strings.NewReader(values.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.Do(r)
}

// Token is what forms of this browser bring along.
func (b *Browser) Token() string {
	b.t.Helper()
	page := b.Get("/portal/nothing")
	for n := range page.All("input") {
		if Attr(n, "name") == "form_token" {
			return Attr(n, "value")
		}
	}
	b.t.Fatal("the page has no form")
	return ""
}

// Send sends a form with its token, and follows where it leads.
func (b *Browser) Send(path string, fields ...string) *Page {
	b.t.Helper()
	values := url.Values{"form_token": {b.Token()}}
	for i := 0; i+1 < len(fields); i += 2 {
		values.Add(fields[i], fields[i+1])
	}
	return b.Follow(b.Post(path, values))
}

// Follow goes where a page leads by redirects.
func (b *Browser) Follow(page *Page) *Page {
	b.t.Helper()
	for range 5 {
		to := page.Header.Get("Location")
		if to == "" {
			return page
		}
		page = b.Get(to)
	}
	b.t.Fatalf("redirects do not end, at %s", page.Path)
	return nil
}

// Do sends a request.
func (b *Browser) Do(r *http.Request) *Page {
	b.t.Helper()
	if b.Language != "" {
		r.Header.Set("Accept-Language", b.Language)
	}
	resp, err := b.client.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	page := &Page{Status: resp.StatusCode, Header: resp.Header, Path: r.URL.RequestURI(), Text: string(body)}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind == "text/html" && len(body) > 0 {
		if page.Root, err = html.Parse(strings.NewReader(page.Text)); err != nil {
			b.t.Fatal(err)
		}
	}
	return page
}

// Says tells whether the page's words contain some.
func (p *Page) Says(words string) bool { return strings.Contains(p.Words(), words) }

// Words is the text that a reader sees, with single spaces.
func (p *Page) Words() string {
	var b strings.Builder
	if p.Root == nil {
		return p.Text
	}
	for n := range p.Root.Descendants() {
		if n.Type == html.TextNode && !slices.Contains([]string{"script", "style"}, n.Parent.Data) {
			b.WriteString(n.Data + " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// All are the page's elements with one of the names.
func (p *Page) All(names ...string) func(yield func(*html.Node) bool) {
	return func(yield func(*html.Node) bool) {
		if p.Root == nil {
			return
		}
		for n := range p.Root.Descendants() {
			if n.Type == html.ElementNode && slices.Contains(names, n.Data) && !yield(n) {
				return
			}
		}
	}
}

// Attr is an element's attribute, or empty.
func Attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}
