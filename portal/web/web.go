// Package web is what every page of the portal needs: routes with access classes, the layout, languages, forms, and the
// checks that stand before every handler. docs/portal.md tells how to write a page.
package web

import (
	"crypto/rand"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"allotment/api"
	"allotment/portal/audit"
	"allotment/portal/config"
	"allotment/portal/directory"
	"allotment/portal/login"
	"allotment/portal/mail"
	"allotment/portal/onboard"
	"allotment/portal/sentence"
	"allotment/portal/session"
	"allotment/portal/store"
)

// Deps is what handlers work with.
type Deps struct {
	Config       func() config.Config
	Organisation func() string       // its name, as people say it
	Unclaimed    func() bool         // there is no officer yet: only pages of the first run are open; nil: never
	Reached      func(origin string) // is told by which address an officer has come, who can be believed; nil: nobody asks
	Directory    *directory.Directory
	DB           *store.DB
	Audit        *audit.Log
	Sessions     *session.Sessions
	Login        *login.Login
	Mail         *mail.Queue
	Onboard      *onboard.Service
	Box          *api.Client
	Clock        func() time.Time
	Log          *slog.Logger
}

// Record writes into the audit log that the visitor did something. What happened has happened: an error is only logged.
func (r *Request) Record(kind, subject string, args map[string]string) {
	err := r.Audit.Record(audit.Entry{Actor: r.Person.Name, Kind: kind, Subject: subject, Args: args})
	if err != nil {
		r.Log.Error("cannot record", "kind", kind, "subject", subject, "error", err)
	}
}

// Route is a page, or a form that is sent.
type Route struct {
	Method   string // GET or POST
	Path     string // as of net/http.ServeMux, below /portal/
	Access   api.Access
	Does     string               // for docs and tests
	Handle   func(*Request) error // answers; its error becomes a page
	Body     int64                // bytes that may be sent; zero: 64 KiB
	Fresh    bool                 // asks for the password again where that was long ago
	FirstRun bool                 // open before there is an officer
	Wire     bool                 // answers to programs: errors without a layout, no languages

	section *Section
}

// Pattern is the route as net/http.ServeMux takes it.
func (r Route) Pattern() string { return r.Method + " " + r.Path }

// Link leads to a page.
type Link struct {
	Path    string
	Key     string // of the message that is its text
	Access  api.Access
	Current bool // the visitor is there, or below
}

// Section is the pages of one package: routes, templates in pages/*.html, messages in messages/LANGUAGE.toml, and the links
// by which visitors find them: the first stands at the top of every page, all of them on the section's pages.
type Section struct {
	Name   string
	Routes []Route
	Menu   []Link
	Files  fs.FS // may be nil
}

// Site is the portal's pages.
type Site struct {
	deps     Deps
	sections []*Section
	messages Messages
	// sentences are the catalogues of what the box says, by language; English needs none.
	sentences map[string]*sentence.Catalogue
	pages     map[string]pages
	mux       *http.ServeMux
	key       []byte // signs tokens of forms; new at each start
	origins   *http.CrossOriginProtection
}

const ownSection = "web"

// bodyLimit is what a form may have, in bytes, where its route says nothing else.
const bodyLimit = 64 << 10

func ownRoutes() []Route {
	return []Route{
		{Method: "GET", Path: "/-/health", Access: api.Public, Does: "whether the portal answers", Handle: health, FirstRun: true, Wire: true},
		{Method: "GET", Path: "/portal/assets/{name}", Access: api.Public, Does: "style, script and picture of all pages", Handle: asset,
			FirstRun: true, Wire: true},
		{Method: "POST", Path: "/portal/language", Access: api.Public, Does: "choose a language", Handle: setLanguage, FirstRun: true},
	}
}

// New puts sections together, in the order of their links. It fails if a page is no template or names a message that is not
// there.
func New(deps Deps, sections ...Section) (*Site, error) {
	key := make([]byte, 32)
	rand.Read(key)
	s := &Site{deps: deps, mux: http.NewServeMux(), key: key, origins: http.NewCrossOriginProtection()}
	files := []fs.FS{}
	for _, section := range append([]Section{{Name: ownSection, Routes: ownRoutes(), Files: own}}, sections...) {
		s.sections = append(s.sections, &section)
		if section.Files != nil {
			files = append(files, section.Files)
		}
	}
	var err error
	if s.messages, err = ReadMessages(files...); err != nil {
		return nil, err
	}
	if err := s.readSentences(); err != nil {
		return nil, err
	}
	if err := s.parse(); err != nil {
		return nil, err
	}
	for _, section := range s.sections {
		for i := range section.Routes {
			route := &section.Routes[i]
			route.section = section
			if route.Access > api.Officer || route.Method != "GET" && route.Method != "POST" {
				return nil, fmt.Errorf("cannot serve %s for %s", route.Pattern(), route.Access)
			}
			s.mux.HandleFunc(route.Pattern(), func(w http.ResponseWriter, h *http.Request) { s.serve(w, h, route) })
		}
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, h *http.Request) { s.serve(w, h, nil) })
	return s, nil
}

// Handle adds a handler that does its own checks, such as that of package sso.
func (s *Site) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

// Routes are the routes of all sections.
func (s *Site) Routes() []Route {
	var all []Route
	for _, section := range s.sections {
		all = append(all, section.Routes...)
	}
	return all
}

// Messages are the words of all pages.
func (s *Site) Messages() Messages { return s.messages }

// menu are the first links of all sections that the visitor may see.
func (s *Site) menu(r *Request, sections []*Section) []Link {
	var top []Link
	for _, section := range sections {
		if len(section.Menu) == 0 {
			continue
		}
		link := section.Menu[0]
		link.Current = r.Route != nil && r.Route.section == section
		top = append(top, link)
	}
	return visible(r, top)
}

// links are those of one section that the visitor may see; that with the longest path above the visitor's is current.
func (s *Site) links(r *Request, menu []Link) []Link {
	best := -1
	links := visible(r, menu)
	for i, l := range links {
		at := r.HTTP.URL.Path
		if (at == l.Path || strings.HasPrefix(at, strings.TrimSuffix(l.Path, "/")+"/")) && (best < 0 || len(l.Path) > len(links[best].Path)) {
			best = i
		}
	}
	if best >= 0 {
		links[best].Current = true
	}
	return links
}

func visible(r *Request, links []Link) []Link {
	var seen []Link
	for _, l := range links {
		if l.Access <= r.access() {
			seen = append(seen, l)
		}
	}
	return seen
}
