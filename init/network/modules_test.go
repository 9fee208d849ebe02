package network

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

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
		for _, a := range []string{"0.0.0.0:80", "[::]:80"} {
			if err := listenAt(t, a); err != nil {
				return err
			}
		}
		return nil
	}
}

func listenAt(t *testing.T, address string) error {
	network := "tcp4"
	if address[0] == '[' {
		network = "tcp6"
	}
	l, err := net.Listen(network, address)
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
	t.Cleanup(func() { install(nil) })
	if err := SetRules(Rules{Ports: []uint16{80}}); err != nil {
		t.Fatal(err)
	}
	from := func(within time.Duration) (err error) {
		outside.do(t, func() error { err = reaches(here.Addr(), within); return nil })
		return err
	}
	if err := from(patience); err != nil {
		t.Errorf("the open port is not reached: %v", err)
	}
	if err := SetRules(Rules{}); err != nil { // replaces all rules
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

// hostNetwork gives the test's network what the host's has.
func hostNetwork(t *testing.T) {
	t.Helper()
	for _, step := range []func() error{Loopback, Host, Host} { // a second time nothing changes
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestModuleNetworkIsMadeWhole(t *testing.T) {
	isolated(t)
	hostNetwork(t)
	dir := t.TempDir()
	m := testModule("web", "2")
	path := dir + "/web"
	t.Cleanup(func() { disconnect(m, path) })
	inode := func() uint64 {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	// Somebody died between making the namespace and connecting it, or while it was connected.
	half := []func() error{
		func() error { return makeNamespace(path) },
		func() error {
			l, err := netlink.LinkByName(hostEnd(m))
			if err != nil {
				return err
			}
			return netlink.LinkSetAlias(l, "half done")
		},
	}
	for i, die := range half {
		if err := die(); err != nil {
			t.Fatal(err)
		}
		before := inode()
		if _, err := Module(m, dir); err != nil {
			t.Fatal(err)
		}
		if inode() == before {
			t.Errorf("half a network is taken for a whole one (%d)", i)
		}
		otherNetwork{path}.do(t, listen(t))
		for _, a := range addrs(m) {
			if err := reaches(a.Addr(), patience); err != nil {
				t.Errorf("after half a network %d the host does not reach the module at %v: %v", i, a, err)
			}
		}
	}
	before := inode()
	if _, err := Module(m, dir); err != nil || inode() != before {
		t.Errorf("a whole network was made again: %v", err)
	}
}

// disconnect takes a module's network away.
func disconnect(m *plan.Module, path string) {
	unix.Unmount(path, unix.MNT_DETACH)
	if l, err := netlink.LinkByName(hostEnd(m)); err == nil {
		netlink.LinkDel(l)
	}
}

func TestHalfAModuleNetworkIsNotLeft(t *testing.T) {
	isolated(t)
	m := testModule("web", "2")
	m.IPv6 = netip.MustParsePrefix("ff02::1/64") // which no link can have
	dir := t.TempDir()
	if _, err := Module(m, dir); err == nil || !strings.Contains(err.Error(), "cannot connect") {
		t.Fatalf("connected: %v", err)
	}
	if isNamespace(dir + "/web") {
		t.Error("half a network is left")
	}
	if _, err := os.Stat(dir + "/web"); err != nil {
		t.Error(err)
	}
}
