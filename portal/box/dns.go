package box

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"allotment/api"
)

// Bounds of a check of the domain name system.
const (
	dnsQuestion = 2 * time.Second  // one question to one server
	dnsCheck    = 20 * time.Second // all of them
	dnsAtOnce   = 8                // questions
	mostServers = 4                // authoritative servers that are asked
)

// Verdict is what a check says of a record.
type Verdict string

// The verdicts.
const (
	DNSRight   Verdict = "right"
	DNSMissing Verdict = "missing"
	DNSOther   Verdict = "other"   // there is one, but it says something else
	DNSPartly  Verdict = "partly"  // some servers of the domain say so, others do not yet
	DNSUnknown Verdict = "unknown" // nobody could be asked
)

// Wish is a record that should be in the organisation's zone.
type Wish struct {
	Host   string
	Type   string // A, AAAA, CNAME, MX, SRV, TXT or CAA
	Value  string // as in a zone file; empty: the address is not known, any will do
	Module string // that needs it; empty: the box itself

	Optional bool // nothing is wrong without it
}

// DNSResult is a wish and what the zone's own servers say.
type DNSResult struct {
	Wish
	Verdict Verdict
	Found   []string // values that are there instead, or beside it
}

// DNSReport is the outcome of one check.
type DNSReport struct {
	Time    time.Time
	Domain  string
	Servers []string // of the zone, by name; none: the domain is not registered, or nobody could be asked
	Results []DNSResult
}

// Right tells whether all is as it should be.
func (r DNSReport) Right() bool {
	return len(r.Results) > 0 &&
		!slices.ContainsFunc(r.Results, func(x DNSResult) bool { return x.Verdict != DNSRight && !x.Optional })
}

const typeCAA = "CAA"

// forbids tells whether records of type CAA, as zone files write them, keep an authority from issuing that only the wish names.
// Where none is of issuing, everybody may (RFC 8659, section 4.2).
func forbids(found []string, wish Wish) bool {
	issue := false
	for _, v := range found {
		f := strings.Fields(v)
		if len(f) < 3 || strings.ToLower(f[1]) != "issue" {
			continue
		}
		name, _, _ := strings.Cut(strings.Join(f[2:], " "), ";")
		if sameValue("0 issue "+name, wish.Value) {
			return false
		}
		issue = true
	}
	return issue
}

// Wishes are the records that lead to the box. Where it has only addresses of a private network, the router's is right, which it
// does not know.
func Wishes(n api.Network) []Wish {
	var all []Wish
	var addresses []netip.Addr
	for _, text := range n.Addresses {
		if a, err := netip.ParseAddr(text); err == nil && !a.IsPrivate() && !a.IsLinkLocalUnicast() && a.IsGlobalUnicast() {
			addresses = append(addresses, a)
		}
	}
	has4 := slices.ContainsFunc(addresses, netip.Addr.Is4)
	for _, name := range n.Names {
		for _, a := range addresses {
			kind := "AAAA"
			if a.Is4() {
				kind = "A"
			}
			all = append(all, Wish{Host: name.Host, Type: kind, Value: a.String(), Module: name.Module, Optional: name.Optional})
		}
		if !has4 {
			all = append(all, Wish{Host: name.Host, Type: "A", Module: name.Module, Optional: name.Optional})
		}
	}
	if n.Issuer != "" {
		all = append(all, Wish{Host: n.Domain, Type: typeCAA, Value: fmt.Sprintf("0 issue %q", n.Issuer)})
	}
	for _, r := range n.Records {
		all = append(all, Wish{Host: r.Host, Type: r.Type, Value: r.Value, Module: r.Module})
	}
	return all
}

// DNSChecker asks the domain name system. Port is 53 but in tests.
type DNSChecker struct {
	Port string
	Now  func() time.Time
}

// Check asks the box's name servers who answers for the domain, and those what they say.
func (c DNSChecker) Check(ctx context.Context, n api.Network) DNSReport {
	ctx, cancel := context.WithTimeout(ctx, dnsCheck)
	defer cancel()
	r := DNSReport{Time: c.Now(), Domain: n.Domain}
	names, addresses := c.authorities(ctx, n)
	r.Servers = names
	for _, w := range Wishes(n) {
		r.Results = append(r.Results, DNSResult{Wish: w, Verdict: DNSUnknown})
	}
	free := make(chan struct{}, dnsAtOnce)
	var all sync.WaitGroup
	for i := range r.Results {
		free <- struct{}{}
		all.Go(func() {
			defer func() { <-free }()
			c.judge(ctx, &r.Results[i], addresses)
		})
	}
	all.Wait()
	// The authority of the box's own certificates needs no record, as long as none names others alone.
	r.Results = slices.DeleteFunc(r.Results, func(x DNSResult) bool {
		return x.Type == typeCAA && x.Module == "" && !forbids(x.Found, x.Wish)
	})
	return r
}

// judge asks each server for the record.
func (c DNSChecker) judge(ctx context.Context, r *DNSResult, servers []string) {
	asked, right := 0, 0
	for _, server := range servers {
		values, err := c.values(ctx, server, r.Host, r.Type)
		if err != nil {
			continue
		}
		asked++
		same := func(v string) bool { return r.Value == "" || sameValue(v, r.Value) }
		if slices.ContainsFunc(values, same) {
			right++
		}
		for _, v := range values {
			if (r.Value == "" || !same(v)) && !slices.Contains(r.Found, v) {
				r.Found = append(r.Found, v)
			}
		}
	}
	switch {
	case asked == 0:
	case right == asked:
		r.Verdict = DNSRight
	case right > 0:
		r.Verdict = DNSPartly
	case len(r.Found) > 0:
		r.Verdict = DNSOther
	default:
		r.Verdict = DNSMissing
	}
}

// sameValue compares values as zone files write them, whatever the spaces and the case of names.
func sameValue(a, b string) bool {
	clean := func(s string) string {
		return strings.TrimSuffix(strings.ToLower(strings.Join(strings.Fields(strings.ReplaceAll(s, `"`, "")), " ")), ".")
	}
	return clean(a) == clean(b)
}

// authorities are the servers of the zone that the domain is in, by name, and some of their addresses.
func (c DNSChecker) authorities(ctx context.Context, n api.Network) (names, addresses []string) {
	for zone := dns.Fqdn(n.Domain); zone != "." && dns.CountLabel(zone) >= 2; {
		if names = c.resolve(ctx, n.Servers, zone, "NS"); len(names) > 0 {
			break
		}
		off, end := dns.NextLabel(zone, 0)
		if end {
			break
		}
		zone = zone[off:]
	}
	slices.Sort(names)
	for _, name := range names[:min(len(names), mostServers)] {
		found := c.resolve(ctx, n.Servers, name, "A")
		if len(found) == 0 {
			found = c.resolve(ctx, n.Servers, name, "AAAA")
		}
		addresses = append(addresses, found[:min(len(found), 1)]...)
	}
	return names, addresses
}

// resolve asks the first of the box's name servers that answers.
func (c DNSChecker) resolve(ctx context.Context, servers []string, host, kind string) []string {
	for _, server := range servers {
		if values, err := c.values(ctx, server, host, kind); err == nil {
			return values
		}
	}
	return nil
}

var (
	errDNSRefused  = errors.New("the name server refuses to answer")
	errUnknownType = errors.New("not a type of records that is known here")
)

// values asks one server for a host's records of a type, over TCP if the answer is too long for UDP.
func (c DNSChecker) values(ctx context.Context, server, host, kind string) ([]string, error) {
	code, known := dns.StringToType[kind]
	if !known {
		return nil, errUnknownType
	}
	q := new(dns.Msg).SetQuestion(dns.Fqdn(host), code)
	q.SetEdns0(1232, false) // as the DNS flag day of 2020 advises
	ctx, cancel := context.WithTimeout(ctx, dnsQuestion)
	defer cancel()
	address := net.JoinHostPort(server, c.Port)
	a, _, err := new(dns.Client).ExchangeContext(ctx, q, address)
	if err == nil && a.Truncated {
		a, _, err = (&dns.Client{Net: "tcp"}).ExchangeContext(ctx, q, address)
	}
	if err != nil {
		return nil, err
	}
	if a.Rcode != dns.RcodeSuccess && a.Rcode != dns.RcodeNameError {
		return nil, errDNSRefused
	}
	var values []string
	for _, rr := range a.Answer {
		if rr.Header().Rrtype == code {
			values = append(values, strings.TrimPrefix(rr.String(), rr.Header().String()))
		}
	}
	return values, nil
}

// dnsFresh is how long a report is good enough for a page.
const dnsFresh = time.Minute

// DNSWatch has the last report, and makes another beside those who look at it. Nobody ever waits for it.
type DNSWatch struct {
	Check func(context.Context, api.Network) DNSReport
	Now   func() time.Time

	mu      sync.Mutex
	last    DNSReport
	running bool
}

// Report is the last one, and whether a newer one is being made. again wants one even if the last is fresh.
func (w *DNSWatch) Report(ctx context.Context, n api.Network, again bool) (DNSReport, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	stale := w.last.Domain != n.Domain || w.Now().Sub(w.last.Time) > dnsFresh
	if (stale || again) && !w.running {
		w.running = true
		go func() {
			r := w.Check(context.WithoutCancel(ctx), n)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.last, w.running = r, false
		}()
	}
	if w.last.Domain != n.Domain {
		return DNSReport{Domain: n.Domain}, w.running
	}
	return w.last, w.running
}
