package network

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/dhcpv6/server6"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"allotment/image"
)

// advertisement is a router advertisement (RFC 4861, 4.2) with a prefix and a resolver.
func advertisement(flags byte, prefix netip.Prefix, dns netip.Addr) []byte {
	b := []byte{134, 0, 0, 0, 64, flags, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0} // a lifetime of 60 s
	option := make([]byte, 32)
	option[0], option[1], option[2], option[3] = 3, 4, byte(prefix.Bits()), 0xc0 // on the link, autonomous
	binary.BigEndian.PutUint32(option[4:], 3600)
	binary.BigEndian.PutUint32(option[8:], 3600)
	copy(option[16:], prefix.Addr().AsSlice())
	b = append(b, option...)
	return append(b, userOption(600, dns.String())[userOptHeader:]...)
}

// advertise sends the advertisement every half second until the test ends.
func (o otherNetwork) advertise(t *testing.T, ra []byte) {
	t.Helper()
	o.do(t, func() error {
		l, err := netlink.LinkByName("outside")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6)
		if err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
			return err
		}
		to := &unix.SockaddrInet6{Addr: netip.MustParseAddr("ff02::1").As16(), ZoneId: uint32(l.Attrs().Index)}
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for tick := time.NewTicker(500 * time.Millisecond); ; {
				select {
				case <-tick.C:
					unix.Sendto(fd, ra, 0, to) // fails until the link has an address
				case <-stop:
					tick.Stop()
					unix.Close(fd)
					return
				}
			}
		}()
		t.Cleanup(func() { close(stop); <-done })
		return nil
	})
}

// serveDHCP6 gives the address out and names the resolver.
func (o otherNetwork) serveDHCP6(t *testing.T, address, dns netip.Addr) {
	t.Helper()
	answer := func(conn net.PacketConn, peer net.Addr, m dhcpv6.DHCPv6) {
		asked, err := m.GetInnerMessage()
		if err != nil {
			return
		}
		options := []dhcpv6.Modifier{
			dhcpv6.WithServerID(&dhcpv6.DUIDLL{HWType: 1, LinkLayerAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}),
			dhcpv6.WithDNS(dns.AsSlice()),
		}
		if ia := asked.Options.OneIANA(); ia != nil {
			options = append(options, dhcpv6.WithIAID(ia.IaId), dhcpv6.WithIANA(dhcpv6.OptIAAddress{
				IPv6Addr: address.AsSlice(), PreferredLifetime: time.Hour, ValidLifetime: 2 * time.Hour}))
		}
		reply, err := dhcpv6.NewReplyFromMessage(asked, options...)
		if err == nil {
			conn.WriteTo(reply.ToBytes(), peer)
		}
	}
	o.do(t, func() error {
		s, err := server6.NewServer("outside", nil, answer)
		if err != nil {
			return err
		}
		done := make(chan struct{})
		go func() { s.Serve(); close(done) }()
		t.Cleanup(func() { s.Close(); <-done })
		return nil
	})
}

// run runs an uplink until the test ends, and returns its states and its file of resolvers.
func run(t *testing.T, c image.Network) (<-chan Status, string) {
	t.Helper()
	resolv := t.TempDir() + "/resolv.conf"
	states := make(chan Status, 64)
	u := NewUplink(c, resolv, func(s Status) { states <- s }, func(err error) { t.Log(err) })
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- u.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return states, resolv
}

// await returns the first state that is ok.
func await(t *testing.T, states <-chan Status, what string, ok func(Status) bool) Status {
	t.Helper()
	limit := time.After(20 * time.Second)
	var last Status
	for {
		select {
		case last = <-states:
			if ok(last) {
				return last
			}
		case <-limit:
			t.Fatalf("never: %s; last was %+v", what, last)
		}
	}
}

func TestUplinkByIPv6(t *testing.T) {
	isolated(t)
	if err := setSysctl("ipv6/conf/all/forwarding", "1"); err != nil { // a router would not listen to routers
		t.Fatal(err)
	}
	prefix := netip.MustParsePrefix("2001:db8:7::/64")
	dns1, dns2 := netip.MustParseAddr("2001:db8:7::53"), netip.MustParseAddr("2001:db8:7::54")
	lent := netip.MustParseAddr("2001:db8:7::1234")
	const managed, other = 0x80, 0x40 // as in the message; the kernel numbers them differently
	for link, flags := range map[string]byte{"autonomous": 0, "dhcp-other": other, "dhcp-managed": managed} {
		t.Run(link, func(t *testing.T) { // each with a name of its own: package net remembers for a minute which link had it
			outside := plug(t, link, netip.MustParsePrefix("fe80::1/64"))
			outside.serveDHCP6(t, lent, dns2)
			outside.advertise(t, advertisement(flags, prefix, dns1))
			states, resolv := run(t, image.Network{Mode: "auto", Interface: link})
			s := await(t, states, "an address and resolvers", func(s Status) bool {
				own := slices.ContainsFunc(s.Addresses, func(p netip.Prefix) bool { return p.Bits() == 64 && prefix.Contains(p.Addr()) })
				return own && slices.Contains(s.DNS, dns1) && slices.Contains(s.DNS, dns2) == (flags != 0) &&
					slices.Contains(s.Addresses, netip.PrefixFrom(lent, 128)) == (flags == managed)
			})
			b, err := os.ReadFile(resolv)
			if err != nil || !strings.Contains(string(b), "nameserver "+dns1.String()+"\n") {
				t.Errorf("%q, %v", b, err)
			}
			t.Logf("%+v", s)
			outside.do(t, func() error {
				l, err := netlink.LinkByName("outside")
				if err != nil {
					return err
				}
				return netlink.LinkSetDown(l)
			})
			await(t, states, "the cable is out", func(s Status) bool { return s.Link == "" })
			near, err := netlink.LinkByName(link)
			if err != nil {
				t.Fatal(err)
			}
			all, err := list(func() ([]netlink.Addr, error) { return netlink.AddrList(near, netlink.FAMILY_V6) })
			if err != nil || slices.ContainsFunc(all, func(a netlink.Addr) bool { return a.IP.Equal(lent.AsSlice()) }) {
				t.Errorf("the lent address stays: %v, %v", all, err)
			}
		})
	}
}

func TestStaticUplink(t *testing.T) {
	isolated(t)
	plug(t, "static", netip.MustParsePrefix("192.0.2.1/24"))
	states, resolv := run(t, image.Network{Mode: "static", Interface: "static", Addresses: []string{"192.0.2.10/24", "2001:db8::10/64"},
		Gateways: []string{"192.0.2.1", "2001:db8::1"}, DNS: []string{"192.0.2.53"}})
	await(t, states, "both addresses", func(s Status) bool { return len(s.Addresses) == 2 && len(s.DNS) == 1 })
	for family, want := range map[int]string{netlink.FAMILY_V4: "192.0.2.1", netlink.FAMILY_V6: "2001:db8::1"} {
		routes, err := list(func() ([]netlink.Route, error) { return netlink.RouteList(nil, family) })
		if err != nil || !slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Gw.String() == want }) {
			t.Errorf("no route by %s: %v, %v", want, routes, err)
		}
	}
	if b, err := os.ReadFile(resolv); err != nil || !strings.HasPrefix(string(b), "nameserver 192.0.2.53\n") {
		t.Errorf("%q, %v", b, err)
	}
}
