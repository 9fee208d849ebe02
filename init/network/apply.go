package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// apply gives the link the leased address and its routes.
func apply(l netlink.Link, lease *Lease) error {
	seconds := int(lease.Expiry.Seconds())
	a := &netlink.Addr{IPNet: ipNet(lease.Address), ValidLft: seconds, PreferedLft: seconds}
	if err := netlink.AddrReplace(l, a); err != nil {
		return fmt.Errorf("cannot give %s address %s: %w", l.Attrs().Name, lease.Address, err)
	}
	var errs []error
	for _, r := range lease.Routes {
		errs = append(errs, addRoute(l, r, lease.Address.Addr(), unix.RTPROT_DHCP))
	}
	return errors.Join(errs...)
}

// apply6 gives the link the address of DHCPv6; routes are the routers' to advertise.
func apply6(l netlink.Link, lease *Lease6) error {
	if !lease.Address.IsValid() {
		return nil
	}
	seconds := int(lease.Valid.Seconds())
	p := netip.PrefixFrom(lease.Address, 128)
	a := &netlink.Addr{IPNet: ipNet(p), ValidLft: seconds, PreferedLft: seconds}
	if err := netlink.AddrReplace(l, a); err != nil {
		return fmt.Errorf("cannot give %s address %s: %w", l.Attrs().Name, p, err)
	}
	return nil
}

// addRoute sets a route. The gateway counts as on the link even if the address's network does not hold it: some providers
// lend single addresses with a gateway from elsewhere.
func addRoute(l netlink.Link, r Route, from netip.Addr, protocol int) error {
	route := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(r.To), Protocol: netlink.RouteProtocol(protocol)}
	if from.IsValid() {
		route.Src = from.AsSlice()
	}
	if r.Gateway.IsValid() {
		route.Gw = net.IP(r.Gateway.AsSlice())
		route.Flags = int(netlink.FLAG_ONLINK)
	} else {
		route.Scope = netlink.SCOPE_LINK
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("cannot set the route to %s on %s: %w", r.To, l.Attrs().Name, err)
	}
	return nil
}

// configureStatic gives the link what the manifest says.
func (u *Uplink) configureStatic(l netlink.Link) error {
	var errs []error
	for _, s := range u.config.Addresses {
		p, err := netip.ParsePrefix(s)
		if err == nil {
			err = netlink.AddrReplace(l, &netlink.Addr{IPNet: ipNet(p)})
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot give %s address %q: %w", l.Attrs().Name, s, err))
		}
	}
	for _, s := range u.config.Gateways {
		via, err := netip.ParseAddr(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot use gateway %q: %w", s, err))
			continue
		}
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if via.Is6() {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		errs = append(errs, addRoute(l, Route{To: all, Gateway: via}, netip.Addr{}, unix.RTPROT_STATIC))
	}
	return errors.Join(errs...)
}
