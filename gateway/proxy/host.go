package proxy

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"allotment/gateway"
	"allotment/gateway/certs"
)

// Paths that lead to the portal, and those that the gateway answers.
const (
	portalPath    = "/portal"
	ssoPath       = "/.well-known/allotment/sso"
	wellKnownPath = "/.well-known"
)

// portalTarget stands for the portal's socket in URLs; the name can never be found by DNS (RFC 6761).
var portalTarget = &url.URL{Scheme: "http", Host: "portal.invalid"}

// hostOf is the name or address that a visitor asked for, without port, in lower case.
func hostOf(r *http.Request) string {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return certs.Normal(strings.Trim(host, "[]"))
}

// nobodys tells whether a host name or address is one that anybody may give to a box without asking: addresses, and
// names of home networks and of the box's own inside.
func nobodys(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	for _, top := range []string{"localhost", "local", "internal"} {
		if host == top || strings.HasSuffix(host, "."+top) {
			return true
		}
	}
	return false
}

// below tells whether a path is prefix or below it.
func below(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || rest[0] == '/')
}

// secured sends visitors from HTTP to HTTPS if the name has a certificate that browsers trust, and tells browsers to
// stay there.
func (g *Gateway) secured(w http.ResponseWriter, r *http.Request, host string) (done bool) {
	trust := g.trust(host)
	if !trust.Public {
		return false
	}
	if r.TLS == nil {
		w.Header().Set("Cache-Control", "max-age=3600")
		redirect(w, http.StatusPermanentRedirect, "https://"+hostText(host)+r.URL.RequestURI())
		return true
	}
	// A day, until the name's certificate has been renewed once: a mistake of the first days must not lock visitors
	// out for long.
	age := "max-age=86400"
	if trust.Renewed {
		age = "max-age=31536000"
	}
	w.Header().Set("Strict-Transport-Security", age)
	if g.quicPort != "" && r.ProtoMajor < 3 {
		w.Header().Set("Alt-Svc", `h3=":`+g.quicPort+`"; ma=86400`)
	}
	return false
}

func (g *Gateway) trust(host string) certs.Trust {
	if g.keeper == nil {
		return certs.Trust{}
	}
	return g.keeper.Trust(host)
}

// hostText is a host as URLs have it.
func hostText(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// toPortal sends visitors to the portal's own name. Addresses, and names that need no DNS, keep the portal at hand by HTTPS: so
// officers come while the portal's name does not work. By HTTP nobody can log in once there is that name, as the cookies want
// HTTPS, and old bookmarks and links lead to it.
func (g *Gateway) toPortal(w http.ResponseWriter, r *http.Request, t *table, host string) (done bool) {
	switch {
	case t.portal == nil || t.portalHost == "":
		return false
	case host == t.portalHost && r.URL.Path == "/":
		redirect(w, http.StatusFound, portalPath+"/")
		return true
	case host == t.portalHost || nobodys(host) && r.TLS != nil || !below(r.URL.Path, portalPath):
		return false
	}
	redirect(w, http.StatusTemporaryRedirect, g.there(r, t.portalHost))
	return true
}

// toDomain sends visitors of www.DOMAIN to the domain: one page has one address.
func (g *Gateway) toDomain(w http.ResponseWriter, r *http.Request, t *table, host string) (done bool) {
	if t.domain == "" || host != "www."+t.domain {
		return false
	}
	redirect(w, http.StatusPermanentRedirect, g.there(r, t.domain))
	return true
}

// there is the address of the same page on another of our names: by HTTPS, if the visitor came by it or will trust that name.
func (g *Gateway) there(r *http.Request, name string) string {
	scheme := "http"
	if r.TLS != nil || g.trust(name).Public {
		scheme = "https"
	}
	return scheme + "://" + name + r.URL.RequestURI()
}

// redirect sends visitors on. Unlike http.Redirect it takes the address as it is.
func redirect(w http.ResponseWriter, status int, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(status)
}

// answered tells whether the gateway itself has answered, for what is the same on all its names.
func (g *Gateway) answered(w http.ResponseWriter, r *http.Request, t *table) bool {
	switch {
	case r.URL.Path == gateway.HealthPath:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.Write(t.health)
	case g.keeper == nil:
		return false
	case r.URL.Path == gateway.AuthorityPath:
		w.Header().Set("Content-Type", "application/x-x509-ca-cert")
		w.Header().Set("Content-Disposition", `attachment; filename="allotment-authority.crt"`)
		w.Write(g.keeper.Authority())
	default:
		answer, ok := g.keeper.Challenge(r.URL.Path)
		if ok && r.TLS == nil {
			w.Header().Set("Content-Type", "application/octet-stream")
			io.WriteString(w, answer)
		}
		return ok && r.TLS == nil
	}
	return true
}
