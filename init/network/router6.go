package network

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Flags of the last router advertisement on a link, as the kernel keeps them (include/net/if_inet6.h).
const (
	flagOther   = 0x80 // DHCPv6 has more than addresses to tell
	flagManaged = 0x40 // DHCPv6 gives addresses out
)

// Attribute numbers of linux/if_link.h and message numbers of linux/rtnetlink.h that x/sys does not name.
const (
	attrProtinfo   = 12
	attrInet6Flags = 1
	groupUserOpt   = 20 // RTNLGRP_ND_USEROPT
	groupIfinfo6   = 12 // RTNLGRP_IPV6_IFINFO
	optionRDNSS    = 25 // RFC 8106
	userOptHeader  = 16 // struct nduseroptmsg
)

// routerFlags returns the flags of the link by its index.
func routerFlags(index int) (uint32, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(unix.AF_INET6))
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return 0, err
	}
	for _, m := range messages {
		if len(m) < unix.SizeofIfInfomsg || int(nl.DeserializeIfInfomsg(m).Index) != index {
			continue
		}
		attrs, err := nl.ParseRouteAttr(m[unix.SizeofIfInfomsg:])
		if err != nil {
			return 0, err
		}
		for _, a := range attrs {
			if a.Attr.Type&nl.NLA_TYPE_MASK == attrProtinfo {
				return inet6Flags(a.Value), nil
			}
		}
	}
	return 0, nil
}

func inet6Flags(protinfo []byte) uint32 {
	attrs, err := nl.ParseRouteAttr(protinfo)
	if err != nil {
		return 0
	}
	for _, a := range attrs {
		if a.Attr.Type == attrInet6Flags && len(a.Value) >= 4 {
			return nl.NativeEndian().Uint32(a.Value)
		}
	}
	return 0
}

// resolver is a name server that a router advertised.
type resolver struct {
	addr  netip.Addr
	until time.Time
}

// routerResolvers reads an RTM_NEWNDUSEROPT message: the link's index and the resolvers of an RDNSS option.
func routerResolvers(m []byte, now time.Time) (int, []resolver) {
	if len(m) < userOptHeader+8 || m[userOptHeader] != optionRDNSS {
		return 0, nil
	}
	index := int(int32(nl.NativeEndian().Uint32(m[4:8])))
	option := m[userOptHeader:]
	option = option[:min(len(option), 8*int(option[1]))]
	if len(option) < 8 {
		return 0, nil
	}
	life := time.Duration(binary.BigEndian.Uint32(option[4:8])) * time.Second
	var out []resolver
	for a := range slices.Chunk(option[8:], 16) {
		if len(a) == 16 {
			out = append(out, resolver{addr: netip.AddrFrom16([16]byte(a)), until: now.Add(life)})
		}
	}
	return index, out
}
