package network

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"allotment/init/plan"
)

func testModule(name string, number string) *plan.Module {
	return &plan.Module{
		Name: name,
		IPv4: netip.MustParsePrefix("10.209.0." + number + "/16"), IPv6: netip.MustParsePrefix("fd00:a110::" + number + "/64"),
	}
}

// listen serves nothing but connections on port 80 of the thread's network.
func listen(t *testing.T) func() error {
	return func() error {
		l, err := net.Listen("tcp", ":80")
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
		return nil
	}
}

// How long connections may take that must come about, and those that must not.
const (
	patience = 5 * time.Second
	moment   = 300 * time.Millisecond
)

// reaches tells whether a connection to port 80 comes about within the limit. Sockets belong to the network of the thread
// that makes them.
func reaches(a netip.Addr, within time.Duration) error {
	fd, err := unix.Socket(unix.AF_INET6-(unix.AF_INET6-unix.AF_INET)*b2i(a.Is4()), unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(int64(within))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return err
	}
	if a.Is4() {
		return unix.Connect(fd, &unix.SockaddrInet4{Port: 80, Addr: a.As4()})
	}
	return unix.Connect(fd, &unix.SockaddrInet6{Port: 80, Addr: a.As16()})
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// firewall sets the firewall or skips the test on a kernel that has none.
func firewall(t *testing.T) {
	t.Helper()
	err := Firewall([]uint16{80})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		t.Skipf("this kernel has no nftables: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestModulesReachNothing(t *testing.T) {
	isolated(t)
	if err := Loopback(); err != nil {
		t.Fatal(err)
	}
	if err := Bridge(); err != nil {
		t.Fatal(err)
	}
	if err := Bridge(); err != nil {
		t.Fatalf("a second time: %v", err)
	}
	t.Cleanup(func() {
		if l, err := netlink.LinkByName(BridgeName); err == nil {
			netlink.LinkDel(l)
		}
	})
	a, b := testModule("web", "2"), testModule("mail", "3")
	dir := t.TempDir()
	inside := map[*plan.Module]otherNetwork{}
	for _, m := range []*plan.Module{a, b} {
		path, err := Module(m, dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(path, unix.MNT_DETACH) })
		inside[m] = otherNetwork{path}
		inside[m].do(t, listen(t))
	}
	if _, err := Module(a, dir); err != nil {
		t.Fatalf("a second time: %v", err)
	}
	if err := listen(t)(); err != nil {
		t.Fatal(err)
	}
	for _, at := range []netip.Addr{a.IPv4.Addr(), a.IPv6.Addr(), b.IPv4.Addr(), b.IPv6.Addr()} {
		if err := reaches(at, patience); err != nil {
			t.Errorf("the host does not reach %v: %v", at, err)
		}
	}
	// from is what one module gets of an address.
	from := func(m *plan.Module, to netip.Addr, within time.Duration) (err error) {
		inside[m].do(t, func() error { err = reaches(to, within); return nil })
		return err
	}
	for _, to := range []netip.Addr{b.IPv4.Addr(), b.IPv6.Addr()} {
		if from(a, to, moment) == nil {
			t.Errorf("one module reaches the other at %v", to)
		}
	}
	firewall(t)
	hosts := []netip.Addr{plan.HostIPv4.Addr(), plan.HostIPv6.Addr()}
	for _, to := range hosts {
		if from(a, to, moment) == nil {
			t.Errorf("a module reaches the host at %v", to)
		}
	}
	if err := reaches(a.IPv4.Addr(), patience); err != nil {
		t.Errorf("behind the firewall the host does not reach a module: %v", err)
	}

	// The twins: without the firewall a module reaches the host, without isolation another module.
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	c.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: firewallTable})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, to := range hosts {
		if err := from(a, to, patience); err != nil {
			t.Errorf("without the firewall: %v: %v", to, err)
		}
	}
	for _, m := range []*plan.Module{a, b} {
		l, err := netlink.LinkByName(hostEnd(m))
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetIsolated(l, false); err != nil {
			t.Fatal(err)
		}
	}
	inside[a].do(t, forgetNeighbours) // the kernel still remembers that nobody answered before
	if err := from(a, b.IPv4.Addr(), patience); err != nil {
		t.Fatalf("without isolation: %v", err)
	}
}

func forgetNeighbours() error {
	all, err := list(func() ([]netlink.Neigh, error) { return netlink.NeighList(0, netlink.FAMILY_ALL) })
	if err != nil {
		return err
	}
	for _, n := range all {
		if n.State != netlink.NUD_PERMANENT {
			if err := netlink.NeighDel(&n); err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
	}
	return nil
}

func TestFirewallFromOutside(t *testing.T) {
	isolated(t)
	here, there := netip.MustParsePrefix("192.0.2.7/24"), netip.MustParsePrefix("192.0.2.8/24")
	outside := plug(t, "uplink", there)
	l, err := netlink.LinkByName("uplink")
	if err != nil {
		t.Fatal(err)
	}
	if err := configure(l, here); err != nil {
		t.Fatal(err)
	}
	if err := listen(t)(); err != nil {
		t.Fatal(err)
	}
	firewall(t)
	from := func(within time.Duration) (err error) {
		outside.do(t, func() error { err = reaches(here.Addr(), within); return nil })
		return err
	}
	if err := from(patience); err != nil {
		t.Errorf("the open port is not reached: %v", err)
	}
	if err := Firewall(nil); err != nil { // replaces all rules
		t.Fatal(err)
	}
	if from(moment) == nil {
		t.Error("a port that is not open is reached")
	}
	outside.do(t, listen(t))
	if err := reaches(there.Addr(), patience); err != nil {
		t.Errorf("the answer to the host does not come in: %v", err)
	}
}

func TestModuleNetworkIsMadeWhole(t *testing.T) {
	isolated(t)
	dir := t.TempDir()
	m := testModule("web", "2")
	if _, err := Module(m, dir); err == nil {
		t.Fatal("there is no bridge, and yet the module is connected")
	}
	if isNamespace(dir + "/web") {
		t.Error("half a network is left, which the next attempt would take for a whole one")
	}
	if _, err := os.Stat(dir + "/web"); err != nil {
		t.Error(err)
	}
}
