package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// firewallTable is the one table that we own.
const firewallTable = "allotment"

// chain is a chain of the table. One without a kind is only jumped to.
type chain struct {
	name     string
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority *nftables.ChainPriority
	drop     bool // what no rule decides
	rules    []rule
}

// rule does something with a packet for which all conditions hold.
type rule struct {
	why   string // shown by nft as a comment
	exprs []expr.Any
}

// condition and action are parts of a rule.
type (
	condition []expr.Any
	action    []expr.Any
)

// add appends a rule.
func (c *chain) add(why string, do action, conditions ...condition) {
	var all []expr.Any
	for _, o := range conditions {
		all = append(all, o...)
	}
	c.rules = append(c.rules, rule{why, append(all, do...)})
}

// answers lets pass what belongs to a connection that was accepted.
func (c *chain) answers() {
	c.add("answers", accept, connection(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED))
	c.add("neither a beginning nor an answer", drop, connection(expr.CtKeySTATE, expr.CtStateBitINVALID))
}

// refuse tells the sender at once, so that programs do not wait for an answer.
func (c *chain) refuse(why string, conditions ...condition) {
	c.add(why, action{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}, append(conditions, protocol(unix.IPPROTO_TCP))...)
	c.add(why, action{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}, conditions...)
}

// install replaces the table.
func install(all []chain) error {
	c, err := nftables.New(nftables.WithSockOptions(roomForRules))
	if err != nil {
		return fmt.Errorf("cannot set the firewall: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: firewallTable}
	c.AddTable(table) // so that the deletion finds one
	c.DelTable(table)
	c.AddTable(table)
	made := make([]*nftables.Chain, len(all))
	for i, ch := range all { // all before the rules, which jump between them
		made[i] = &nftables.Chain{Name: ch.name, Table: table}
		if ch.kind != "" {
			policy := nftables.ChainPolicyAccept
			if ch.drop {
				policy = nftables.ChainPolicyDrop
			}
			made[i].Type, made[i].Hooknum, made[i].Priority, made[i].Policy = ch.kind, ch.hook, ch.priority, &policy
		}
		c.AddChain(made[i])
	}
	if slices.ContainsFunc(all, chain.offloads) {
		if err := addFlowtable(c, table); err != nil {
			return err
		}
	}
	for i, ch := range all {
		for _, r := range ch.rules {
			comment := userdata.AppendString(nil, userdata.TypeComment, r.why)
			c.AddRule(&nftables.Rule{Table: table, Chain: made[i], Exprs: r.exprs, UserData: comment})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("cannot set the firewall: %w", err)
	}
	return nil
}

// roomForRules makes the socket hold all rules of a box with many modules in one transaction, and the kernel's answers.
func roomForRules(c *netlink.Conn) error {
	const room = 8 << 20 // bytes
	return errors.Join(c.SetReadBuffer(room), c.SetWriteBuffer(room))
}

// What rules do.
var (
	accept     = action{&expr.Verdict{Kind: expr.VerdictAccept}}
	drop       = action{&expr.Verdict{Kind: expr.VerdictDrop}}
	back       = action{&expr.Verdict{Kind: expr.VerdictReturn}}
	masquerade = action{&expr.Masq{}}
	untracked  = action{&expr.Notrack{}} // and goes on to the next rule
)

func jump(chain string) action { return action{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}} }

// redirect sends the packet to an address in place of its own, to the same port.
func redirect(a netip.Addr) action {
	return action{
		&expr.Immediate{Register: 1, Data: a.AsSlice()},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(family(a)), RegAddrMin: 1},
	}
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}

func equals(b []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b} }

// moduleLinks stands for every link to a module.
const moduleLinks = moduleLinkPrefix + "*"

// from: the packet came in by this link.
func from(link string) condition {
	return condition{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, linkName(link)}
}

// to: the packet goes out by this link.
func to(link string) condition {
	return condition{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, linkName(link)}
}

// linkName compares a name, or what comes before its star.
func linkName(link string) expr.Any {
	if link == moduleLinks {
		return equals([]byte(moduleLinkPrefix))
	}
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, link)
	return equals(name)
}

// by: the packet is from a socket that a process of the user made.
func by(user uint32) condition {
	return condition{&expr.Meta{Key: expr.MetaKeySKUID, Register: 1}, equals(binaryutil.NativeEndian.PutUint32(user))}
}

// connection: what connection tracking knows of the packet has one of the bits.
func connection(key expr.CtKey, bits uint32) condition {
	return condition{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: binaryutil.NativeEndian.PutUint32(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0)},
	}
}

// moreThan: so many connections that came to this rule are open.
func moreThan(connections uint32) condition {
	const over = 1 // NFT_CONNLIMIT_F_INV
	return condition{&expr.Connlimit{Count: connections, Flags: over}}
}

// redirected: its destination was another one when it came in.
func redirected() condition {
	const dstNAT = 1 << 5 // IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h
	return connection(expr.CtKeySTATUS, dstNAT)
}

// toHost: the destination is an address of the host.
func toHost() condition {
	return condition{&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		equals(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL))}
}

// source: the packet's source is in the network.
func source(n netip.Prefix) condition { return address(n, 12, 8) }

// destination: the packet's destination is in the network.
func destination(n netip.Prefix) condition { return address(n, 16, 24) }

// address compares an address of the network header; where it is depends on the family (RFC 791, 3.1; RFC 8200, 3).
func address(n netip.Prefix, offset4, offset6 uint32) condition {
	offset, size := offset6, uint32(16)
	if n.Addr().Is4() {
		offset, size = offset4, 4
	}
	c := condition{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equals([]byte{family(n.Addr())})}
	if n.Bits() == 0 {
		return c
	}
	return append(c,
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: net.CIDRMask(n.Bits(), n.Addr().BitLen()), Xor: make([]byte, size)},
		equals(n.Masked().Addr().AsSlice()))
}

func protocol(p byte) condition {
	return condition{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equals([]byte{p})}
}

func icmp(protocolNumber, kind byte) condition {
	return append(protocol(protocolNumber),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1}, equals([]byte{kind}))
}

func fromPort(p uint16) condition { return port(0, p) }

func toPort(p uint16) condition { return port(2, p) }

// port compares a port of a TCP or UDP header.
func port(offset uint32, p uint16) condition {
	return condition{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
		equals(binaryutil.BigEndian.PutUint16(p)),
	}
}
