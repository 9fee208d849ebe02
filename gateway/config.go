// Package gateway is the one door of the box: an HTTP reverse proxy that forwards to the modules by path prefix. It
// runs as an unprivileged process; the supervisor gives it the listening socket and tells it by a file where the
// modules are.
package gateway

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"allotment/image"
)

// HealthPath is answered by the gateway itself, whatever the modules do, with a Health.
const HealthPath = "/.well-known/allotment/health"

// Health is the gateway's answer at HealthPath, in JSON.
type Health struct {
	Status string `json:"status"` // ok
	Config string `json:"config"` // digest of the Config that it follows
}

// Config is what the supervisor tells the gateway; see docs/formats/gateway.md.
type Config struct {
	Routes      []Route             `json:"routes"`
	Names       []string            `json:"names,omitempty"`        // host names and addresses of the box, for certificates
	Portal      string              `json:"portal,omitempty"`       // unix:PATH of the portal's socket; empty: there is none
	PortalHost  string              `json:"portal_host,omitempty"`  // the portal's own host name; empty: it has none yet
	Data        string              `json:"data,omitempty"`         // folder for keys and certificates; empty: no TLS
	ModuleNames map[string][]string `json:"module_names,omitempty"` // module: the names of its certificate in Data/modules
	ACME        ACME                `json:"acme,omitzero"`
	DNS         []string            `json:"dns,omitempty"` // addresses of name servers, by which ACME.Directory is found
}

// ACME says who issues publicly trusted certificates (RFC 8555).
type ACME struct {
	Directory string `json:"directory,omitempty"` // URL; empty: nobody does
	Email     string `json:"email,omitempty"`     // of the account; may be empty
	Root      string `json:"root,omitempty"`      // PEM file to trust for Directory instead of the usual ones, for tests
}

// How a module is told who a visitor is; see Route.SSO.
const (
	SSOHeader = "header" // by X-Remote-User and its kind
	SSOBasic  = "basic"  // by Authorization: Basic with an app password, unless the client sends its own
)

// Digest is the SHA-256 of the configuration in hex digits. The gateway answers it at HealthPath.
func (c Config) Digest() string {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // texts and switches can always be written
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Route leads requests below a path to a module.
type Route struct {
	Hosts  []string `json:"hosts,omitempty"`  // host names that it is for; empty: every name of the box but the portal's
	Path   string   `json:"path"`             // prefix by whole path elements; "/" fits all
	Title  string   `json:"title"`            // of the module, for people
	Target string   `json:"target"`           // URL of scheme http without a path
	Ready  bool     `json:"ready"`            // false: visitors are told to wait, and nothing is forwarded
	Strip  bool     `json:"strip"`            // the module gets paths without the prefix, and the prefix as X-Script-Name
	Module string   `json:"module,omitempty"` // its name
	SSO    string   `json:"sso,omitempty"`    // SSOHeader, SSOBasic, or anything else: the module is told nothing
}

// Routes are those of one module's web endpoint at target.
func Routes(h *image.HTTP, title, target string, ready bool) []Route {
	all := []Route{{Path: h.Path, Title: title, Target: target, Ready: ready, Strip: h.Strip}}
	for _, path := range h.Also {
		all = append(all, Route{Path: path, Title: title, Target: target, Ready: ready})
	}
	return all
}

// ReadConfig reads the file at path.
func ReadConfig(path string) (Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("cannot read the gateway's configuration: %w", err)
	}
	var c Config
	if err := json.Unmarshal(b, &c); err != nil {
		return Config{}, fmt.Errorf("cannot read the gateway's configuration %q: %w", path, err)
	}
	return c, nil
}

// route is a Route that was checked.
type route struct {
	Route
	target *url.URL
	prefix string // the path without a slash at its end
}

// plain tells whether a path can be stripped: its prefix must not be written with escapes, as no browser does.
func (r *route) plain(u *url.URL) bool {
	return !r.Strip || u.RawPath == "" || strings.HasPrefix(u.RawPath, r.prefix)
}

// strip takes the prefix off. What is left begins with one slash: a module could take two for another host.
func (r *route) strip(u *url.URL) {
	u.Path = "/" + strings.TrimLeft(strings.TrimPrefix(u.Path, r.prefix), "/")
	if u.RawPath != "" {
		u.RawPath = "/" + strings.TrimLeft(strings.TrimPrefix(u.RawPath, r.prefix), "/")
	}
}

// table holds routes, those with longer paths first.
type table struct {
	routes []route
	health []byte // the answer at HealthPath
}

func newTable(c Config) (*table, error) {
	health, err := json.Marshal(Health{"ok", c.Digest()})
	if err != nil {
		return nil, err
	}
	t := &table{health: append(health, '\n')}
	for _, r := range c.Routes {
		u, err := url.Parse(r.Target)
		if err != nil || u.Scheme != "http" || u.Host == "" || strings.TrimPrefix(u.Path, "/") != "" {
			return nil, fmt.Errorf("cannot route %q to %q: want http://HOST:PORT", r.Path, r.Target)
		}
		if !strings.HasPrefix(r.Path, "/") {
			return nil, fmt.Errorf("cannot route %q: want a path that begins with /", r.Path)
		}
		prefix := strings.TrimSuffix(r.Path, "/")
		if prefix == "" {
			r.Strip = false // there is nothing to take off
		}
		t.routes = append(t.routes, route{r, u, prefix})
	}
	slices.SortStableFunc(t.routes, func(a, b route) int { return cmp.Compare(len(b.prefix), len(a.prefix)) })
	return t, nil
}

// find returns the route with the longest prefix of path, nil if there is none.
func (t *table) find(path string) *route {
	for i := range t.routes {
		r := &t.routes[i]
		if rest, ok := strings.CutPrefix(path, r.prefix); ok && (rest == "" || rest[0] == '/') {
			return r
		}
	}
	return nil
}
