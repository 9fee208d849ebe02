package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"allotment/image"
)

// fakeTime is a clock on which waiting takes no time.
type fakeTime struct{ now time.Time }

func (f *fakeTime) Now() time.Time { return f.now }

func (f *fakeTime) Sleep(ctx context.Context, d time.Duration) error {
	f.now = f.now.Add(max(d, 0))
	return ctx.Err()
}

// script is a server that does what it is told, step by step, and notes what it is asked for and when.
type script struct {
	clock *fakeTime
	start time.Time
	steps []string // ok, silent, nak
	asked []string
	stop  context.CancelFunc
}

func (s *script) answer(kind string) (*Lease, error) {
	s.asked = append(s.asked, kind+"@"+s.clock.now.Sub(s.start).Round(time.Minute).String())
	if len(s.steps) == 0 {
		s.stop()
		return nil, errors.New("the script is over")
	}
	step := s.steps[0]
	s.steps = s.steps[1:]
	switch step {
	case "ok":
		return &Lease{Address: netip.MustParsePrefix("192.0.2.9/24"), Obtained: s.clock.now,
			Renew: 30 * time.Minute, Rebind: 52 * time.Minute, Expiry: time.Hour}, nil
	case "nak":
		return nil, errRefused
	}
	return nil, errors.New("silent")
}

func (s *script) request(context.Context) (*Lease, error)        { return s.answer("request") }
func (s *script) renew(context.Context, *Lease) (*Lease, error)  { return s.answer("renew") }
func (s *script) rebind(context.Context, *Lease) (*Lease, error) { return s.answer("rebind") }
func (s *script) release(*Lease) error                           { s.asked = append(s.asked, "release"); return nil }

func TestLeaseMachine(t *testing.T) {
	silent := func(n int) []string { return slices.Repeat([]string{"silent"}, n) }
	for _, c := range []struct {
		name    string
		steps   []string
		asked   string // the first of what the server is asked
		reports string // + for a lease, - for its loss
	}{
		{"renewed at half its life", []string{"ok", "ok", "ok"}, "request@0s renew@30m0s renew@1h0m0s", "+++"},
		// Between 30 and 52 minutes: half of the time left, at least a minute. Then anybody is asked.
		{"rebound", append([]string{"ok"}, append(silent(6), "ok")...),
			"request@0s renew@30m0s renew@41m0s renew@47m0s renew@49m0s renew@51m0s renew@52m0s rebind@52m0s", "++"},
		{"expires", append([]string{"ok"}, append(silent(10), "ok")...),
			"request@0s renew@30m0s renew@41m0s renew@47m0s renew@49m0s renew@51m0s renew@52m0s " +
				"rebind@52m0s rebind@56m0s rebind@58m0s rebind@59m0s request@1h0m0s", "+-+"},
		{"refused", []string{"ok", "nak", "ok"}, "request@0s renew@30m0s request@30m0s", "+-+"},
		{"nobody there at first", append(silent(3), "ok"), "request@0s", "+"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, stop := context.WithCancel(context.Background())
			clock := &fakeTime{now: time.Unix(0, 0)}
			server := &script{clock: clock, start: clock.now, steps: c.steps, stop: stop}
			var reports strings.Builder
			d := &dhcp4{server: server, clock: clock, trouble: func(error) {}, report: func(l *Lease) {
				if l == nil {
					reports.WriteString("-")
					return
				}
				reports.WriteString("+")
			}}
			d.run(ctx)
			if got := strings.Join(server.asked, " "); !strings.HasPrefix(got, c.asked) {
				t.Errorf("asked %s\nwant  %s", got, c.asked)
			}
			if got := reports.String(); !strings.HasPrefix(got, c.reports) {
				t.Errorf("reports %s, want %s", got, c.reports)
			}
		})
	}
}

func TestNoLeaseIsUsedAfterItsEnd(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	clock := &fakeTime{now: time.Unix(0, 0)}
	server := &script{clock: clock, start: clock.now, steps: append([]string{"ok"}, slices.Repeat([]string{"silent"}, 40)...), stop: stop}
	var lostAt time.Duration
	d := &dhcp4{server: server, clock: clock, trouble: func(error) {}, report: func(l *Lease) {
		if l == nil {
			lostAt = clock.now.Sub(server.start)
		}
	}}
	d.run(ctx)
	if lostAt != time.Hour {
		t.Errorf("a lease of an hour was used for %v", lostAt)
	}
}

// Whoever looks for the cause finds it in the log, and not a thousand times.
func TestTroubleIsReported(t *testing.T) {
	clock := &fakeTime{now: time.Unix(0, 0)}
	var reports []string
	u := NewUplink(image.Network{}, "", func(Status) {}, func(err error) {
		reports = append(reports, err.Error()+"@"+clock.now.Sub(time.Unix(0, 0)).Round(time.Minute).String())
	})
	u.clock = clock
	ctx, stop := context.WithCancel(context.Background())
	server := &script{clock: clock, start: clock.now, stop: stop,
		steps: append(slices.Repeat([]string{"silent"}, 100), "ok", "nak", "ok")}
	d := &dhcp4{server: server, clock: clock, report: func(*Lease) {}, trouble: func(err error) { u.complain(trouble{"DHCPv4", err}) }}
	d.run(ctx)
	// Asking a hundred times takes more than an hour and a half; the refusal comes half an hour after the first lease.
	if len(reports) != 4 || reports[0] != "silent@0s" || !strings.HasPrefix(reports[1], "silent@1h") ||
		!strings.HasPrefix(reports[2], errRefused.Error()) || !strings.HasPrefix(reports[3], "the script is over") {
		t.Errorf("%q", reports)
	}
}

// What a client of a link says once the link is left is about another one than the link used now.
func TestLateNewsIsNotTaken(t *testing.T) {
	isolated(t)
	plug(t, "late", netip.MustParsePrefix("192.0.2.1/24"))
	states := make(chan Status, 16)
	u := NewUplink(image.Network{Mode: "static", Interface: "late", Addresses: []string{"192.0.2.10/24"}},
		t.TempDir()+"/resolv.conf", func(s Status) { states <- s }, func(err error) { t.Log(err) })
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- u.Run(ctx) }()
	await(t, states, "a link", func(s Status) bool { return s.Link == "late" })
	left, leave := context.WithCancel(ctx)
	lease := func(address string) *Lease6 {
		return &Lease6{DNS: []netip.Addr{netip.MustParseAddr(address)}}
	}
	leave()
	u.heard <- message{ctx, lease("2001:db8::1")}
	u.heard <- message{left, lease("2001:db8::2")} // what send may do when both its cases are ready
	u.heard <- message{left, nil}                  // now the one before is done with, and so is the first of all
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := u.resolvers(); len(got) != 1 || got[0].String() != "2001:db8::1" {
		t.Errorf("resolvers %v", got)
	}
}

func TestResolversOfTheLink(t *testing.T) {
	router := netip.MustParseAddr("fe80::1")
	u := NewUplink(image.Network{}, "", func(Status) {}, func(error) {})
	u.link = &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "eth7"}}
	u.lease6 = &Lease6{DNS: []netip.Addr{router}}
	u.advertised = []resolver{{addr: router}, {addr: netip.MustParseAddr("2001:db8::53")}}
	if got := u.resolvers(); len(got) != 2 || got[0].String() != "fe80::1%eth7" || got[1].String() != "2001:db8::53" {
		t.Errorf("resolvers %v", got)
	}
}

func ack(t *testing.T, options ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 9)),
		dhcpv4.WithMessageType(dhcpv4.MessageTypeAck)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestLeaseOfServer(t *testing.T) {
	l, err := newLease(ack(t,
		dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithRouter(net.IPv4(192, 0, 2, 1)),
		dhcpv4.WithDNS(net.IPv4(192, 0, 2, 53)), dhcpv4.WithLeaseTime(1000)), time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if l.Address.String() != "192.0.2.9/24" || l.DNS[0].String() != "192.0.2.53" || l.Expiry != 1000*time.Second ||
		l.Renew != 500*time.Second || l.Rebind != 875*time.Second || l.Routes[0].To.Bits() != 0 {
		t.Errorf("%+v", l)
	}
	// Routes replace the router (RFC 3442); a provider that lends a single address does so.
	route := &dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(172, 31, 1, 1), Mask: net.CIDRMask(32, 32)}, Router: net.IPv4zero}
	all := &dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Router: net.IPv4(172, 31, 1, 1)}
	l, err = newLease(ack(t, dhcpv4.WithNetmask(net.CIDRMask(32, 32)), dhcpv4.WithRouter(net.IPv4(9, 9, 9, 9)),
		dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(route, all))), time.Unix(0, 0))
	if err != nil || len(l.Routes) != 2 || l.Routes[0].Gateway.IsValid() || l.Routes[1].Gateway.String() != "172.31.1.1" {
		t.Errorf("%+v, %v", l, err)
	}
	// What a server must not be able to do: a lease of a second, times in the wrong order, a broken mask.
	l, err = newLease(ack(t, dhcpv4.WithLeaseTime(1), dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionRenewTimeValue, []byte{0xff, 0, 0, 0}))), time.Unix(0, 0))
	if err != nil || l.Expiry != shortestLease || l.Renew != shortestLease/2 {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err = newLease(ack(t, dhcpv4.WithNetmask(net.IPMask{255, 0, 255, 0})), time.Unix(0, 0)); err == nil {
		t.Error("a mask with holes was accepted")
	}
	if _, err = newLease(ack(t, dhcpv4.WithYourIP(net.IPv4(127, 0, 0, 1))), time.Unix(0, 0)); err == nil {
		t.Error("a loopback address was accepted")
	}
	// Nor may it come between the gateway and the modules.
	if _, err = newLease(ack(t, dhcpv4.WithYourIP(net.IPv4(10, 209, 0, 1))), time.Unix(0, 0)); err == nil {
		t.Error("an address of the modules' network was accepted")
	}
	module := &dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(10, 209, 0, 2), Mask: net.CIDRMask(32, 32)}, Router: net.IPv4(192, 0, 2, 1)}
	wide := &dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(10, 0, 0, 0), Mask: net.CIDRMask(8, 32)}, Router: net.IPv4(192, 0, 2, 1)}
	l, err = newLease(ack(t, dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
		dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(module, wide))), time.Unix(0, 0))
	if err != nil || len(l.Routes) != 1 || l.Routes[0].To.String() != "10.0.0.0/8" {
		t.Errorf("%+v, %v", l, err)
	}
}

func FuzzLease(f *testing.F) {
	m, _ := dhcpv4.New(dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 9)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)))
	f.Add(m.ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		l, err := newLease(m, time.Unix(0, 0))
		if err == nil && (l.Renew <= 0 || l.Renew > l.Rebind || l.Rebind > l.Expiry || !l.Address.IsValid()) {
			t.Errorf("%+v", l)
		}
	})
}

// otherNetwork is another network namespace, with the end of a cable in it.
type otherNetwork struct{ path string }

// do runs f in the other network.
func (o otherNetwork) do(t *testing.T, f func() error) {
	t.Helper()
	ns, err := os.Open(o.path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	err = inThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// plug lays a cable from the link name here to the link "outside" in a new network, which has address and is up.
func plug(t *testing.T, name string, address netip.Prefix) otherNetwork {
	t.Helper()
	o := otherNetwork{t.TempDir() + "/outside"}
	if err := makeNamespace(o.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(o.path, unix.MNT_DETACH) })
	// Nobody else can have the addresses, so nobody need be asked for a second before they are used.
	noDAD := func() error { return setSysctl("ipv6/conf/default/accept_dad", "0") }
	o.do(t, noDAD)
	if err := noDAD(); err != nil {
		t.Fatal(err)
	}
	ns, err := os.Open(o.path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	cable := &netlink.Veth{LinkAttrs: attrs, PeerName: "outside", PeerNamespace: netlink.NsFd(ns.Fd())}
	if err := netlink.LinkAdd(cable); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netlink.LinkDel(cable) })
	o.do(t, func() error {
		l, err := netlink.LinkByName("outside")
		if err != nil {
			return err
		}
		return configure(l, address)
	})
	return o
}

// serveDHCP answers as a small router would, until the test ends.
func (o otherNetwork) serveDHCP(t *testing.T) {
	t.Helper()
	host := net.IPv4(192, 0, 2, 1)
	answer := func(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
		kind := dhcpv4.MessageTypeOffer
		if m.MessageType() == dhcpv4.MessageTypeRequest {
			kind = dhcpv4.MessageTypeAck
		}
		reply, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 9)),
			dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithRouter(host), dhcpv4.WithDNS(host),
			dhcpv4.WithServerIP(host), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(host)), dhcpv4.WithLeaseTime(3600))
		if err != nil {
			return
		}
		to := &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort}
		if !m.ClientIPAddr.IsUnspecified() {
			to.IP = m.ClientIPAddr
		}
		conn.WriteTo(reply.ToBytes(), to)
	}
	o.do(t, func() error {
		s, err := server4.NewServer("outside", &net.UDPAddr{Port: dhcpv4.ServerPort}, answer)
		if err != nil {
			return err
		}
		done := make(chan struct{})
		go func() { s.Serve(); close(done) }()
		t.Cleanup(func() { s.Close(); <-done })
		return nil
	})
}

// The whole way on a real link: a cable that is plugged in late, an address from a server, renewal, the cable out again.
func TestUplinkGetsAnAddress(t *testing.T) {
	isolated(t)
	outside := plug(t, "uplink", netip.MustParsePrefix("192.0.2.1/24"))
	carrier := func(up bool) {
		outside.do(t, func() error {
			l, err := netlink.LinkByName("outside")
			if err == nil && up {
				return netlink.LinkSetUp(l)
			} else if err == nil {
				return netlink.LinkSetDown(l)
			}
			return err
		})
	}
	carrier(false)
	outside.serveDHCP(t)
	resolv := t.TempDir() + "/resolv.conf"
	states := make(chan Status, 16)
	u := NewUplink(image.Network{Mode: "auto", Interface: "uplink"}, resolv, func(s Status) { states <- s },
		func(err error) { t.Log(err) })
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- u.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	carrier(true)
	await(t, states, "an address", func(s Status) bool {
		return s.Link == "uplink" && slices.Contains(s.Addresses, netip.MustParsePrefix("192.0.2.9/24")) && len(s.DNS) == 1
	})
	routes, err := netlink.RouteList(u.link, netlink.FAMILY_V4)
	if err != nil || !slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Gw.Equal(net.IPv4(192, 0, 2, 1)) }) {
		t.Errorf("routes %v, %v", routes, err)
	}
	w := wire{link: "uplink", mac: u.link.Attrs().HardwareAddr, clock: systemTime{}}
	for name, ask := range map[string]func(context.Context, *Lease) (*Lease, error){"renew": w.renew, "rebind": w.rebind} {
		if l, err := ask(ctx, u.lease); err != nil || l.Address != u.lease.Address {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
	carrier(false)
	await(t, states, "the loss of the link", func(s Status) bool { return s.Link == "" && len(s.Addresses) == 0 })
}
