package network

import (
	"errors"
	"net/netip"
	"os"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"allotment/image"
	"allotment/init/plan"
)

// Rules says who may talk to whom; see docs/formats/network.md.
type Rules struct {
	Ports   []uint16       // TCP ports of the host that are open to the outside: the gateway's
	UDP     []uint16       // UDP ports of the gateway
	Modules []*plan.Module // that are switched on; all others reach nothing and nobody
	Ask     []uint16       // TCP ports outside, besides 443, at which the gateway asks who issues certificates
	Closed  bool           // nothing comes in from outside or goes there: a release on trial serves nobody and sends nothing
}

// SetRules puts the rules in force, in one transaction in place of all former ones, and then lets the host forward packets.
func SetRules(r Rules) error {
	err := install(append(chains(r), shortWayChain(r.Modules)))
	if isMissing(err) { // in a kernel without flow tables, which looks at every packet
		err = install(chains(r))
	}
	if err != nil {
		return err
	}
	// A small machine's kernel would remember some 8000 connections, and only the first network namespace can say so.
	if err := setSysctl("netfilter/nf_conntrack_max", "65536"); err != nil && !errors.Is(err, os.ErrPermission) {
		return err
	}
	if err := setSysctl("ipv4/ip_forward", "1"); err != nil {
		return err
	}
	return setSysctl("ipv6/conf/all/forwarding", "1")
}

// The ICMP types that a host must take in: errors, echo and, for IPv6, what makes addresses work at all (RFC 4890, 4.4).
var (
	icmp4Types = []byte{3, 8, 11, 12}
	icmp6Types = []byte{1, 2, 3, 4, 128, 130, 131, 132, 133, 134, 135, 136, 143}
)

const dnsPort = 53

// mostConnections is how many connections of one module are remembered, so that others find room.
const mostConnections = 4096

// The box's own networks, and the host's addresses in them.
var (
	ownNetworks = []netip.Prefix{plan.HostIPv4.Masked(), plan.HostIPv6.Masked()}
	hostAddrs   = []netip.Prefix{single(plan.HostIPv4.Addr()), single(plan.HostIPv6.Addr())}
)

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func addrs(m *plan.Module) []netip.Prefix {
	return []netip.Prefix{single(m.IPv4.Addr()), single(m.IPv6.Addr())}
}

// chains are all rules, in the order in which a packet meets them. Links come in three kinds: the loopback, those to the
// modules, and all others, which lead outside.
func chains(r Rules) []chain {
	return []chain{
		genuineChain(r.Modules),
		namesChain(),
		redirectChain(r),
		outsideChain(r),
		hostChain(r),
		inputChain(),
		internetChain(),
		lanChain(),
		forwardChain(r),
		outputChain(r),
		masqueradeChain(),
	}
}

// genuineChain drops what does not come from where it says. Modules need no neighbour discovery: see attach.
func genuineChain(modules []*plan.Module) chain {
	c := chain{name: "genuine", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookPrerouting, priority: nftables.ChainPriorityRaw}
	c.add("the host's own", accept, from("lo"))
	for _, a := range hostAddrs { // one packet each way: nothing to be remembered
		c.add("questions for names", untracked, from(moduleLinks), destination(a), protocol(unix.IPPROTO_UDP), toPort(dnsPort))
	}
	for _, m := range modules {
		for _, a := range addrs(m) {
			c.add("a module's own address", accept, from(hostEnd(m)), source(a))
		}
	}
	c.add("spoofed by a module", drop, from(moduleLinks))
	for _, n := range ownNetworks {
		c.add("spoofed from outside", drop, source(n))
		c.add("the box's network is not the outside's business", drop, destination(n))
	}
	return c
}

// namesChain is for the resolver's answers what genuineChain is for the questions.
func namesChain() chain {
	c := chain{name: "names", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookOutput, priority: nftables.ChainPriorityRaw}
	for _, a := range hostAddrs {
		c.add("answers with names", untracked, to(moduleLinks), source(a), protocol(unix.IPPROTO_UDP), fromPort(dnsPort))
	}
	return c
}

// redirectChain leads connections from outside to the modules that offer the port, with the clients' addresses as they are.
func redirectChain(r Rules) chain {
	c := chain{name: "redirect", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPrerouting, priority: nftables.ChainPriorityNATDest}
	c.add("modules connect by names inside", accept, from(moduleLinks))
	c.ports(r)
	if r.Closed {
		return c
	}
	for _, m := range r.Modules {
		for _, p := range declared(m).Ports {
			for _, clients := range clientsOf(p.Expose) {
				a := m.IPv4.Addr()
				if clients.Addr().Is6() {
					a = m.IPv6.Addr()
				}
				c.add("port of "+m.Name, redirect(a), toHost(), source(clients), protocol(number(p.Protocol)), toPort(uint16(p.Port)))
			}
		}
	}
	return c
}

// clientsOf are the networks from which a port with the exposure can be reached.
func clientsOf(expose string) []netip.Prefix {
	switch expose {
	case "public":
		return []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	case "lan":
		return lanNetworks
	}
	return nil
}

// outsideChain is what the host takes in from outside.
func outsideChain(r Rules) chain {
	c := chain{name: "outside"}
	for _, t := range icmp4Types {
		c.add("ICMP", accept, icmp(unix.IPPROTO_ICMP, t))
	}
	for _, t := range icmp6Types {
		c.add("ICMPv6", accept, icmp(unix.IPPROTO_ICMPV6, t))
	}
	c.add("DHCP", accept, protocol(unix.IPPROTO_UDP), fromPort(67), toPort(68))
	c.add("DHCPv6", accept, protocol(unix.IPPROTO_UDP), fromPort(547), toPort(546))
	if r.Closed {
		return c
	}
	c.ports(r)
	return c
}

// ports accepts what is meant for the gateway.
func (c *chain) ports(r Rules) {
	for _, p := range r.Ports {
		c.add("a port of the host", accept, protocol(unix.IPPROTO_TCP), toPort(p))
	}
	for _, p := range r.UDP {
		c.add("a port of the host", accept, protocol(unix.IPPROTO_UDP), toPort(p))
	}
}

// hostChain is what the host takes in from modules: names, and the gateway from those that log in with OpenID Connect, for
// which they ask the issuer themselves.
func hostChain(r Rules) chain {
	c := chain{name: "host"}
	for _, a := range hostAddrs {
		for _, p := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			c.add("names", accept, destination(a), protocol(p), toPort(dnsPort))
		}
		for _, m := range r.Modules {
			if declared(m).SSO != "oidc" {
				continue
			}
			for _, p := range r.Ports {
				c.add("login at the gateway", accept, from(hostEnd(m)), destination(a), protocol(unix.IPPROTO_TCP), toPort(p))
			}
		}
	}
	c.refuse("nothing else of the host")
	return c
}

// inputChain takes in what is meant for the host.
func inputChain() chain {
	c := chain{name: "input", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookInput, priority: nftables.ChainPriorityFilter, drop: true}
	c.add("the host's own", accept, from("lo"))
	c.answers()
	c.add("from a module", jump("host"), from(moduleLinks))
	c.add("nothing else from a module", drop, from(moduleLinks))
	c.add("from outside", jump("outside"))
	return c
}

// internetChain accepts what goes to the internet.
func internetChain() chain {
	c := chain{name: "internet"}
	c.add("another module is not the internet", back, to(moduleLinks))
	for _, n := range slices.Concat(metadata, notInternet) {
		c.add("not the internet", back, destination(n))
	}
	c.add("the internet", accept)
	return c
}

// lanChain accepts what goes to the network that the box is in.
func lanChain() chain {
	c := chain{name: "lan"}
	c.add("another module is not the local network", back, to(moduleLinks))
	for _, n := range slices.Concat(metadata, ownNetworks) {
		c.add("not the local network", back, destination(n))
	}
	for _, n := range lanNetworks {
		c.add("the local network", accept, destination(n))
	}
	return c
}

// forwardChain is what goes from modules to elsewhere, and from outside to modules.
func forwardChain(r Rules) chain {
	c := chain{name: "forward", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookForward, priority: nftables.ChainPriorityFilter, drop: true}
	c.answers()
	for _, m := range r.Modules {
		c.add("too many connections of "+m.Name, drop, from(hostEnd(m)), moreThan(mostConnections))
		c.peers(m)
		if !r.Closed {
			c.egress(m)
		}
	}
	c.refuse("nothing else by a module", from(moduleLinks))
	c.add("from outside to a port that is offered", accept, to(moduleLinks), redirected())
	return c
}

func (c *chain) peers(m *plan.Module) {
	for _, peer := range m.Peers {
		for _, a := range addrs(peer.Module) {
			for _, p := range peer.Ports {
				c.add("peer "+peer.Module.Name+" of "+m.Name, accept, from(hostEnd(m)), to(hostEnd(peer.Module)),
					destination(a), protocol(unix.IPPROTO_TCP), toPort(uint16(p)))
			}
		}
	}
}

func (c *chain) egress(m *plan.Module) {
	for _, e := range declared(m).Egress {
		where := "internet"
		if e.To == "lan" {
			where = "lan"
		}
		for _, p := range e.Ports {
			c.add("egress of "+m.Name, jump(where), from(hostEnd(m)), protocol(number(e.Protocol)), toPort(uint16(p)))
		}
	}
}

// What the host's programs may ask of strangers: the gateway those who issue certificates, the portal mail relays and those
// who issue certificates for the organisation's names.
var (
	gatewayPorts = []uint16{443}
	portalPorts  = []uint16{25, 465, 587, 443}
)

// outputChain lets the host's programs that speak with strangers reach no more than they are for. Their answers, and all
// that other programs of the host send, pass.
func outputChain(r Rules) chain {
	c := chain{name: "output", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookOutput, priority: nftables.ChainPriorityFilter}
	c.add("answers", accept, connection(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED))
	for _, m := range r.Modules {
		for _, a := range addrs(m) {
			if m.HTTP != nil {
				c.add("the gateway to "+m.Name, accept, by(plan.GatewayID), destination(a), protocol(unix.IPPROTO_TCP), toPort(uint16(m.HTTP.Port)))
			}
			if m.Name == plan.Directory {
				c.add("the portal to the directory", accept, by(plan.PortalID), destination(a), protocol(unix.IPPROTO_TCP), toPort(plan.LDAPPort))
			}
		}
	}
	for _, p := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		c.add("the resolver to others", accept, by(plan.ResolverID), protocol(p), toPort(dnsPort))
	}
	c.strangers("the gateway", plan.GatewayID, r.Closed, slices.Concat(gatewayPorts, r.Ask))
	c.strangers("the portal", plan.PortalID, r.Closed, portalPorts)
	c.strangers("the updater", plan.UpdaterID, r.Closed, nil) // and then all ports: publishers choose them
	if r.Closed {
		c.refuse("nothing by the updater", by(plan.UpdaterID))
	}
	c.refuse("nothing else by the gateway", by(plan.GatewayID))
	c.refuse("nothing else by the portal", by(plan.PortalID))
	c.refuse("nothing else by the resolver", by(plan.ResolverID))
	return c
}

// strangers accepts what a program of the host sends to ports outside, and its questions for names. Modules, the host itself
// and the clouds' metadata services, some of which are resolvers as well, are not outside.
func (c *chain) strangers(who string, user uint32, closed bool, ports []uint16) {
	if closed {
		return
	}
	c.refuse(who+" to a module", by(user), to(moduleLinks))
	c.refuse(who+" to the host", by(user), to("lo"))
	for _, p := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		c.add("names for "+who, accept, by(user), protocol(p), toPort(dnsPort))
	}
	for _, n := range metadata {
		c.refuse(who+" to a metadata service", by(user), destination(n))
	}
	for _, p := range ports {
		c.add(who+" to others", accept, by(user), protocol(unix.IPPROTO_TCP), toPort(p))
	}
}

// masqueradeChain gives what modules send outside the host's address. What comes from outside keeps its own.
func masqueradeChain() chain {
	c := chain{name: "masquerade", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPostrouting, priority: nftables.ChainPriorityNATSource}
	c.add("inside", accept, to(moduleLinks))
	for _, n := range ownNetworks {
		c.add("a module's egress", masquerade, source(n))
	}
	return c
}

// declared is what the module's manifest says; a module without one asks for nothing.
func declared(m *plan.Module) *image.Module {
	if m.Declared == nil {
		return &image.Module{}
	}
	return m.Declared
}

func number(protocol string) byte {
	if protocol == "udp" {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}
