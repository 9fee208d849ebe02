package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Limits bounds what clients can make the gateway hold.
type Limits struct {
	Header       time.Duration // for the request line and headers
	Idle         time.Duration // of a kept connection between requests
	Write        time.Duration // for the client to take each piece of a response
	BodyGrace    time.Duration // after which a request body must have kept up BodyRate on average
	BodyRate     int           // bytes per second
	HeaderBytes  int           // of a request, and of a module's response
	Connections  int           // in all
	PerClient    int           // per IPv4 address or IPv6 /64
	DialModule   time.Duration
	AnswerModule time.Duration // until a module's response headers
	UpgradedIdle time.Duration // of a connection that goes on with another protocol, such as WebSocket
}

// DefaultLimits fit a small box: what a visitor's browser does stays far below them.
func DefaultLimits() Limits {
	return Limits{
		Header: 10 * time.Second, Idle: 2 * time.Minute, Write: time.Minute,
		BodyGrace: time.Minute, BodyRate: 512, HeaderBytes: 32 << 10,
		Connections: 1024, PerClient: 128,
		DialModule: 5 * time.Second, AnswerModule: 2 * time.Minute,
		UpgradedIdle: 10 * time.Minute,
	}
}

// Gateway is the handler of all requests.
type Gateway struct {
	limits Limits
	log    *slog.Logger
	table  atomic.Pointer[table]
	proxy  *httputil.ReverseProxy
}

// New makes a gateway that follows c.
func New(c Config, limits Limits, log *slog.Logger) (*Gateway, error) {
	g := &Gateway{limits: limits, log: log}
	g.proxy = &httputil.ReverseProxy{
		Rewrite:       rewrite,
		FlushInterval: -1, // pass on every piece at once: modules may stream
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: limits.DialModule}).DialContext,
			ResponseHeaderTimeout:  limits.AnswerModule,
			MaxResponseHeaderBytes: int64(limits.HeaderBytes),
			IdleConnTimeout:        time.Minute,
			MaxIdleConnsPerHost:    16,
			DisableCompression:     true,
		},
		ErrorHandler: g.moduleFailed,
		ErrorLog:     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return g, g.SetConfig(c)
}

// SetConfig changes the routes; requests under way keep theirs. After an error the former routes stay.
func (g *Gateway) SetConfig(c Config) error {
	t, err := newTable(c)
	if err == nil {
		g.table.Store(t)
	}
	return err
}

// Server is the HTTP server for the gateway, to be started on a listener that Limit made.
func (g *Gateway) Server() *http.Server {
	return &http.Server{
		Handler:           g,
		ReadHeaderTimeout: g.limits.Header,
		IdleTimeout:       g.limits.Idle,
		MaxHeaderBytes:    g.limits.HeaderBytes,
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
}

type routeKey struct{}

// ServeHTTP implements http.Handler.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w = g.guard(w, r)
	defer w.(*guardedWriter).extend() // for what is still in the buffer
	switch t := g.table.Load(); {
	case r.URL.Path == HealthPath:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.Write(t.health)
	case hasDotSegment(r.URL.Path) || !strings.HasPrefix(r.URL.Path, "/"):
		page(w, http.StatusBadRequest, "This address is not understood", "The link that led here is broken.")
	default:
		rt := t.find(r.URL.Path)
		switch {
		case rt == nil:
			page(w, http.StatusNotFound, "Nothing is here", "This server has no page at this address.")
		case !rt.plain(r.URL):
			page(w, http.StatusBadRequest, "This address is not understood", "The link that led here is broken.")
		case !rt.Ready:
			wait(w, http.StatusServiceUnavailable, rt.Title)
		default:
			g.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), routeKey{}, rt)))
		}
	}
}

// hasDotSegment finds paths that a module could take for another one than the gateway did.
func hasDotSegment(path string) bool {
	return slices.ContainsFunc(strings.Split(path, "/"), func(s string) bool { return s == "." || s == ".." })
}

// identityHeaders are what modules may take as proof of who a visitor is, or where from. No client may send them.
var identityHeaders = []string{
	"Client-Ip", "Cf-Connecting-Ip", "Proxy",
	"True-Client-Ip", "X-Client-Cert", "X-Client-Ip", "X-Original-Url", "X-Real-Ip", "X-Rewrite-Url", "X-Script-Name", "X-Ssl-Client-Cert",
}

// identityPrefixes are the same for whole families of headers.
var identityPrefixes = []string{"Remote-", "X-Auth-", "X-Forwarded", "X-Remote-", "X-Webauth-"}

// rewrite makes the module's request. ReverseProxy has taken the hop-by-hop and X-Forwarded headers away already.
func rewrite(p *httputil.ProxyRequest) {
	rt := p.In.Context().Value(routeKey{}).(*route)
	p.SetURL(rt.target)
	p.Out.Host = p.In.Host
	if rt.Strip {
		rt.strip(p.Out.URL)
	}
	for name := range p.Out.Header {
		// CGI turns both - and _ into _, and PHP points too, so X_Forwarded.For would count as X-Forwarded-For in a module.
		if strings.ContainsAny(name, "_.") || slices.Contains(identityHeaders, name) ||
			slices.ContainsFunc(identityPrefixes, func(f string) bool { return strings.HasPrefix(name, f) }) {
			delete(p.Out.Header, name)
		}
	}
	p.Out.Trailer = nil // headers that come late, past the check above
	p.SetXForwarded()
	if rt.Strip {
		p.Out.Header.Set("X-Script-Name", rt.prefix)
	}
}

func (g *Gateway) moduleFailed(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) {
		panic(http.ErrAbortHandler) // the client is gone; returning would be the answer 200
	}
	rt := r.Context().Value(routeKey{}).(*route)
	g.log.Warn("module does not answer", "path", rt.Path, "target", rt.Target, "error", err)
	wait(w, http.StatusBadGateway, rt.Title)
}
