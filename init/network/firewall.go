package network

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// firewallTable is the one table that we own; each Firewall call replaces it as a whole.
const firewallTable = "allotment"

// The ICMP types that a host must take in: errors, echo and, for IPv6, what makes addresses work at all (RFC 4890, 4.4).
var (
	icmp4Types = []byte{3, 8, 11, 12}
	icmp6Types = []byte{1, 2, 3, 4, 128, 130, 131, 132, 133, 134, 135, 136, 143}
	neighbours = []byte{135, 136}
)

// Firewall sets the rules of the host in one transaction: from outside only the TCP ports, the ICMP that must be, DHCP and
// answers come in; modules get answers and neighbour discovery and nothing else; nothing is forwarded.
func Firewall(ports []uint16) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("cannot set the firewall: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: firewallTable}
	c.AddTable(table) // so that the deletion finds one
	c.DelTable(table)
	c.AddTable(table)
	drop, accept := nftables.ChainPolicyDrop, nftables.ChainPolicyAccept
	input := c.AddChain(&nftables.Chain{
		Name: "input", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter, Policy: &drop,
	})
	c.AddChain(&nftables.Chain{
		Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop,
	})
	c.AddChain(&nftables.Chain{
		Name: "output", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter, Policy: &accept,
	})
	for _, r := range inputRules(ports) {
		c.AddRule(&nftables.Rule{Table: table, Chain: input, Exprs: r})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("cannot set the firewall: %w", err)
	}
	return nil
}

// inputRules are the rules of the input chain in their order.
func inputRules(ports []uint16) [][]expr.Any {
	established := expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED
	rules := [][]expr.Any{
		rule(verdict(expr.VerdictAccept), from("lo")),
		rule(verdict(expr.VerdictAccept), connection(established)),
		rule(verdict(expr.VerdictDrop), connection(expr.CtStateBitINVALID)),
	}
	for _, t := range neighbours {
		rules = append(rules, rule(verdict(expr.VerdictAccept), from(BridgeName), icmp(unix.IPPROTO_ICMPV6, t)))
	}
	rules = append(rules, rule(verdict(expr.VerdictDrop), from(BridgeName)))
	for _, t := range icmp4Types {
		rules = append(rules, rule(verdict(expr.VerdictAccept), icmp(unix.IPPROTO_ICMP, t)))
	}
	for _, t := range icmp6Types {
		rules = append(rules, rule(verdict(expr.VerdictAccept), icmp(unix.IPPROTO_ICMPV6, t)))
	}
	for _, p := range ports {
		rules = append(rules, rule(verdict(expr.VerdictAccept), protocol(unix.IPPROTO_TCP), port(destination, p)))
	}
	return append(rules,
		rule(verdict(expr.VerdictAccept), protocol(unix.IPPROTO_UDP), port(source, 67), port(destination, 68)),
		rule(verdict(expr.VerdictAccept), protocol(unix.IPPROTO_UDP), port(source, 547), port(destination, 546)),
	)
}

// rule joins conditions with what to do if all hold.
func rule(do expr.Any, conditions ...[]expr.Any) []expr.Any {
	var r []expr.Any
	for _, c := range conditions {
		r = append(r, c...)
	}
	return append(r, do)
}

func verdict(k expr.VerdictKind) expr.Any { return &expr.Verdict{Kind: k} }

func equals(b []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b} }

// from: the packet came in by this link.
func from(link string) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, link)
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, equals(name)}
}

// connection: connection tracking has the packet in one of the states.
func connection(states uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(states), Xor: binaryutil.NativeEndian.PutUint32(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0)},
	}
}

func protocol(p byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equals([]byte{p})}
}

func icmp(protocolNumber, kind byte) []expr.Any {
	return append(protocol(protocolNumber),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1}, equals([]byte{kind}))
}

// Offsets of the ports in TCP and UDP headers.
const (
	source      = 0
	destination = 2
)

func port(offset uint32, p uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
		equals(binaryutil.BigEndian.PutUint16(p)),
	}
}
