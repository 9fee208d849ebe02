// Package proxy is the gateway, the one door of the box: a reverse proxy for HTTP/1.1, 2 and 3 that forwards to
// portal and modules by host name and path prefix, tells modules who a visitor is, and keeps the certificates. It
// runs as an unprivileged process; the supervisor gives it the listening sockets and tells it by a file where
// everything is.
package proxy

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

	"allotment/gateway"
	"allotment/gateway/certs"
	"allotment/internal/limit"
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
	Streams      int           // requests at once on one connection of HTTP/2 or 3
	Requests     Rate          // of a client
	Guesses      Rate          // of a client, of what could be guesses of a password
	PortalBody   int64         // bytes of a request
	ModuleBody   int64         // bytes of a request
}

// DefaultLimits fit a small box: what a visitor's browser does stays far below them.
func DefaultLimits() Limits {
	return Limits{
		Header: 10 * time.Second, Idle: 2 * time.Minute, Write: time.Minute,
		BodyGrace: time.Minute, BodyRate: 512, HeaderBytes: 32 << 10,
		Connections: 1024, PerClient: 128,
		DialModule: 5 * time.Second, AnswerModule: 2 * time.Minute,
		UpgradedIdle: 10 * time.Minute, Streams: 64,
		// A club house has one IPv4 address for all its visitors.
		Requests:   Rate{Every: 10 * time.Millisecond, Burst: 600},
		Guesses:    Rate{Every: time.Second, Burst: 120},
		PortalBody: 32 << 20, ModuleBody: 4 << 30,
	}
}

// Gateway is the handler of all requests.
type Gateway struct {
	limits   Limits
	log      *slog.Logger
	table    atomic.Pointer[table]
	proxy    *httputil.ReverseProxy
	registry *registry
	requests *rates
	guesses  *rates
	open     *limit.Counter

	keeper   *certs.Keeper  // nil: no TLS
	wanted   gateway.Config // for the keeper
	quicPort string         // empty: no HTTP/3
}

// New makes a gateway that follows c. Whether it has TLS at all, and the folder for that, stay as they are in c.
func New(c gateway.Config, limits Limits, log *slog.Logger) (*Gateway, error) {
	g := &Gateway{limits: limits, log: log, requests: newRates(limits.Requests), guesses: newRates(limits.Guesses)}
	g.open = limit.NewCounter(limit.Bounds{Total: limits.Connections, PerClient: limits.PerClient, IPv6Bits: 64})
	transport := &http.Transport{
		DialContext:            g.dial,
		ResponseHeaderTimeout:  limits.AnswerModule,
		MaxResponseHeaderBytes: int64(limits.HeaderBytes),
		IdleConnTimeout:        time.Minute,
		MaxIdleConnsPerHost:    16,
		DisableCompression:     true,
	}
	g.registry = newRegistry(transport)
	g.proxy = &httputil.ReverseProxy{
		Rewrite:        rewrite,
		ModifyResponse: g.check,
		FlushInterval:  -1, // pass on every piece at once: modules may stream
		Transport:      transport,
		ErrorHandler:   g.moduleFailed,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	if c.Data != "" {
		var err error
		if g.keeper, err = certs.New(c.Data, time.Now, log); err != nil {
			return nil, err
		}
	}
	return g, g.SetConfig(c)
}

// dial connects to a module, or to the portal by its socket.
func (g *Gateway) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: g.limits.DialModule}
	if address == portalTarget.Host+":80" {
		return d.DialContext(ctx, "unix", g.table.Load().socket)
	}
	return d.DialContext(ctx, network, address)
}

// SetConfig changes the routes; requests under way keep theirs. After an error the former routes stay. It must not be
// called by two at once.
func (g *Gateway) SetConfig(c gateway.Config) error {
	t, err := newTable(c)
	if err != nil {
		return err
	}
	if g.keeper != nil {
		g.setNames(c)
	}
	g.table.Store(t)
	return nil
}

// setNames tells the keeper what has changed. What goes wrong there must not keep visitors from modules.
func (g *Gateway) setNames(c gateway.Config) {
	want := gateway.Config{Names: c.Names, Domain: c.Domain, ModuleNames: c.ModuleNames, ACME: c.ACME, DNS: c.DNS}
	if g.wanted.Digest() == want.Digest() && g.keeper.Ready() {
		return
	}
	web, err := certs.Client(c.ACME.Root, c.DNS, time.Now)
	if err == nil {
		wanted := certs.Config{Names: c.Names, Modules: c.ModuleNames, Domain: c.Domain,
			Directory: c.ACME.Directory, Email: c.ACME.Email, Private: c.ACME.Root != ""}
		if len(c.DNS) > 0 {
			wanted.Lookup = certs.Lookup(c.DNS)
		}
		err = g.keeper.SetConfig(wanted, web)
	}
	if err != nil {
		g.log.Error("keeping the former certificates", "error", err)
		return
	}
	g.wanted = want
}

// Server is the HTTP server for the gateway, to be started on a listener that Limit made.
func (g *Gateway) Server() *http.Server {
	return &http.Server{
		Handler:           g,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: g.limits.Streams, MaxReceiveBufferPerStream: 256 << 10},
		ReadHeaderTimeout: g.limits.Header,
		IdleTimeout:       g.limits.Idle,
		MaxHeaderBytes:    g.limits.HeaderBytes,
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
}

// lead is where a request goes, and for whom.
type lead struct {
	*route
	visitor visitor
}

type leadKey struct{}

// ServeHTTP implements http.Handler.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w = g.guard(w, r)
	defer w.(*guardedWriter).extend() // for what is still in the buffer
	t, host := g.table.Load(), hostOf(r)
	switch {
	case g.answered(w, r, t):
	case hasDotSegment(r.URL.Path) || !strings.HasPrefix(r.URL.Path, "/"):
		page(w, http.StatusBadRequest, "This address is not understood", "The link that led here is broken.")
	case g.tooOften(w, r):
	case !t.knows(host):
		page(w, http.StatusMisdirectedRequest, "This name leads nowhere here",
			"This server has no pages under the name that you asked for. It may have moved, or the name's settings are wrong.")
	case g.secured(w, r, host) || g.toDomain(w, r, t, host) || g.toPortal(w, r, t, host):
	default:
		g.forward(w, r, t.find(host, r.URL.Path))
	}
}

// forward passes a request on by the route, nil if there is none.
func (g *Gateway) forward(w http.ResponseWriter, r *http.Request, rt *route) {
	if rt == nil {
		page(w, http.StatusNotFound, "Nothing is here", "This server has no page at this address.")
		return
	}
	most := g.limits.ModuleBody
	if rt.target == portalTarget {
		most = g.limits.PortalBody
	}
	switch {
	case !rt.plain(r.URL):
		page(w, http.StatusBadRequest, "This address is not understood", "The link that led here is broken.")
	case !rt.Ready:
		wait(w, http.StatusServiceUnavailable, rt.Title)
	case r.ContentLength > most:
		tooLarge(w)
	default:
		r.Body = http.MaxBytesReader(w, r.Body, most)
		to := lead{rt, g.visitor(r, rt)}
		g.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), leadKey{}, to)))
	}
}

// visitor tells who is asking, if the module wants to know. Public pages stay while the portal does not answer.
func (g *Gateway) visitor(r *http.Request, rt *route) visitor {
	if (rt.SSO != gateway.SSOHeader && rt.SSO != gateway.SSOBasic) || g.table.Load().portal == nil {
		return visitor{}
	}
	v, err := g.registry.who(r, rt.Module)
	if err != nil {
		g.log.Warn("visitors are nobody: the portal does not say who they are", "module", rt.Module, "error", err)
	}
	return v
}

// hasDotSegment finds paths that a module could take for another one than the gateway did.
func hasDotSegment(path string) bool {
	return slices.ContainsFunc(strings.Split(path, "/"), func(s string) bool { return s == "." || s == ".." })
}

// identityHeaders are what modules may take as proof of who a visitor is, or where from. No client may send them.
var identityHeaders = []string{
	"Client-Ip", "Cf-Connecting-Ip", "Proxy",
	"True-Client-Ip", "X-Client-Cert", "X-Client-Ip", "X-Original-Url", "X-Real-Ip", "X-Rewrite-Url", "X-Script-Name",
	"X-Ssl-Client-Cert",
}

// identityPrefixes are the same for whole families of headers.
var identityPrefixes = []string{"Remote-", "X-Auth-", "X-Forwarded", "X-Remote-", "X-Webauth-"}

// rewrite makes the module's request. ReverseProxy has taken the hop-by-hop and X-Forwarded headers away already.
func rewrite(p *httputil.ProxyRequest) {
	rt := p.In.Context().Value(leadKey{}).(lead)
	p.SetURL(rt.target)
	p.Out.Host = p.In.Host
	if rt.Strip {
		rt.strip(p.Out.URL)
	}
	for name := range p.Out.Header {
		// CGI turns both - and _ into _, and PHP points too, so X_Forwarded.For would count as X-Forwarded-For in a
		// module.
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
	if rt.target != portalTarget {
		hideCookies(p.Out.Header)
		rt.visitor.tell(p.Out, rt.SSO)
	}
}

// check looks at a response before visitors get it.
func (g *Gateway) check(r *http.Response) error {
	h := r.Header
	ours := r.Request.Context().Value(leadKey{}).(lead).target == portalTarget
	if !ours {
		dropSetCookies(h)
	} else if session(h) {
		g.registry.forget()
	}
	h.Del("Strict-Transport-Security") // which names are safe to promise, only the gateway knows
	h.Del("Alt-Svc")
	if ours {
		return g.sign(r)
	}
	return nil
}

func (g *Gateway) moduleFailed(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) {
		panic(http.ErrAbortHandler) // the client is gone; returning would be the answer 200
	}
	if e := (*http.MaxBytesError)(nil); errors.As(err, &e) {
		tooLarge(w)
		return
	}
	rt := r.Context().Value(leadKey{}).(lead)
	g.log.Warn("module does not answer", "path", rt.Path, "target", rt.Target, "error", err)
	wait(w, http.StatusBadGateway, rt.Title)
}
