package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/sync/singleflight"

	"allotment/gateway"
)

const (
	whoisPath    = "/-/whois"
	whoisTime    = 5 * time.Second  // for the portal to answer
	whoisKept    = 10 * time.Second // at most: whoever is deactivated is out within that
	whoisMost    = 4096             // answers
	whoisBytes   = 64 << 10         // of an answer
	silentPortal = 2 * time.Second  // for which a portal that does not answer is not asked the same again
	hiddenPath   = "/-"             // of the portal: for gateway and supervisor alone
	cookieOfOurs = "portal"
)

// visitor is what the portal tells of whoever is asking. The zero value is nobody.
type visitor struct {
	Person   string   `json:"person"`
	Name     string   `json:"name"`
	Mail     string   `json:"mail"`
	Groups   []string `json:"groups"`
	Permits  []string `json:"permissions"` // what the person may do in the module
	Password string   `json:"password"`    // app password for the module, if it is told by gateway.SSOBasic
}

// registry asks the portal who visitors are, and keeps its answers for a short time.
type registry struct {
	client *http.Client
	now    func() time.Time
	flight singleflight.Group

	mu      sync.Mutex
	answers map[[sha256.Size]byte]answer
}

type answer struct {
	visitor visitor
	until   time.Time
}

func newRegistry(transport http.RoundTripper) *registry {
	return &registry{
		client: &http.Client{Transport: transport, Timeout: whoisTime, CheckRedirect: noRedirect},
		now:    time.Now, answers: map[[sha256.Size]byte]answer{},
	}
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// who is asking for the module. After an error it is nobody.
func (g *registry) who(r *http.Request, module string) (visitor, error) {
	cookies := ourCookies(r)
	if cookies == "" {
		return visitor{}, nil
	}
	key := sha256.Sum256([]byte(cookies + "\x00" + r.Host + "\x00" + proto(r) + "\x00" + module))
	g.mu.Lock()
	known, ok := g.answers[key]
	g.mu.Unlock()
	if ok && g.now().Before(known.until) {
		return known.visitor, nil
	}
	// Not with the visitor's context: others may wait for the same answer.
	ctx := context.WithoutCancel(r.Context())
	got, err, _ := g.flight.Do(string(key[:]), func() (any, error) {
		asked := g.now()
		v, err := g.ask(ctx, cookies, r, module)
		keep := whoisKept
		if err != nil {
			keep = silentPortal
		}
		g.keep(key, answer{v, asked.Add(keep)})
		return v, err
	})
	return got.(visitor), err
}

func (g *registry) keep(key [sha256.Size]byte, a answer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.answers) >= whoisMost {
		now := g.now()
		maps.DeleteFunc(g.answers, func(_ [sha256.Size]byte, a answer) bool { return !now.Before(a.until) })
		if len(g.answers) >= whoisMost {
			clear(g.answers)
		}
	}
	g.answers[key] = a
}

// forget all answers: somebody has logged in or out.
func (g *registry) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.answers)
}

func (g *registry) ask(ctx context.Context, cookies string, in *http.Request, module string) (visitor, error) {
	u := portalTarget.JoinPath(whoisPath)
	u.RawQuery = url.Values{"module": {module}}.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return visitor{}, err
	}
	r.Header.Set("Cookie", cookies)
	r.Header.Set("X-Forwarded-Host", in.Host)
	r.Header.Set("X-Forwarded-Proto", proto(in))
	resp, err := g.client.Do(r)
	if err != nil {
		return visitor{}, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNoContent, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		return visitor{}, nil
	default:
		return visitor{}, fmt.Errorf("the portal answers %s", resp.Status)
	}
	var v visitor
	if err := json.NewDecoder(io.LimitReader(resp.Body, whoisBytes)).Decode(&v); err != nil {
		return visitor{}, fmt.Errorf("cannot read the portal's answer: %w", err)
	}
	return v, nil
}

func proto(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// ours tells whether a cookie is the portal's: portal or portal-ANYTHING, with or without __Host- and __Secure- (RFC
// 6265bis, section 4.1.3). Browsers compare these prefixes without regard to case.
func ours(name string) bool {
	name = strings.ToLower(name)
	name = strings.TrimPrefix(strings.TrimPrefix(name, "__host-"), "__secure-")
	return name == cookieOfOurs || strings.HasPrefix(name, cookieOfOurs+"-")
}

// session tells whether a response begins or ends a session of the portal's.
func session(h http.Header) bool {
	return slices.ContainsFunc(h["Set-Cookie"], func(line string) bool {
		name, _, _ := strings.Cut(line, "=")
		return name == cookieOfOurs || name == "__Host-"+cookieOfOurs
	})
}

// ourCookies are the portal's among a visitor's, as a header's value.
func ourCookies(r *http.Request) string {
	ours, _ := splitCookies(r.Header)
	return strings.Join(ours, "; ")
}

// splitCookies parts the portal's cookies from the others, by name alone: whatever else they look like, a module gets
// none of the former.
func splitCookies(h http.Header) (portals, others []string) {
	for _, line := range h["Cookie"] {
		for part := range strings.SplitSeq(line, ";") {
			part = strings.TrimSpace(part)
			name, _, _ := strings.Cut(part, "=")
			if name = strings.TrimSpace(name); ours(name) {
				portals = append(portals, part)
			} else if part != "" {
				others = append(others, part)
			}
		}
	}
	return portals, others
}

// hideCookies takes the portal's cookies from what a module gets.
func hideCookies(h http.Header) {
	portals, others := splitCookies(h)
	switch {
	case len(portals) == 0:
	case len(others) == 0:
		h.Del("Cookie")
	default:
		h.Set("Cookie", strings.Join(others, "; "))
	}
}

// dropSetCookies keeps a module from setting the portal's cookies: it could give a visitor another one's session.
func dropSetCookies(h http.Header) {
	lines := h["Set-Cookie"]
	kept := lines[:0]
	for _, line := range lines {
		if name, _, _ := strings.Cut(line, "="); !ours(strings.TrimSpace(name)) {
			kept = append(kept, line)
		}
	}
	if len(kept) < len(lines) {
		h["Set-Cookie"] = kept
	}
}

// tell tells the module who the visitor is.
func (v visitor) tell(r *http.Request, sso string) {
	switch {
	case v.Person == "":
	case sso == gateway.SSOHeader:
		r.Header.Set("X-Remote-User", headerText(v.Person))
		r.Header.Set("X-Remote-Name", headerText(v.Name))
		r.Header.Set("X-Remote-Email", headerText(v.Mail))
		r.Header.Set("X-Remote-Groups", headerText(strings.Join(v.Groups, ",")))
		r.Header.Set("X-Remote-Permissions", headerText(strings.Join(v.Permits, ",")))
		r.Header.Set("X-Remote-Permissions", headerText(strings.Join(v.Permits, ",")))
	case sso == gateway.SSOBasic && v.Password != "" && r.Header.Get("Authorization") == "":
		r.SetBasicAuth(v.Person, v.Password)
	}
}

// headerText is UTF-8 without what would end a header.
func headerText(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return -1
		}
		return c
	}, s)
}
