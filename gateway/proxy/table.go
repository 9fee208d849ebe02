package proxy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"allotment/gateway"
	"allotment/gateway/certs"
)

// route is a Route that was checked.
type route struct {
	gateway.Route
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

// table is a configuration that was checked.
type table struct {
	routes     []route // those for some hosts first, then those with longer paths
	portal     *route  // nil: there is none
	socket     string  // of the portal
	portalHost string
	domain     string          // of the organisation; empty: it has none
	names      map[string]bool // hosts that are known; nil: all are
	health     []byte          // the answer at HealthPath
}

func newTable(c gateway.Config) (*table, error) {
	health, err := json.Marshal(gateway.Health{Status: "ok", Config: c.Digest()})
	if err != nil {
		return nil, err
	}
	t := &table{health: append(health, '\n'), portalHost: certs.Normal(c.PortalHost), domain: certs.Normal(c.Domain)}
	for _, r := range c.Routes {
		one, err := newRoute(r)
		if err != nil {
			return nil, err
		}
		t.routes = append(t.routes, one)
	}
	slices.SortStableFunc(t.routes, func(a, b route) int {
		return cmp.Or(cmp.Compare(min(len(b.Hosts), 1), min(len(a.Hosts), 1)), cmp.Compare(len(b.prefix), len(a.prefix)))
	})
	if c.Portal == "" {
		return t, nil
	}
	socket, ok := strings.CutPrefix(c.Portal, "unix:")
	if !ok || !filepath.IsAbs(socket) {
		return nil, fmt.Errorf("cannot use the portal at %q: want unix:PATH", c.Portal)
	}
	t.socket = socket
	t.portal = &route{Route: gateway.Route{Path: portalPath, Title: "The portal", Ready: true}, target: portalTarget}
	if t.portalHost != "" {
		t.names = map[string]bool{t.portalHost: true}
		for _, n := range c.Names {
			t.names[certs.Normal(n)] = true
		}
		for _, r := range t.routes {
			for _, h := range r.Hosts {
				t.names[h] = true
			}
		}
	}
	return t, nil
}

func newRoute(r gateway.Route) (route, error) {
	u, err := url.Parse(r.Target)
	if err != nil || u.Scheme != "http" || u.Host == "" || strings.TrimPrefix(u.Path, "/") != "" {
		return route{}, fmt.Errorf("cannot route %q to %q: want http://HOST:PORT", r.Path, r.Target)
	}
	if !strings.HasPrefix(r.Path, "/") {
		return route{}, fmt.Errorf("cannot route %q: want a path that begins with /", r.Path)
	}
	prefix := strings.TrimSuffix(r.Path, "/")
	if prefix == "" {
		r.Strip = false // there is nothing to take off
	}
	r.Hosts = slices.Clone(r.Hosts)
	for i, h := range r.Hosts {
		r.Hosts[i] = certs.Normal(h)
	}
	return route{r, u, prefix}, nil
}

// knows tells whether a host is one of the box's. Before it has names of its own, it takes all that lead to it for
// its own.
func (t *table) knows(host string) bool { return t.names == nil || t.names[host] || nobodys(host) }

// find returns the route of a module: the one with the longest prefix of path among those for the host, or else among
// those for all hosts; nil if there is none. The portal's own host has no modules.
func (t *table) find(host, path string) *route {
	if t.portal != nil && (below(path, ssoPath) || below(path, portalPath)) {
		return t.portal
	}
	if t.portal != nil && host == t.portalHost && host != "" {
		if below(path, wellKnownPath) {
			return t.portal
		}
		return nil
	}
	for i := range t.routes {
		r := &t.routes[i]
		if below(path, r.prefix) && (len(r.Hosts) == 0 || slices.Contains(r.Hosts, host)) {
			return r
		}
	}
	return nil
}
