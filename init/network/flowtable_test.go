package network

import (
	"reflect"
	"slices"
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
