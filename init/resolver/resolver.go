package resolver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"allotment/init/plan"
	"allotment/internal/limit"
)

// Limits bound what modules can make the resolver hold.
type Limits struct {
	Pending    int           // questions of one client that wait for an answer from outside
	CacheBytes int           // of answers from outside
	Attempt    time.Duration // until an upstream resolver must have answered
	Attempts   int           // one after the other, over all upstream resolvers
	Idle       time.Duration // of a TCP connection
	TCP        limit.Bounds
}

// DefaultLimits let a question be answered or given up before the module's library asks again (5 s).
func DefaultLimits() Limits {
	return Limits{
		Pending: 64, CacheBytes: 1 << 20, Attempt: 1500 * time.Millisecond, Attempts: 3, Idle: 10 * time.Second,
		TCP: limit.Bounds{Total: 256, PerClient: 16, IPv6Bits: 128},
	}
}

// payload is the size of UDP messages that pass any network unbroken (RFC 9715).
const payload = 1232 // bytes

// localTTL is how long names inside may be kept, in seconds: modules come and go with a change of settings.
const localTTL = 30

// Resolver is the handler of all questions.
type Resolver struct {
	limits  Limits
	state   atomic.Pointer[state]
	forward *forwarder

	mu      sync.Mutex
	pending map[netip.Addr]int
}

// state is a Config in the form in which it is used.
type state struct {
	names    map[string][]netip.Addr // by canonical name
	pointers map[string]string       // names by reverse name
	forward  map[netip.Addr]bool
	upstream []netip.AddrPort
}

// New makes a resolver that follows c.
func New(c Config, limits Limits, log *slog.Logger) (*Resolver, error) {
	r := &Resolver{limits: limits, forward: newForwarder(limits, log), pending: map[netip.Addr]int{}}
	return r, r.SetConfig(c)
}

// SetConfig changes what is answered. After an error the former configuration stays.
func (r *Resolver) SetConfig(c Config) error {
	s := &state{names: map[string][]netip.Addr{}, pointers: map[string]string{}, forward: map[netip.Addr]bool{}, upstream: c.Upstream}
	for name, addrs := range c.Names {
		if _, ok := dns.IsDomainName(name); !ok {
			return fmt.Errorf("cannot answer for %q: it is not a domain name", name)
		}
		name = dns.CanonicalName(name)
		s.names[name] = addrs
		for _, a := range addrs {
			reverse, err := dns.ReverseAddr(a.String())
			if err != nil {
				return fmt.Errorf("cannot answer for %q: %w", name, err)
			}
			if s.pointers[reverse] == "" || dns.IsSubDomain(zone+".", name) {
				s.pointers[reverse] = name
			}
		}
	}
	for _, a := range c.Forward {
		s.forward[a] = true
	}
	r.state.Store(s)
	r.forward.cache.clear() // another network may answer otherwise
	return nil
}

// Serve answers on the sockets, in the order of Listen, until ctx ends.
func (r *Resolver) Serve(ctx context.Context, sockets []*os.File) error {
	group, ctx := errgroup.WithContext(ctx)
	for i, f := range sockets {
		s := &dns.Server{Handler: r, UDPSize: payload, MaxTCPQueries: 128, ReadTimeout: r.limits.Idle, WriteTimeout: r.limits.Idle,
			IdleTimeout: func() time.Duration { return r.limits.Idle }}
		var err error
		if i%2 == 0 {
			s.PacketConn, err = net.FilePacketConn(f)
		} else if s.Listener, err = net.FileListener(f); err == nil {
			s.Listener = limit.Listen(s.Listener, r.limits.TCP)
		}
		if err != nil {
			return fmt.Errorf("cannot answer on socket %d: %w", i, err)
		}
		s.NotifyStartedFunc = func() { context.AfterFunc(ctx, func() { s.Shutdown() }) } // fails before it
		group.Go(s.ActivateAndServe)
	}
	return group.Wait()
}

// ServeDNS implements dns.Handler.
func (r *Resolver) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	client := addrOf(w.RemoteAddr())
	m := r.answer(client, q)
	size := dns.MaxMsgSize
	if _, ok := w.RemoteAddr().(*net.UDPAddr); ok {
		size = dns.MinMsgSize
		if o := q.IsEdns0(); o != nil {
			size = min(payload, max(size, int(o.UDPSize())))
		}
	}
	if o := q.IsEdns0(); o != nil && m.IsEdns0() == nil {
		m.SetEdns0(payload, o.Do())
	}
	m.Compress = true
	m.Truncate(size)
	w.WriteMsg(m) // who does not wait for the answer asks again
}

func addrOf(a net.Addr) netip.Addr {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

// answer finds the answer for a client.
func (r *Resolver) answer(client netip.Addr, q *dns.Msg) *dns.Msg {
	s := r.state.Load()
	if len(q.Question) != 1 || q.Opcode != dns.OpcodeQuery || q.Question[0].Qclass != dns.ClassINET || isMeta(q.Question[0].Qtype) {
		return failure(q, dns.RcodeNotImplemented)
	}
	if m := s.local(q); m != nil {
		return m
	}
	switch {
	case !s.forward[client]:
		return failure(q, dns.RcodeRefused)
	case len(s.upstream) == 0 || !r.enter(client):
		return failure(q, dns.RcodeServerFailure)
	}
	defer r.leave(client)
	m, err := r.forward.ask(q, s.upstream)
	if err != nil {
		return failure(q, dns.RcodeServerFailure)
	}
	return m
}

// isMeta tells whether a type stands for no record: transfers of zones, "any", and what belongs to messages (RFC 6895, 3.1).
func isMeta(kind uint16) bool { return kind >= 128 && kind <= 255 || kind == dns.TypeOPT }

func failure(q *dns.Msg, rcode int) *dns.Msg {
	m := new(dns.Msg).SetRcode(q, rcode)
	m.RecursionAvailable = true
	return m
}

// enter takes one of the client's places among those who wait.
func (r *Resolver) enter(client netip.Addr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending[client] >= r.limits.Pending {
		return false
	}
	r.pending[client]++
	return true
}

func (r *Resolver) leave(client netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending[client]--; r.pending[client] == 0 {
		delete(r.pending, client)
	}
}

// ownZones are those that nobody outside is asked about.
var ownZones = []string{zone + ".", reverseZone(plan.HostIPv4), reverseZone(plan.HostIPv6)}

// reverseZone is the zone of the reverse names of a network (RFC 1035, 3.5; RFC 3596, 2.5).
func reverseZone(n netip.Prefix) string {
	name, err := dns.ReverseAddr(n.Addr().String())
	if err != nil {
		return ""
	}
	host := (n.Addr().BitLen() - n.Bits()) / 4 // hexadecimal digits
	if n.Addr().Is4() {
		host = (n.Addr().BitLen() - n.Bits()) / 8
	}
	labels := dns.Split(name)
	return name[labels[host]:]
}

// local answers for names inside; nil if the question is about the outside.
func (s *state) local(q *dns.Msg) *dns.Msg {
	name := dns.CanonicalName(q.Question[0].Name)
	m := new(dns.Msg).SetReply(q)
	m.Authoritative, m.RecursionAvailable = true, true
	h := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: localTTL}
	addrs, known := s.names[name]
	target, pointer := s.pointers[name]
	own := ownZone(name)
	switch {
	case known && h.Rrtype == dns.TypeA || known && h.Rrtype == dns.TypeAAAA:
		for _, a := range addrs {
			switch {
			case a.Is4() && h.Rrtype == dns.TypeA:
				m.Answer = append(m.Answer, &dns.A{Hdr: h, A: a.AsSlice()})
			case a.Is6() && h.Rrtype == dns.TypeAAAA:
				m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: a.AsSlice()})
			}
		}
	case pointer && h.Rrtype == dns.TypePTR:
		m.Answer = append(m.Answer, &dns.PTR{Hdr: h, Ptr: target})
	case own == "": // also other records of the organisation's names, such as MX
		return nil
	case !known && !pointer && name != own:
		m.Rcode = dns.RcodeNameError
	}
	if len(m.Answer) == 0 {
		m.Ns = append(m.Ns, noSuch(own))
	}
	return m
}

func ownZone(name string) string {
	for _, z := range ownZones {
		if dns.IsSubDomain(z, name) {
			return z
		}
	}
	return ""
}

// noSuch says for how long there is no such record (RFC 2308).
func noSuch(zone string) dns.RR {
	if zone == "" {
		zone = "."
	}
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: localTTL},
		Ns:  dns.Fqdn(hostName), Mbox: "nobody.invalid.", Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: localTTL,
	}
}

var errNoAnswer = errors.New("no upstream resolver answers")
