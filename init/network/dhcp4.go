package network

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"

	"allotment/init/plan"
)

// Lease is what a DHCP server lends (RFC 2131).
type Lease struct {
	Address  netip.Prefix
	Routes   []Route
	DNS      []netip.Addr
	Obtained time.Time
	Renew    time.Duration // T1: from here on the server that gave it is asked again
	Rebind   time.Duration // T2: from here on any server is asked
	Expiry   time.Duration
	ack      *dhcpv4.DHCPv4
}

// Route is a way to other networks; without a Gateway they are on the link.
type Route struct {
	To      netip.Prefix
	Gateway netip.Addr
}

// errRefused is a server's NAK: the address must not be used any more.
var errRefused = errors.New("the DHCP server refuses the address")

// exchanger talks to DHCP servers. Each method asks several times before it gives up.
type exchanger interface {
	request(ctx context.Context) (*Lease, error)          // discover, then request
	renew(ctx context.Context, l *Lease) (*Lease, error)  // the server that gave the lease
	rebind(ctx context.Context, l *Lease) (*Lease, error) // any server
	release(l *Lease) error
}

// timekeeper is the part of a clock that waiting needs.
type timekeeper interface {
	Now() time.Time
	Sleep(ctx context.Context, d time.Duration) error // the context's error if it ends first
}

type systemTime struct{}

func (systemTime) Now() time.Time { return time.Now() }

func (systemTime) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Times of the lease machine.
const (
	firstRetry = 2 * time.Second
	lastRetry  = time.Minute
	leastWait  = time.Minute // between renewals, as RFC 2131, 4.4.5 asks
)

// dhcp4 keeps one address by DHCP. Its states are its methods: selecting, bound, renewing, rebinding.
type dhcp4 struct {
	server  exchanger
	clock   timekeeper
	report  func(*Lease) // each new lease; nil when there is none any more
	trouble func(error)  // each failure; nil after each success
	lease   *Lease
	retry   time.Duration
}

// state is a state of the lease; it does its work and returns the next one.
type state func(context.Context) state

// run follows the states until ctx ends, and then gives the address back.
func (d *dhcp4) run(ctx context.Context) {
	d.retry = firstRetry
	for s := state(d.selecting); ctx.Err() == nil; {
		s = s(ctx)
	}
	if d.lease != nil {
		d.server.release(d.lease)
	}
}

// selecting: there is no address; ask whoever is there.
func (d *dhcp4) selecting(ctx context.Context) state {
	l, err := d.server.request(ctx)
	if err != nil {
		d.trouble(err)
		d.clock.Sleep(ctx, d.retry/2+rand.N(d.retry))
		d.retry = min(lastRetry, 2*d.retry)
		return d.selecting
	}
	return d.bind(l)
}

func (d *dhcp4) bind(l *Lease) state {
	d.retry = firstRetry
	d.lease = l
	d.trouble(nil)
	d.report(l)
	return d.bound
}

// bound: the address is good; wait until T1.
func (d *dhcp4) bound(ctx context.Context) state {
	d.clock.Sleep(ctx, d.until(d.lease.Renew))
	return d.renewing
}

// renewing: ask the server that gave the address, until T2.
func (d *dhcp4) renewing(ctx context.Context) state {
	return d.extend(ctx, d.server.renew, d.lease.Rebind, d.renewing, d.rebinding)
}

// rebinding: ask any server, until the address expires.
func (d *dhcp4) rebinding(ctx context.Context) state {
	return d.extend(ctx, d.server.rebind, d.lease.Expiry, d.rebinding, d.lost)
}

func (d *dhcp4) extend(ctx context.Context, ask func(context.Context, *Lease) (*Lease, error),
	end time.Duration, again, next state) state {
	if d.until(end) <= 0 {
		return next
	}
	l, err := ask(ctx, d.lease)
	if err == nil {
		return d.bind(l)
	}
	d.trouble(err)
	if errors.Is(err, errRefused) {
		return d.lost
	}
	left := d.until(end)
	d.clock.Sleep(ctx, min(left, max(leastWait, left/2)))
	return again
}

// lost: the address may not be used any more.
func (d *dhcp4) lost(context.Context) state {
	d.lease = nil
	d.report(nil)
	return d.selecting
}

// until is the time left to a point of the lease's life.
func (d *dhcp4) until(point time.Duration) time.Duration {
	return d.lease.Obtained.Add(point).Sub(d.clock.Now())
}

// wire is the exchanger on a real link.
type wire struct {
	link  string
	mac   net.HardwareAddr
	clock timekeeper
}

const (
	askTimeout = 3 * time.Second
	askRetries = 3
)

func (w wire) request(ctx context.Context) (*Lease, error) {
	c, err := nclient4.New(w.link, nclient4.WithTimeout(askTimeout), nclient4.WithRetry(askRetries))
	if err != nil {
		return nil, fmt.Errorf("cannot ask for an address on %s: %w", w.link, err)
	}
	defer c.Close()
	l, err := c.Request(ctx, dhcpv4.WithRequestedOptions(dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionDomainNameServer,
		dhcpv4.OptionRouter, dhcpv4.OptionSubnetMask))
	if err != nil {
		return nil, fmt.Errorf("cannot get an address on %s: %w", w.link, err)
	}
	return newLease(l.ACK, w.clock.Now())
}

// renew asks from the lease's own address, by unicast.
func (w wire) renew(ctx context.Context, l *Lease) (*Lease, error) {
	server := l.ack.ServerIdentifier()
	if server == nil {
		return nil, errors.New("cannot renew: the server did not name itself")
	}
	return w.extend(ctx, l,
		nclient4.WithUnicast(&net.UDPAddr{IP: l.Address.Addr().AsSlice(), Port: dhcpv4.ClientPort}),
		nclient4.WithServerAddr(&net.UDPAddr{IP: server, Port: dhcpv4.ServerPort}))
}

func (w wire) rebind(ctx context.Context, l *Lease) (*Lease, error) { return w.extend(ctx, l) }

func (w wire) extend(ctx context.Context, l *Lease, how ...nclient4.ClientOpt) (*Lease, error) {
	c, err := nclient4.New(w.link, append(how, nclient4.WithTimeout(askTimeout), nclient4.WithRetry(askRetries),
		nclient4.WithHWAddr(w.mac))...)
	if err != nil {
		return nil, fmt.Errorf("cannot extend the lease on %s: %w", w.link, err)
	}
	defer c.Close()
	m, err := dhcpv4.NewRenewFromAck(l.ack)
	if err != nil {
		return nil, fmt.Errorf("cannot extend the lease on %s: %w", w.link, err)
	}
	// RFC 2131, 4.3.2: neither of the two names a server in the message itself.
	m.Options.Del(dhcpv4.OptionServerIdentifier)
	m.Options.Del(dhcpv4.OptionRequestedIPAddress)
	answer, err := c.SendAndRead(ctx, c.RemoteAddr(), m,
		nclient4.IsMessageType(dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak))
	if err != nil {
		return nil, fmt.Errorf("cannot extend the lease on %s: %w", w.link, err)
	}
	if answer.MessageType() == dhcpv4.MessageTypeNak {
		return nil, errRefused
	}
	return newLease(answer, w.clock.Now())
}

func (w wire) release(l *Lease) error {
	c, err := nclient4.New(w.link, nclient4.WithHWAddr(w.mac),
		nclient4.WithUnicast(&net.UDPAddr{IP: l.Address.Addr().AsSlice(), Port: dhcpv4.ClientPort}))
	if err != nil {
		return fmt.Errorf("cannot give the address on %s back: %w", w.link, err)
	}
	defer c.Close()
	return c.Release(&nclient4.Lease{ACK: l.ack})
}

// Bounds of what a server may ask for: a lease of seconds would keep the box busy, and none must last for ever.
const (
	shortestLease = 2 * time.Minute
	longestLease  = 30 * 24 * time.Hour
	defaultLease  = time.Hour
)

// newLease reads a server's acknowledgement.
func newLease(ack *dhcpv4.DHCPv4, now time.Time) (*Lease, error) {
	addr, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	if !ok || !addr.IsGlobalUnicast() || plan.HostIPv4.Contains(addr) {
		return nil, fmt.Errorf("cannot use address %v from DHCP", ack.YourIPAddr)
	}
	mask := ack.SubnetMask()
	if mask == nil {
		mask = net.IP(addr.AsSlice()).DefaultMask()
	}
	bits, size := mask.Size()
	if size != 32 || bits == 0 {
		return nil, fmt.Errorf("cannot use network mask %v from DHCP", mask)
	}
	l := &Lease{Address: netip.PrefixFrom(addr, bits), Obtained: now, ack: ack, Routes: routes(ack)}
	for _, ip := range ack.DNS() {
		if a, ok := netip.AddrFromSlice(ip.To4()); ok && !a.IsUnspecified() {
			l.DNS = append(l.DNS, a)
		}
	}
	l.Expiry = min(longestLease, max(shortestLease, ack.IPAddressLeaseTime(defaultLease)))
	l.Renew = ack.IPAddressRenewalTime(l.Expiry / 2)
	l.Rebind = ack.IPAddressRebindingTime(l.Expiry / 8 * 7)
	if l.Renew < shortestLease/2 || l.Renew > l.Rebind || l.Rebind > l.Expiry {
		l.Renew, l.Rebind = l.Expiry/2, l.Expiry/8*7
	}
	return l, nil
}

// routes are the classless static routes (RFC 3442), which replace the router option, or else the first router.
func routes(ack *dhcpv4.DHCPv4) []Route {
	var out []Route
	for _, r := range ack.ClasslessStaticRoute() {
		to, ok := netip.AddrFromSlice(r.Dest.IP.To4())
		via, _ := netip.AddrFromSlice(r.Router.To4())
		bits, _ := r.Dest.Mask.Size()
		if !ok || bits >= plan.HostIPv4.Bits() && plan.HostIPv4.Contains(to) {
			continue // the way to the modules is not the network's to choose
		}
		if via.IsUnspecified() {
			via = netip.Addr{}
		}
		out = append(out, Route{To: netip.PrefixFrom(to, bits), Gateway: via})
	}
	if out != nil {
		return out
	}
	for _, ip := range ack.Router() {
		if via, ok := netip.AddrFromSlice(ip.To4()); ok {
			return []Route{{To: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Gateway: via}}
		}
	}
	return nil
}
