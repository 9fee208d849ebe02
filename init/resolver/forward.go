package resolver

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

// forwarder asks the network's resolvers.
type forwarder struct {
	limits Limits
	log    *slog.Logger
	cache  *cache
	flight singleflight.Group // one question is outside once at a time: more make forged answers likelier (RFC 5452, 5)
	first  atomic.Uint32      // which resolver answered last
	silent atomic.Bool        // whether none does, which is logged once
}

func newForwarder(limits Limits, log *slog.Logger) *forwarder {
	return &forwarder{limits: limits, log: log, cache: newCache(limits.CacheBytes, time.Now)}
}

// question is what an answer depends on.
type question struct {
	name   string // canonical
	kind   uint16
	signed bool // DNSSEC records are wanted (RFC 3225)
	raw    bool // without the upstream's DNSSEC checks (RFC 4035, 3.2.2)
}

// ask returns the answer to q from the cache or from one of the resolvers.
func (f *forwarder) ask(q *dns.Msg, upstream []netip.AddrPort) (*dns.Msg, error) {
	k := question{dns.CanonicalName(q.Question[0].Name), q.Question[0].Qtype, false, q.CheckingDisabled}
	if o := q.IsEdns0(); o != nil {
		k.signed = o.Do()
	}
	m := f.cache.get(k)
	if m == nil {
		found, err, _ := f.flight.Do(fmt.Sprint(k, upstream), func() (any, error) {
			m, err := f.exchange(k, upstream)
			if err == nil {
				f.cache.put(k, m)
			}
			return m, err
		})
		if err != nil {
			return nil, err
		}
		m = found.(*dns.Msg).Copy() // others who asked the same have it too
	}
	return reply(q, m), nil
}

// reply makes the answer to q of what an upstream resolver said. Its word that the data is authentic does not count: the
// way to it is not safe.
func reply(q, found *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetRcode(q, found.Rcode)
	m.RecursionAvailable = true
	m.Answer, m.Ns = found.Answer, found.Ns
	for _, rr := range found.Extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			m.Extra = append(m.Extra, rr)
		}
	}
	return m
}

// exchange asks the resolvers in turn, beginning with the one that answered last.
func (f *forwarder) exchange(k question, upstream []netip.AddrPort) (*dns.Msg, error) {
	first := int(f.first.Load())
	err := errNoAnswer
	for i := range f.limits.Attempts {
		n := (first + i) % len(upstream)
		m, e := f.exchangeWith(k, upstream[n].String())
		if e == nil {
			f.first.Store(uint32(n))
			if f.silent.Swap(false) {
				f.log.Info("an upstream resolver answers again", "resolver", upstream[n])
			}
			return m, nil
		}
		err = e
	}
	if !f.silent.Swap(true) {
		f.log.Warn("no upstream resolver answers", "error", err)
	}
	return nil, err
}

// exchangeWith asks one resolver, by TCP if the answer is too long for UDP. The library draws ports and ids at random and
// does not take answers with another id.
func (f *forwarder) exchangeWith(k question, resolver string) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(context.Background(), f.limits.Attempt)
	defer cancel()
	q := new(dns.Msg).SetQuestion(k.name, k.kind)
	q.CheckingDisabled = k.raw
	q.SetEdns0(payload, k.signed)
	var m *dns.Msg
	for _, network := range []string{"udp", "tcp"} {
		c := &dns.Client{Net: network, Timeout: f.limits.Attempt}
		var err error
		if m, _, err = c.ExchangeContext(ctx, q, resolver); err != nil {
			return nil, fmt.Errorf("cannot ask %s: %w", resolver, err)
		}
		if !m.Truncated {
			break
		}
	}
	return m, judge(k, m)
}

// judge tells whether an answer is one to the question.
func judge(k question, m *dns.Msg) error {
	if len(m.Question) != 1 || !strings.EqualFold(m.Question[0].Name, k.name) || m.Question[0].Qtype != k.kind || !m.Response {
		return fmt.Errorf("the answer is not to the question for %s", k.name)
	}
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return fmt.Errorf("the answer is %s", dns.RcodeToString[m.Rcode])
	}
	return nil
}
