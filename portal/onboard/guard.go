package onboard

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Bounds against those who fill in forms by machine.
const (
	quickest = 3 * time.Second // a person takes longer to fill in the form
	slowest  = 24 * time.Hour
	maxKeys  = 10_000 // clients or addresses that are counted at once
	maxOpen  = 500    // requests that wait for a confirmation or an answer
)

// guard keeps machines from registering. What it knows it forgets at a restart; forms that were open then are sent again.
type guard struct {
	key       []byte // signs tokens of forms
	clients   *limits
	addresses *limits
	all       *rate.Limiter

	mu   sync.Mutex
	used map[string]time.Time // tokens that were sent, until they are too old
}

func newGuard() *guard {
	g := &guard{key: make([]byte, 32), used: map[string]time.Time{}}
	rand.Read(g.key)
	g.clients = newLimits(rate.Every(10*time.Minute), 6) // a family at a table
	g.addresses = newLimits(rate.Every(8*time.Hour), 3)
	g.all = rate.NewLimiter(rate.Every(time.Minute), 120) // an assembly with a poster
	return g
}

// newForm makes the token of a form: the time, a number used once, and a signature of both.
func (g *guard) newForm(now time.Time) string {
	b := make([]byte, 16, 16+sha256.Size)
	binary.BigEndian.PutUint64(b, uint64(now.UnixMilli()))
	rand.Read(b[8:])
	return base64.RawURLEncoding.EncodeToString(g.sign(b))
}

func (g *guard) sign(b []byte) []byte {
	mac := hmac.New(sha256.New, g.key)
	mac.Write(b[:16])
	return mac.Sum(b[:16])
}

// checkForm tells whether a form's token is ours, of the right age, and sent for the first time.
func (g *guard) checkForm(token string, now time.Time) bool {
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) != 16+sha256.Size || !hmac.Equal(b, g.sign(append([]byte{}, b[:16]...))) {
		return false
	}
	made := time.UnixMilli(int64(binary.BigEndian.Uint64(b)))
	if age := now.Sub(made); age < quickest || age > slowest {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.used) >= maxKeys {
		for t, until := range g.used {
			if now.After(until) {
				delete(g.used, t)
			}
		}
	}
	if _, again := g.used[string(b[:16])]; again || len(g.used) >= maxKeys {
		return false
	}
	g.used[string(b[:16])] = made.Add(slowest)
	return true
}

// limits are limits of how often, one for each key.
type limits struct {
	every rate.Limit
	burst int
	mu    sync.Mutex
	by    map[string]*rate.Limiter
}

func newLimits(every rate.Limit, burst int) *limits {
	return &limits{every: every, burst: burst, by: map[string]*rate.Limiter{}}
}

// allow counts one more of key, and tells whether that is within the limit.
func (l *limits) allow(key string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	one, known := l.by[key]
	if !known {
		if len(l.by) >= maxKeys {
			l.forget(now)
		}
		if len(l.by) >= maxKeys {
			return false
		}
		one = rate.NewLimiter(l.every, l.burst)
		l.by[key] = one
	}
	return one.AllowN(now, 1)
}

// forget forgets those that have been quiet so long that forgetting them changes nothing.
func (l *limits) forget(now time.Time) {
	for key, one := range l.by {
		if one.TokensAt(now) >= float64(l.burst) {
			delete(l.by, key)
		}
	}
}

// clientOf is what a client's address is counted as: an IPv6 network of 64 bits is one household.
func clientOf(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a.String()
	}
	network, err := a.Prefix(64)
	if err != nil {
		return address
	}
	return network.String()
}
