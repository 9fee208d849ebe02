package proxy

import (
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"allotment/internal/limit"
)

// Rate is how often a client may do something: Burst times at once, and again after Every for each.
type Rate struct {
	Every time.Duration
	Burst int
}

// mostClients bounds how many clients' rates are remembered, at 40 bytes each.
const mostClients = 16 << 10

// rates counts by the generic cell rate algorithm (ITU-T I.371): of each client it keeps when its bucket will be full
// again.
type rates struct {
	rate Rate

	mu   sync.Mutex
	full map[netip.Prefix]time.Time
}

func newRates(r Rate) *rates { return &rates{rate: r, full: map[netip.Prefix]time.Time{}} }

// take counts one for the client. If it has come too often already, it says how long it has to wait.
func (r *rates) take(client netip.Prefix, now time.Time) (wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	full := r.full[client]
	if full.Before(now) {
		full = now
	}
	full = full.Add(r.rate.Every)
	if over := full.Sub(now) - time.Duration(r.rate.Burst)*r.rate.Every; over > 0 {
		return over
	}
	if _, known := r.full[client]; !known && len(r.full) >= mostClients {
		r.forget(now)
	}
	r.full[client] = full
	return 0
}

// forget makes room for many, so that it is not called again soon: those whose buckets are full again, and then anybody.
func (r *rates) forget(now time.Time) {
	for c, full := range r.full {
		if full.Before(now) {
			delete(r.full, c)
		}
	}
	for c := range r.full {
		if len(r.full) <= mostClients/2 {
			return
		}
		delete(r.full, c)
	}
}

// tooOften answers a client that has come too often, and counts it otherwise.
func (g *Gateway) tooOften(w http.ResponseWriter, r *http.Request) bool {
	address, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false // not by a network: a test
	}
	client := limit.Network(address.Addr(), 64)
	now := time.Now()
	wait := g.requests.take(client, now)
	if wait == 0 && guesses(r) {
		wait = g.guesses.take(client, now)
	}
	if wait == 0 {
		return false
	}
	tooMany(w, wait)
	return true
}

// guesses tells whether a request may be one of many guesses of a password or code.
func guesses(r *http.Request) bool {
	p := r.URL.Path
	return r.Method == http.MethodPost && (below(p, portalPath) && !below(p, portalPath+"/oidc") ||
		strings.HasSuffix(p, "/wp-login.php") || strings.HasSuffix(p, "/xmlrpc.php"))
}
