package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/dhcpv6/nclient6"
	"github.com/insomniacslk/dhcp/iana"
)

// Lease6 is what DHCPv6 gave: an address if the routers said that it is managed, and resolvers.
type Lease6 struct {
	Address netip.Addr // invalid if none
	DNS     []netip.Addr
	Renew   time.Duration
	Valid   time.Duration
}

// dhcp6 keeps what DHCPv6 tells about a link (RFC 8415). Before half of the time is over it asks for everything anew with
// the same identity, for which a server gives the same address.
type dhcp6 struct {
	link    string
	mac     net.HardwareAddr
	managed bool
	clock   timekeeper
	report  func(*Lease6)
	trouble func(error) // each failure; nil after each success
}

const information = 24 * time.Hour // until the resolvers are asked for again if there is no address (RFC 8415, 21.23)

// run asks until ctx ends.
func (d *dhcp6) run(ctx context.Context) {
	retry := firstRetry
	for ctx.Err() == nil {
		l, err := d.ask(ctx)
		if err != nil {
			d.trouble(err)
			d.clock.Sleep(ctx, retry)
			retry = min(lastRetry, 2*retry)
			continue
		}
		retry = firstRetry
		d.trouble(nil)
		d.report(l)
		d.clock.Sleep(ctx, l.Renew)
	}
}

func (d *dhcp6) ask(ctx context.Context) (*Lease6, error) {
	c, err := nclient6.New(d.link, nclient6.WithTimeout(askTimeout), nclient6.WithRetry(askRetries))
	if err != nil {
		return nil, fmt.Errorf("cannot ask DHCPv6 on %s: %w", d.link, err)
	}
	defer c.Close()
	// The library's own identity has the time in it, so that a server would take each question for one of a new machine.
	identity := dhcpv6.WithClientID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: d.mac})
	if d.managed {
		answer, err := c.RapidSolicit(ctx, identity)
		if err != nil {
			return nil, fmt.Errorf("cannot get an address by DHCPv6 on %s: %w", d.link, err)
		}
		return newLease6(answer), nil
	}
	m, err := dhcpv6.NewMessage(identity, dhcpv6.WithRequestedOptions(dhcpv6.OptionDNSRecursiveNameServer))
	if err != nil {
		return nil, fmt.Errorf("cannot ask DHCPv6 on %s: %w", d.link, err)
	}
	m.MessageType = dhcpv6.MessageTypeInformationRequest
	answer, err := c.SendAndRead(ctx, c.RemoteAddr(), m, nclient6.IsMessageType(dhcpv6.MessageTypeReply))
	if err != nil {
		return nil, fmt.Errorf("cannot get information by DHCPv6 on %s: %w", d.link, err)
	}
	return newLease6(answer), nil
}

func newLease6(m *dhcpv6.Message) *Lease6 {
	l := &Lease6{Renew: information}
	for _, ip := range m.Options.DNS() {
		if a, ok := netip.AddrFromSlice(ip); ok && !a.IsUnspecified() {
			l.DNS = append(l.DNS, a)
		}
	}
	ia := m.Options.OneIANA()
	if ia == nil {
		return l
	}
	for _, o := range ia.Options.Addresses() {
		a, ok := netip.AddrFromSlice(o.IPv6Addr)
		if !ok || !a.IsGlobalUnicast() || o.ValidLifetime <= 0 {
			continue
		}
		l.Address = a
		l.Valid = min(longestLease, max(shortestLease, o.ValidLifetime))
		l.Renew = l.Valid / 2
		if o.PreferredLifetime > 0 {
			l.Renew = min(l.Renew, max(shortestLease/2, o.PreferredLifetime/2))
		}
		break
	}
	return l
}
