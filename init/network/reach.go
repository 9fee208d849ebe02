package network

import (
	"net/netip"
	"slices"
)

// lanNetworks are private and link-local addresses (RFC 1918, RFC 3927, RFC 4193). Those of IPv6 links (fe80::/10) cannot
// be forwarded.
var lanNetworks = prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7")

// metadata are the services by which clouds tell their machines secrets. No module reaches them, whatever it declares.
var metadata = withNAT64(prefixes(
	"169.254.169.254/32", "fd00:ec2::254/128", // nearly all clouds; Amazon by IPv6
	"169.254.170.2/32", "169.254.170.23/32", "fd00:ec2::23/128", // Amazon: credentials of containers
	"fd20:ce::254/128",                    // Google
	"168.63.129.16/32",                    // Azure
	"100.100.100.200/32",                  // Alibaba
	"192.0.0.192/32",                      // Oracle
	"169.254.42.42/32", "fd00:42::42/128", // Scaleway
))

// notInternet is what no global unicast address is in (IANA's registries of special-purpose addresses, RFC 6890).
var notInternet = slices.Concat(
	withNAT64(prefixes(
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
		"192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3",
	)),
	prefixes(
		"::/16",                // unspecified, loopback, mapped IPv4
		"64:ff9b:1::/48",       // NAT64 of a network's own (RFC 8215)
		"100::/8",              // discarded
		"2001::/32",            // Teredo: holds any IPv4 address
		"2002::/16",            // 6to4: likewise
		"4000::/2", "8000::/1", // all from here on is not global unicast: unique local, link-local, multicast
	),
)

// withNAT64 adds each IPv4 network as a NAT64 shows it (RFC 6052): 64:ff9b::/96 itself is the way to IPv4's internet.
func withNAT64(nets []netip.Prefix) []netip.Prefix {
	all := nets
	for _, n := range nets {
		if n.Addr().Is4() {
			b := netip.MustParseAddr("64:ff9b::").As16()
			a := n.Addr().As4()
			copy(b[12:], a[:])
			all = append(all, netip.PrefixFrom(netip.AddrFrom16(b), 96+n.Bits()))
		}
	}
	return all
}

func prefixes(all ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range all {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}
