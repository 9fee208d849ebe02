package network

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"allotment/init/plan"
)

// flowtable is the name of the kernel's table of connections that take the short way: their packets go from the link where
// they arrive straight to the one where they leave, and meet no rule. It belongs to the table of rules and goes with it, so
// that every connection meets new rules. See https://docs.kernel.org/networking/nf_flowtable.html.
const flowtable = "short"

// offload has the packet's connection take the short way from now on, in both directions.
var offload = action{&expr.FlowOffload{Name: flowtable}}

// offloads tells whether a rule of the chain needs the flow table.
func (c chain) offloads() bool {
	return slices.ContainsFunc(c.rules, func(r rule) bool {
		return slices.ContainsFunc(r.exprs, func(e expr.Any) bool {
			_, ok := e.(*expr.FlowOffload)
			return ok
		})
	})
}

// shortWayChain lets TCP connections that both sides have agreed on take the short way. It comes after forwardChain has
// accepted the packet. Both ends must be allowed to speak: genuineChain has seen to it that a module that sends is switched on,
// so that the one that receives is left to ask for.
func shortWayChain(modules []*plan.Module) chain {
	c := chain{name: "shortway", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookForward, priority: afterFilter}
	for _, m := range modules {
		c.add("connection of "+m.Name, offload, to(hostEnd(m)), protocol(unix.IPPROTO_TCP),
			connection(expr.CtKeySTATE, expr.CtStateBitESTABLISHED))
	}
	return c
}

var afterFilter = nftables.ChainPriorityRef(*nftables.ChainPriorityFilter + 10)

// addFlowtable adds the flow table to a transaction, for packets that arrive by any link there is. Those that come later
// are added by takeShortWay.
func addFlowtable(c *nftables.Conn, table *nftables.Table) error {
	links, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("cannot list the links: %w", err)
	}
	t := &nftables.Flowtable{Table: table, Name: flowtable}
	for _, l := range links {
		if l.Flags&net.FlagLoopback == 0 {
			t.Devices = append(t.Devices, l.Name)
		}
	}
	c.AddFlowtable(t)
	return nil
}

// takeShortWay has packets that arrive by a new link take the short way, too, if there is one.
func takeShortWay(link string) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("cannot change the firewall: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: firewallTable}
	c.AddFlowtable(&nftables.Flowtable{Table: table, Name: flowtable, Devices: []string{link}})
	if err := c.Flush(); err != nil && !isMissing(err) {
		return fmt.Errorf("cannot give packets from %s the short way: %w", link, err)
	}
	return nil
}

// isMissing tells whether the kernel lacks something that it was asked for by name.
func isMissing(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) }
