package resolver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"allotment/image"
	"allotment/init/plan"
)

// Clients: one that may ask for names outside, and one that may not.
var (
	trusted = netip.MustParseAddr("127.0.0.1")
	other   = netip.MustParseAddr("127.0.0.2")
)

// serve runs a resolver on a free port until the test ends.
func serve(t testing.TB, c Config, limits Limits) (*Resolver, netip.AddrPort) {
	t.Helper()
	r, err := New(c, limits, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := listenFree(netip.IPv4Unspecified())
	if err != nil {
		t.Fatal(err)
	}
	at := portOf(t, sockets[0])
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Serve(ctx, sockets) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r, netip.AddrPortFrom(trusted, at)
}

// TestServeEndsAsItBegins has the context end before the sockets are served.
func TestServeEndsAsItBegins(t *testing.T) {
	r, err := New(Config{}, DefaultLimits(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := listenFree(trusted)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := r.Serve(ctx, sockets); err != nil {
		t.Error(err)
	}
}

// listenFree listens at a port that is free for UDP and for TCP: what the kernel gives for one may be taken for the other.
func listenFree(a netip.Addr) (sockets []*os.File, err error) {
	for range 20 {
		if sockets, err = listenAt(netip.AddrPortFrom(a, 0)); !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return sockets, err
}

func portOf(t testing.TB, f *os.File) uint16 {
	t.Helper()
	c, err := net.FilePacketConn(f)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

// ask sends a question from an address and returns the answer as text: the code, then the records' data.
func ask(t testing.TB, from netip.Addr, at netip.AddrPort, network, name string, kind uint16) string {
	t.Helper()
	r := exchange(t, from, at, network, new(dns.Msg).SetQuestion(dns.Fqdn(name), kind))
	out := []string{dns.RcodeToString[r.Rcode]}
	for _, rr := range r.Answer {
		out = append(out, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return strings.Join(out, " ")
}

func exchange(t testing.TB, from netip.Addr, at netip.AddrPort, network string, q *dns.Msg) *dns.Msg {
	t.Helper()
	d := &net.Dialer{Timeout: 10 * time.Second}
	if network == "udp" {
		d.LocalAddr = &net.UDPAddr{IP: from.AsSlice()}
	} else {
		d.LocalAddr = &net.TCPAddr{IP: from.AsSlice()}
	}
	c := &dns.Client{Net: network, Dialer: d, Timeout: 20 * time.Second}
	r, _, err := c.Exchange(q, at.String())
	if err != nil {
		t.Fatalf("%v: %v", q.Question, err)
	}
	return r
}

// outside is a resolver of the network. It knows every name below "example." as TXT records.
type outside struct {
	at    netip.AddrPort
	asked atomic.Int32
	reply func(q, r *dns.Msg, tcp bool) bool // changes the answer; false: there is none
}

func newOutside(t testing.TB, reply func(q, r *dns.Msg, tcp bool) bool) *outside {
	t.Helper()
	o := &outside{reply: reply}
	sockets, err := listenFree(trusted)
	if err != nil {
		t.Fatal(err)
	}
	o.at = netip.AddrPortFrom(trusted, portOf(t, sockets[0]))
	u, err := net.FilePacketConn(sockets[0])
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(sockets[1])
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: u, Handler: o}, {Listener: l, Handler: o}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}
	return o
}

func (o *outside) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	o.asked.Add(1)
	r := new(dns.Msg).SetReply(q)
	if strings.HasSuffix(q.Question[0].Name, "example.") {
		rr, _ := dns.NewRR(q.Question[0].Name + ` 60 IN TXT "here"`)
		r.Answer = append(r.Answer, rr)
	} else {
		r.Rcode = dns.RcodeNameError
	}
	_, tcp := w.RemoteAddr().(*net.TCPAddr)
	if o.reply == nil || o.reply(q, r, tcp) {
		w.WriteMsg(r)
	}
}

func testModules() []*plan.Module {
	web := &plan.Module{Name: "web", IPv4: netip.MustParsePrefix("10.209.0.2/16"), IPv6: netip.MustParsePrefix("fd00:a110::2/64"),
		Declared: &image.Module{Egress: []image.Egress{{Ports: []int{443}}}}}
	directory := &plan.Module{Name: "directory", IPv4: netip.MustParsePrefix("10.209.0.3/16"), IPv6: netip.MustParsePrefix("fd00:a110::3/64"),
		Declared: &image.Module{}}
	return []*plan.Module{web, directory}
}

func TestConfig(t *testing.T) {
	c := NewConfig(testModules(), []string{"Club.Example."}, []netip.Addr{netip.MustParseAddr("fe80::1%eth0")})
	host := []netip.Addr{plan.HostIPv4.Addr(), plan.HostIPv6.Addr()}
	if !slices.Equal(c.Names["club.example"], host) || !slices.Equal(c.Names["host.internal"], host) || len(c.Names) != 4 {
		t.Errorf("%v", c.Names)
	}
	if want := []netip.Addr{netip.MustParseAddr("10.209.0.2"), netip.MustParseAddr("fd00:a110::2")}; !slices.Equal(c.Forward, want) {
		t.Errorf("forwarded for %v", c.Forward)
	}
	if len(c.Upstream) != 1 || c.Upstream[0].String() != "[fe80::1%eth0]:53" {
		t.Errorf("upstream %v", c.Upstream)
	}
	if got, want := ResolvConf(), "nameserver 10.209.0.1\nnameserver fd00:a110::1\noptions edns0\n"; got != want {
		t.Errorf("%q", got)
	}
}

func TestAnswers(t *testing.T) {
	o := newOutside(t, nil)
	c := NewConfig(testModules(), []string{"club.example"}, nil)
	c.Forward, c.Upstream = []netip.Addr{trusted}, []netip.AddrPort{o.at}
	_, at := serve(t, c, DefaultLimits())
	for _, q := range []struct {
		from netip.Addr
		name string
		kind uint16
		want string
	}{
		{other, "directory.internal", dns.TypeA, "NOERROR 10.209.0.3"},
		{other, "DIRECTORY.internal", dns.TypeAAAA, "NOERROR fd00:a110::3"},
		{other, "host.internal", dns.TypeA, "NOERROR 10.209.0.1"},
		{other, "web.internal", dns.TypeMX, "NOERROR"},
		{other, "internal", dns.TypeA, "NOERROR"},
		{trusted, "nobody.internal", dns.TypeA, "NXDOMAIN"},
		{other, "a.web.internal", dns.TypeA, "NXDOMAIN"},
		{other, "club.example", dns.TypeAAAA, "NOERROR fd00:a110::1"},
		{other, "3.0.209.10.in-addr.arpa", dns.TypePTR, "NOERROR directory.internal."},
		{other, "1.0.209.10.in-addr.arpa", dns.TypePTR, "NOERROR host.internal."},
		{other, "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.1.a.0.0.d.f.ip6.arpa", dns.TypePTR, "NOERROR web.internal."},
		{trusted, "9.0.209.10.in-addr.arpa", dns.TypePTR, "NXDOMAIN"},
		// The outside: for those that may, and its twin.
		{trusted, "www.example", dns.TypeTXT, `NOERROR "here"`},
		{other, "www.example", dns.TypeTXT, "REFUSED"},
		{trusted, "club.example", dns.TypeTXT, `NOERROR "here"`},
		{other, "club.example", dns.TypeTXT, "REFUSED"},
		{trusted, "www.nowhere", dns.TypeTXT, "NXDOMAIN"},
		{trusted, "example", dns.TypeANY, "NOTIMP"},
	} {
		for _, network := range []string{"udp", "tcp"} {
			if got := ask(t, q.from, at, network, q.name, q.kind); got != q.want {
				t.Errorf("%s %s for %s by %s: %s, want %s", q.name, dns.TypeToString[q.kind], q.from, network, got, q.want)
			}
		}
	}
	if n := o.asked.Load(); n != 4 { // www.nowhere twice: nothing says how long it may be kept
		t.Errorf("the outside was asked %d times", n)
	}
	if err := probe(context.Background(), at); err != nil {
		t.Error(err)
	}
	if err := probe(context.Background(), o.at); err == nil {
		t.Error("any resolver passes for ours")
	}
}

func TestConfigIsChangedWhole(t *testing.T) {
	r, at := serve(t, NewConfig(testModules(), nil, nil), DefaultLimits())
	if err := r.SetConfig(Config{Names: map[string][]netip.Addr{strings.Repeat("x", 64) + ".internal": {other}}}); err == nil {
		t.Error("a name that cannot be was accepted")
	}
	if got := ask(t, other, at, "udp", "web.internal", dns.TypeA); got != "NOERROR 10.209.0.2" {
		t.Errorf("after a bad configuration: %s", got)
	}
	if err := r.SetConfig(NewConfig(testModules()[1:], nil, nil)); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, other, at, "udp", "web.internal", dns.TypeA); got != "NXDOMAIN" {
		t.Errorf("after the module was switched off: %s", got)
	}
}

func TestUpstreams(t *testing.T) {
	limits := DefaultLimits()
	limits.Attempt = 200 * time.Millisecond
	silent := newOutside(t, func(_, _ *dns.Msg, _ bool) bool { return false })
	failing := newOutside(t, func(_, r *dns.Msg, _ bool) bool { r.Rcode = dns.RcodeServerFailure; return true })
	liar := newOutside(t, func(_, r *dns.Msg, _ bool) bool { r.Question[0].Name = "bank.example."; return true })
	good := newOutside(t, nil)
	forward := func(upstream ...*outside) Config {
		c := Config{Forward: []netip.Addr{trusted}}
		for _, u := range upstream {
			c.Upstream = append(c.Upstream, u.at)
		}
		return c
	}
	r, at := serve(t, forward(), limits)
	for name, upstream := range map[string][]*outside{
		"none": nil, "a silent one": {silent}, "one that answers another question": {liar},
	} {
		if err := r.SetConfig(forward(upstream...)); err != nil {
			t.Fatal(err)
		}
		if got := ask(t, trusted, at, "udp", "www.example", dns.TypeTXT); got != "SERVFAIL" {
			t.Errorf("%s: %s", name, got)
		}
	}
	limits.Attempt = 2 * time.Second // the good one is to have its time also on a busy machine
	_, at = serve(t, forward(silent, failing, good), limits)
	if got := ask(t, trusted, at, "udp", "www.example", dns.TypeTXT); got != `NOERROR "here"` {
		t.Errorf("the third of three: %s", got)
	}
	// The one that answered is asked first from now on.
	before := silent.asked.Load()
	if got := ask(t, trusted, at, "udp", "more.example", dns.TypeTXT); got != `NOERROR "here"` || silent.asked.Load() != before {
		t.Errorf("%s; the silent one was asked %d times more", got, silent.asked.Load()-before)
	}
}

func TestLongAnswers(t *testing.T) {
	long := strings.Repeat("x", 200)
	o := newOutside(t, func(q, r *dns.Msg, tcp bool) bool {
		if !tcp {
			r.Truncated, r.Answer = true, nil
			return true
		}
		for i := range 20 {
			rr, _ := dns.NewRR(fmt.Sprintf("%s 60 IN TXT %d%s", q.Question[0].Name, i, long))
			r.Answer = append(r.Answer, rr)
		}
		return true
	})
	_, at := serve(t, Config{Forward: []netip.Addr{trusted}, Upstream: []netip.AddrPort{o.at}}, DefaultLimits())
	q := new(dns.Msg).SetQuestion("long.example.", dns.TypeTXT)
	if r := exchange(t, trusted, at, "udp", q); !r.Truncated || r.Len() > dns.MinMsgSize {
		t.Errorf("%d bytes by UDP, truncated: %v", r.Len(), r.Truncated)
	}
	q.SetEdns0(4096, false)
	if r := exchange(t, trusted, at, "udp", q); !r.Truncated || r.Len() > payload || r.IsEdns0() == nil {
		t.Errorf("%d bytes by UDP with EDNS, truncated: %v", r.Len(), r.Truncated)
	}
	if r := exchange(t, trusted, at, "tcp", q); r.Truncated || len(r.Answer) != 21 {
		t.Errorf("%d records by TCP", len(r.Answer))
	}
}

// One module cannot take the places of another, nor more than its own.
func TestPendingIsBounded(t *testing.T) {
	limits := DefaultLimits()
	limits.Pending, limits.Attempt, limits.Attempts = 2, 10*time.Second, 1
	release := make(chan struct{})
	var held sync.WaitGroup
	held.Add(2)
	o := newOutside(t, func(q, _ *dns.Msg, _ bool) bool {
		if strings.HasPrefix(q.Question[0].Name, "held") {
			held.Done()
			<-release
		}
		return true
	})
	_, at := serve(t, Config{Forward: []netip.Addr{trusted, other}, Upstream: []netip.AddrPort{o.at}}, limits)
	var waiting sync.WaitGroup
	for i := range 2 {
		waiting.Go(func() {
			if got := ask(t, trusted, at, "udp", fmt.Sprintf("held%d.example", i), dns.TypeTXT); got != `NOERROR "here"` {
				t.Errorf("held: %s", got)
			}
		})
	}
	held.Wait()
	if got := ask(t, trusted, at, "udp", "third.example", dns.TypeTXT); got != "SERVFAIL" {
		t.Errorf("one too many: %s", got)
	}
	if got := ask(t, other, at, "udp", "fourth.example", dns.TypeTXT); got != `NOERROR "here"` {
		t.Errorf("another client: %s", got)
	}
	close(release)
	waiting.Wait()
	if got := ask(t, trusted, at, "udp", "fifth.example", dns.TypeTXT); got != `NOERROR "here"` {
		t.Errorf("afterwards: %s", got)
	}
}

func TestCache(t *testing.T) {
	now := time.Unix(1000, 0)
	c := newCache(20_000, func() time.Time { return now })
	message := func(name string, ttl int) *dns.Msg {
		m := new(dns.Msg).SetQuestion(name, dns.TypeTXT)
		rr, err := dns.NewRR(fmt.Sprintf(`%s %d IN TXT "%s"`, name, ttl, strings.Repeat("x", 200)))
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = []dns.RR{rr}
		return m
	}
	key := func(name string) question { return question{name: name, kind: dns.TypeTXT} }
	c.put(key("a."), message("a.", 60))
	now = now.Add(20 * time.Second)
	if m := c.get(key("a.")); m == nil || m.Answer[0].Header().Ttl != 40 {
		t.Errorf("after 20 of 60 seconds: %v", m)
	}
	if m := c.get(question{name: "a.", kind: dns.TypeTXT, signed: true}); m != nil {
		t.Error("an answer without signatures for a question with them")
	}
	now = now.Add(40 * time.Second)
	if m := c.get(key("a.")); m != nil {
		t.Errorf("after its time: %v", m)
	}
	c.put(key("b."), message("b.", 60))
	now = now.Add(-time.Hour) // the clock is set back: nobody knows how old it is
	if m := c.get(key("b.")); m != nil {
		t.Errorf("from the future: %v", m)
	}
	c.put(key("keep."), message("keep.", 3000))
	for i := range 1000 {
		name := fmt.Sprintf("n%d.", i)
		c.put(key(name), message(name, 60))
		if c.get(key("keep.")) == nil {
			t.Fatalf("what is asked for all the time is gone after %d others", i)
		}
	}
	sum := 0
	for _, e := range c.entries {
		sum += e.Value.(*entry).size()
	}
	if c.used != sum || sum > c.room || len(c.entries) < 20 || c.recent.Len() != len(c.entries) {
		t.Errorf("%d entries of %d bytes, %d counted", len(c.entries), sum, c.used)
	}
	c.put(key("zero."), message("zero.", 0))
	if c.get(key("zero.")) != nil {
		t.Error("kept what must not be")
	}
	nothing := new(dns.Msg).SetQuestion("none.", dns.TypeTXT)
	nothing.Rcode = dns.RcodeNameError
	nothing.Ns = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: 1, Ttl: 86400}, Minttl: 86400}}
	if ttl := lifetime(nothing); ttl != longestNegative {
		t.Errorf("that there is nothing is kept for %d s", ttl)
	}
}

func FuzzAnswer(f *testing.F) {
	r, err := New(NewConfig(testModules(), []string{"club.example"}, nil), DefaultLimits(), slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{"web.internal.", "3.0.209.10.in-addr.arpa.", "club.example.", "a\\.b.internal."} {
		b, _ := new(dns.Msg).SetQuestion(name, dns.TypeA).SetEdns0(4096, true).Pack()
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q := new(dns.Msg)
		if q.Unpack(b) != nil {
			return
		}
		m := r.answer(trusted, q)
		if _, err := m.Pack(); err != nil && len(m.Answer)+len(m.Ns) > 0 {
			t.Errorf("%v: %v", q, err)
		}
	})
}

// FuzzUpstream is what a resolver of the network, or whoever forges its answers, can send.
func FuzzUpstream(f *testing.F) {
	m := new(dns.Msg).SetQuestion("www.example.", dns.TypeTXT)
	m.Response = true
	rr, _ := dns.NewRR(`www.example. 60 IN TXT "here"`)
	m.Answer = []dns.RR{rr}
	b, _ := m.Pack()
	f.Add(b)
	k := question{name: "www.example.", kind: dns.TypeTXT}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(dns.Msg)
		if m.Unpack(b) != nil || judge(k, m) != nil {
			return
		}
		c := newCache(1<<20, time.Now)
		c.put(k, m)
		again := c.get(k)
		if again == nil {
			return
		}
		if r := reply(new(dns.Msg).SetQuestion("www.example.", dns.TypeTXT), again); len(r.Answer) != len(m.Answer) {
			t.Errorf("%d records of %d", len(r.Answer), len(m.Answer))
		}
	})
}

// BenchmarkQueries asks over a real socket; the name inside is answered from the table, the other from the cache.
func BenchmarkQueries(b *testing.B) {
	o := newOutside(b, nil)
	c := NewConfig(testModules(), nil, nil)
	c.Forward, c.Upstream = []netip.Addr{trusted}, []netip.AddrPort{o.at}
	_, at := serve(b, c, DefaultLimits())
	for name, kind := range map[string]uint16{"web.internal.": dns.TypeA, "www.example.": dns.TypeTXT} {
		b.Run(name, func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				conn, err := dns.Dial("udp", at.String())
				if err != nil {
					b.Error(err)
					return
				}
				defer conn.Close()
				client := new(dns.Client)
				for pb.Next() {
					if _, _, err := client.ExchangeWithConn(new(dns.Msg).SetQuestion(name, kind), conn); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
