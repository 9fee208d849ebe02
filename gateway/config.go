// Package gateway is the one door of the box: an HTTP reverse proxy that forwards to the modules by path prefix. It
// runs as an unprivileged process; the supervisor gives it the listening socket and tells it by a file where the
// modules are.
package gateway

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
)

// HealthPath is answered by the gateway itself, whatever the modules do.
const HealthPath = "/.well-known/allotment/health"

// Config is what the supervisor tells the gateway; see docs/formats/gateway.md.
type Config struct {
	Routes []Route `json:"routes"`
}

// Route leads requests below a path to a module.
type Route struct {
	Path   string `json:"path"`   // prefix by whole path elements; "/" fits all
	Title  string `json:"title"`  // of the module, for people
	Target string `json:"target"` // URL of scheme http without a path
	Ready  bool   `json:"ready"`  // false: visitors are told to wait, and nothing is forwarded
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
}

// table holds routes, those with longer paths first.
type table []route

func newTable(c Config) (table, error) {
	var t table
	for _, r := range c.Routes {
		u, err := url.Parse(r.Target)
		if err != nil || u.Scheme != "http" || u.Host == "" || strings.TrimPrefix(u.Path, "/") != "" {
			return nil, fmt.Errorf("cannot route %q to %q: want http://HOST:PORT", r.Path, r.Target)
		}
		if !strings.HasPrefix(r.Path, "/") {
			return nil, fmt.Errorf("cannot route %q: want a path that begins with /", r.Path)
		}
		t = append(t, route{r, u})
	}
	slices.SortStableFunc(t, func(a, b route) int { return cmp.Compare(len(b.Path), len(a.Path)) })
	return t, nil
}

// find returns the route with the longest prefix of path, nil if there is none.
func (t table) find(path string) *route {
	for i := range t {
		prefix := strings.TrimSuffix(t[i].Path, "/")
		if rest, ok := strings.CutPrefix(path, prefix); ok && (rest == "" || rest[0] == '/') {
			return &t[i]
		}
	}
	return nil
}
