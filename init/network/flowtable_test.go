package network

import (
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"allotment/init/plan"
)

// Only a module that is switched on may be at the end of the short way, and only a TCP connection that both sides agreed on.
func TestShortWayIsForModulesThatAreOn(t *testing.T) {
	web, off := testModule("web", "2"), testModule("off", "5")
	leadsTo := func(c chain, m *plan.Module) bool {
		return slices.ContainsFunc(c.rules, func(r rule) bool {
			want := slices.Concat(to(hostEnd(m)), protocol(unix.IPPROTO_TCP), connection(expr.CtKeySTATE, expr.CtStateBitESTABLISHED))
			return reflect.DeepEqual(r.exprs, []expr.Any(append(want, offload...)))
		})
	}
	c := shortWayChain([]*plan.Module{web})
	if len(c.rules) != 1 || !leadsTo(c, web) || leadsTo(c, off) {
		t.Errorf("%+v", c.rules)
	}
	if !leadsTo(shortWayChain([]*plan.Module{web, off}), off) { // the twin
		t.Error("a module that is on has no short way")
	}
}

// The table is made just for rules that need it: a kernel without one would refuse all rules.
func TestFlowTableIsMadeForRulesThatNeedIt(t *testing.T) {
	web := []*plan.Module{testModule("web", "2")}
	if slices.ContainsFunc(chains(Rules{Modules: web}), chain.offloads) {
		t.Error("the rules without the short way need a flow table")
	}
	if !shortWayChain(web).offloads() {
		t.Error("the short way needs no flow table")
	}
}

// Links that are there before the rules, or in a kernel without flow tables, are none the worse.
func TestShortWayIsNotMissed(t *testing.T) {
	isolated(t)
	plug(t, "uplink", outsideAddrs[0])
	if err := install(nil); err != nil {
		t.Fatal(err)
	}
	for _, make := range []func() error{func() error { return nil }, func() error { return SetRules(Rules{}) }} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if err := takeShortWay("uplink"); err != nil {
			t.Error(err)
		}
	}
	if err := install(nil); err != nil {
		t.Fatal(err)
	}
}

// An established connection takes the short way, and what SetRules does ends that: see also TestConnectionsEndWithTheirModules.
func TestConnectionsTakeTheShortWay(t *testing.T) {
	v := newTown(t)
	if err := install([]chain{shortWayChain(v.rules.Modules)}); isMissing(err) {
		t.Skip("this kernel has no flow tables")
	}
	directory := v.rules.Modules[1]
	v.rules.Modules[0].Peers[0].Ports = []int{3890}
	if err := SetRules(v.rules); err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs(directory) {
		at := netip.AddrPortFrom(a.Addr(), 3890).String()
		v.in(t, "directory", func() error { return echoAt(t, at) })
		var c net.Conn
		v.in(t, "web", func() (err error) {
			c, err = net.DialTimeout("tcp", at, patience)
			return err
		})
		defer c.Close()
		if err := echo(c, patience); err != nil {
			t.Fatal(err)
		}
		if !onShortWay(t, 3890) {
			t.Errorf("a connection to %s does not take the short way", at)
		}
		if err := install(chains(v.rules)); err != nil { // the twin: without the chain, nobody does
			t.Fatal(err)
		}
		if err := echo(c, patience); err != nil {
			t.Errorf("a connection to %s ends with the short way: %v", at, err)
		}
		if onShortWay(t, 3890) {
			t.Errorf("a connection to %s takes a way that is not there", at)
		}
		if err := SetRules(v.rules); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

// onShortWay tells whether a connection to the port is in the flow table now.
func onShortWay(t *testing.T, port int) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/net/nf_conntrack") // other threads are in other networks
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, " dport="+strconv.Itoa(port)+" ") && strings.Contains(line, "[OFFLOAD]") {
			return true
		}
	}
	return false
}
