// Package network joins the box to the network: links, addresses by DHCPv4, IPv6 autoconfiguration, DHCPv6 or from the
// manifest, resolvers, the modules' links, and who may talk to whom. Everything follows the kernel's events;
// a cable that is plugged in late works as one that was there.
package network

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"allotment/image"
)

// Status is what the outside knows the box by.
type Status struct {
	Link      string         // empty: no link has a carrier
	Addresses []netip.Prefix // on that link, without link-local ones
	DNS       []netip.Addr
}

// Equal tells whether two states are the same.
func (s Status) Equal(t Status) bool {
	return s.Link == t.Link && slices.Equal(s.Addresses, t.Addresses) && slices.Equal(s.DNS, t.DNS)
}

// Uplink keeps the link to the outside.
type Uplink struct {
	config  image.Network
	resolv  string
	report  func(Status)
	clock   timekeeper
	logErr  func(error)
	changed chan struct{}
	heard   chan message

	link       netlink.Link // nil: none
	cancel     context.CancelFunc
	flags      uint32 // of the last router advertisement
	lease      *Lease
	lease6     *Lease6
	advertised []resolver
	last       Status
	troubles   map[string]time.Time // when the trouble of a client was last reported
}

// message is what a running client or a router tells: *Lease, lost, *Lease6, routerNews or trouble. It counts only while
// the link that it came by is used, which is as long as ctx.
type message struct {
	ctx  context.Context
	news any
}

// trouble is why a client has no success.
type trouble struct {
	client string
	err    error // nil: it has success again
}

// routerNews are resolvers that a router advertised on a link.
type routerNews struct {
	index     int
	resolvers []resolver
}

// lost is sent when a lease ends without a new one.
type lost struct{}

// NewUplink returns an uplink that writes the resolvers to the file resolv, tells every change to report, and every error
// from which it goes on to logErr. Both are called from Run's goroutine.
func NewUplink(c image.Network, resolv string, report func(Status), logErr func(error)) *Uplink {
	return &Uplink{
		config: c, resolv: resolv, report: report, logErr: logErr, clock: systemTime{},
		changed: make(chan struct{}, 1), heard: make(chan message), troubles: map[string]time.Time{},
	}
}

// Run joins the network and follows its changes until ctx ends.
func (u *Uplink) Run(ctx context.Context) error {
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		groupIfinfo6, groupUserOpt)
	if err != nil {
		return fmt.Errorf("cannot follow the network's changes: %w", err)
	}
	defer socket.Close()
	deaf := make(chan error, 1)
	go func() { deaf <- u.listen(ctx, socket) }()
	if err := u.writeResolv(nil); err != nil {
		return err
	}
	u.update(ctx)
	for {
		select {
		case <-ctx.Done():
			if u.cancel != nil {
				u.cancel()
			}
			return nil
		case err := <-deaf: // for months nobody would notice that cables and addresses come and go unseen
			return fmt.Errorf("cannot follow the network's changes: %w", err)
		case <-u.changed:
			u.update(ctx)
		case m := <-u.heard:
			if m.ctx.Err() == nil { // by now the link may have been left
				u.take(m.news)
			}
		}
	}
}

// listen turns the kernel's messages into signals until the socket is closed.
func (u *Uplink) listen(ctx context.Context, socket *nl.NetlinkSocket) error {
	for {
		messages, _, err := socket.Receive()
		if err != nil && err != unix.ENOBUFS && err != unix.EINTR { // ENOBUFS: some were lost, so look again
			return err
		}
		for _, m := range messages {
			if m.Header.Type != unix.RTM_NEWNDUSEROPT {
				continue
			}
			if index, found := routerResolvers(m.Data, u.clock.Now()); found != nil {
				u.send(ctx, routerNews{index, found})
			}
		}
		select {
		case u.changed <- struct{}{}:
		default:
		}
	}
}

// send hands news on until the link that they came by is left.
func (u *Uplink) send(ctx context.Context, news any) {
	select {
	case u.heard <- message{ctx, news}:
	case <-ctx.Done():
	}
}

// update looks at all links, takes up or leaves one, and reports what the outside sees.
func (u *Uplink) update(ctx context.Context) {
	links, err := list(netlink.LinkList)
	if err != nil {
		u.logErr(err)
		return
	}
	best := u.choose(links)
	switch {
	case best == nil && u.link != nil:
		u.leave()
	case best != nil && (u.link == nil || u.link.Attrs().Index != best.Attrs().Index):
		u.leave()
		u.join(ctx, best)
	}
	if u.link != nil && u.config.Mode != "static" {
		u.followRouters(ctx)
	}
	u.publish()
}

// choose sets every Ethernet link up, since a link that is down shows no carrier, and returns the one to use.
func (u *Uplink) choose(links []netlink.Link) netlink.Link {
	var best netlink.Link
	for _, l := range links {
		a := l.Attrs()
		if !u.wanted(l) {
			continue
		}
		if a.RawFlags&unix.IFF_UP == 0 {
			if err := u.prepare(l); err != nil {
				u.logErr(err)
			}
			continue
		}
		current := u.link != nil && u.link.Attrs().Index == a.Index
		if a.RawFlags&unix.IFF_LOWER_UP != 0 && (best == nil || current) {
			best = l
		}
	}
	return best
}

// wanted tells whether the link may lead outside: the one that the manifest names, or any real Ethernet link.
func (u *Uplink) wanted(l netlink.Link) bool {
	if u.config.Interface != "" {
		return l.Attrs().Name == u.config.Interface
	}
	return l.Type() == "device" && l.Attrs().EncapType == "ether"
}

func (u *Uplink) prepare(l netlink.Link) error {
	name := l.Attrs().Name
	acceptRA := "2" // although the host forwards packets, by which the kernel would take it for a router
	if u.config.Mode == "static" {
		acceptRA = "0"
	}
	if err := setSysctl("ipv6/conf/"+name+"/accept_ra", acceptRA); err != nil {
		u.logErr(err) // there may be no IPv6 at all
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("cannot set %s up: %w", name, err)
	}
	if err := takeShortWay(name); err != nil {
		u.logErr(err) // it is the slower way then
	}
	return nil
}

// join begins to use the link.
func (u *Uplink) join(ctx context.Context, l netlink.Link) {
	u.link = l
	ctx, u.cancel = context.WithCancel(ctx)
	if u.config.Mode == "static" {
		if err := u.configureStatic(l); err != nil {
			u.logErr(err)
		}
		return
	}
	client := &dhcp4{
		server: wire{link: l.Attrs().Name, mac: l.Attrs().HardwareAddr, clock: u.clock},
		clock:  u.clock,
		report: func(lease *Lease) {
			if lease == nil {
				u.send(ctx, lost{})
				return
			}
			u.send(ctx, lease)
		},
		trouble: func(err error) { u.send(ctx, trouble{"DHCPv4", err}) },
	}
	go client.run(ctx)
}

// leave forgets the link and what came by it.
func (u *Uplink) leave() {
	if u.link == nil {
		return
	}
	u.cancel()
	if u.lease != nil {
		u.dropLease()
	}
	u.dropLease6()
	u.link, u.advertised, u.flags = nil, nil, 0
	clear(u.troubles)
}

// followRouters starts DHCPv6 when a router asks for it.
func (u *Uplink) followRouters(ctx context.Context) {
	flags, err := routerFlags(u.link.Attrs().Index)
	if err != nil {
		u.logErr(fmt.Errorf("cannot read what routers advertise: %w", err))
		return
	}
	flags &= flagManaged | flagOther
	if flags == 0 || u.flags != 0 {
		return
	}
	u.flags = flags
	// The client ends with the link: its context is the link's, which leave cancels by way of the DHCPv4 client's.
	ctx, cancel := context.WithCancel(ctx)
	stop := u.cancel
	u.cancel = func() { stop(); cancel() }
	client := &dhcp6{
		link: u.link.Attrs().Name, mac: u.link.Attrs().HardwareAddr, managed: flags&flagManaged != 0, clock: u.clock,
		report:  func(l *Lease6) { u.send(ctx, l) },
		trouble: func(err error) { u.send(ctx, trouble{"DHCPv6", err}) },
	}
	go client.run(ctx)
}

// take applies what a client or a router told.
func (u *Uplink) take(news any) {
	if u.link == nil {
		return
	}
	switch n := news.(type) {
	case *Lease:
		if u.lease != nil && u.lease.Address != n.Address {
			u.dropLease()
		}
		u.lease = n
		if err := apply(u.link, n); err != nil {
			u.logErr(err)
		}
	case lost:
		u.dropLease()
	case *Lease6:
		if u.lease6 != nil && u.lease6.Address != n.Address {
			u.dropLease6()
		}
		u.lease6 = n
		if err := apply6(u.link, n); err != nil {
			u.logErr(err)
		}
	case routerNews:
		if n.index == u.link.Attrs().Index {
			u.advertised = merge(u.advertised, n.resolvers, u.clock.Now())
		}
	case trouble:
		u.complain(n)
	}
	u.publish()
}

// quiet is for how long no more is said of a client that goes on having no success.
const quiet = time.Hour

// complain reports a client's trouble when it begins and then now and again.
func (u *Uplink) complain(t trouble) {
	now := u.clock.Now()
	said, before := u.troubles[t.client]
	switch {
	case t.err == nil:
		delete(u.troubles, t.client)
	case !before || now.Sub(said) >= quiet || now.Before(said):
		u.troubles[t.client] = now
		u.logErr(t.err)
	}
}

func (u *Uplink) dropLease() {
	if u.lease == nil {
		return
	}
	netlink.AddrDel(u.link, &netlink.Addr{IPNet: ipNet(u.lease.Address)}) // the kernel drops the routes with it
	u.lease = nil
}

func (u *Uplink) dropLease6() {
	if u.lease6 != nil && u.lease6.Address.IsValid() {
		netlink.AddrDel(u.link, &netlink.Addr{IPNet: ipNet(single(u.lease6.Address))})
	}
	u.lease6 = nil
}

// mostAdvertised is how many advertised resolvers are kept, so that nobody on the link can fill the memory with them.
const mostAdvertised = 8

// merge adds news to known resolvers; a lifetime of zero takes one away (RFC 8106, 5.1).
func merge(known, news []resolver, now time.Time) []resolver {
	var out []resolver
	for _, r := range append(news, known...) {
		seen := slices.ContainsFunc(out, func(o resolver) bool { return o.addr == r.addr })
		withdrawn := slices.ContainsFunc(news, func(o resolver) bool { return o.addr == r.addr && !o.until.After(now) })
		if !seen && !withdrawn && r.until.After(now) {
			out = append(out, r)
		}
	}
	return out[:min(mostAdvertised, len(out))]
}

// publish tells the state if it is another one than before.
func (u *Uplink) publish() {
	s := Status{DNS: u.resolvers()}
	if u.link != nil {
		s.Link = u.link.Attrs().Name
		addrs, err := list(func() ([]netlink.Addr, error) { return netlink.AddrList(u.link, netlink.FAMILY_ALL) })
		if err != nil {
			u.logErr(err)
			return
		}
		s.Addresses = usable(addrs)
	}
	if s.Equal(u.last) {
		return
	}
	if !slices.Equal(s.DNS, u.last.DNS) {
		if err := u.writeResolv(s.DNS); err != nil {
			u.logErr(err)
		}
	}
	u.last = s
	u.report(s)
}

// usable are the addresses by which others can reach the box.
func usable(addrs []netlink.Addr) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok || a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED|unix.IFA_F_DEPRECATED) != 0 {
			continue
		}
		ip = ip.Unmap()
		bits, _ := a.Mask.Size()
		if ip.IsGlobalUnicast() {
			out = append(out, netip.PrefixFrom(ip, bits))
		}
	}
	slices.SortStableFunc(out, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return out
}

// resolvers are those of the manifest if it names any, else all that the network told of.
func (u *Uplink) resolvers() []netip.Addr {
	var out []netip.Addr
	add := func(a netip.Addr) {
		if a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "" && u.link != nil {
			a = a.WithZone(u.link.Attrs().Name) // without it nobody knows on which link that is
		}
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	for _, s := range u.config.DNS {
		if a, err := netip.ParseAddr(s); err == nil {
			add(a)
		}
	}
	if len(out) > 0 {
		return out
	}
	if u.lease != nil {
		for _, a := range u.lease.DNS {
			add(a)
		}
	}
	if u.lease6 != nil {
		for _, a := range u.lease6.DNS {
			add(a)
		}
	}
	for _, r := range u.advertised {
		add(r.addr)
	}
	return out
}

// writeResolv writes the file in place, since containers see this very file.
func (u *Uplink) writeResolv(dns []netip.Addr) error {
	var b strings.Builder
	for _, a := range dns[:min(3, len(dns))] { // resolv.conf(5): more are ignored
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	b.WriteString("options edns0 trust-ad\n")
	return os.WriteFile(u.resolv, []byte(b.String()), 0o644)
}

// list repeats a listing that changed while it was read.
func list[T any](read func() ([]T, error)) ([]T, error) {
	for attempt := 1; ; attempt++ {
		l, err := read()
		if err == nil || attempt == 5 {
			return l, err
		}
	}
}
