package network

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"allotment/init/plan"
)

// moduleLinkPrefix begins the name of the host's end of each cable to a module.
const moduleLinkPrefix = "module"

// moduleLink is what a module's end of its cable is called.
const moduleLink = "eth0"

// hostMAC is the hardware address of the host's end of every cable. All addresses inside the box are fixed, so nobody need
// be asked for them.
var hostMAC = net.HardwareAddr{0x02, 0xa1, 0x10, 0, 0, 1}

func moduleMAC(m *plan.Module) net.HardwareAddr {
	b := m.IPv4.Addr().As4()
	return net.HardwareAddr{0x02, 0xa1, 0x10, 0, b[2], b[3]}
}

// Loopback sets the loopback link of the thread's network namespace up.
func Loopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("cannot find the loopback link: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("cannot set the loopback link up: %w", err)
	}
	return nil
}

// Host gives the host its own addresses in the box's network, by which modules know it, and makes it drop packets from
// outside whose source is elsewhere.
func Host() error {
	if err := setSysctl("ipv4/conf/all/rp_filter", "1"); err != nil { // RFC 3704, strict
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("cannot find the loopback link: %w", err)
	}
	return configure(lo, hostAddrs...)
}

// configure gives the link its addresses and sets it up.
func configure(link netlink.Link, addresses ...netip.Prefix) error {
	for _, a := range addresses {
		if err := netlink.AddrReplace(link, newAddr(a)); err != nil {
			return fmt.Errorf("cannot give %s address %s: %w", link.Attrs().Name, a, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("cannot set %s up: %w", link.Attrs().Name, err)
	}
	return nil
}

func newAddr(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // the box gives its own addresses out; nobody else has them
	}
	return a
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Module makes the module's network namespace, mounted at dir/NAME, with a cable to the host, and returns that path. What
// is there already is kept if it is whole.
func Module(m *plan.Module, dir string) (string, error) {
	path := filepath.Join(dir, m.Name)
	if isNamespace(path) {
		if isConnected(m) {
			return path, nil
		}
		unix.Unmount(path, unix.MNT_DETACH) // whoever made it died before it was connected, so nothing runs in it
	}
	if err := makeNamespace(path); err != nil {
		return "", fmt.Errorf("cannot make the network of module %q: %w", m.Name, err)
	}
	if err := connect(m, path); err != nil {
		unix.Unmount(path, unix.MNT_DETACH)
		return "", fmt.Errorf("cannot connect module %q: %w", m.Name, err)
	}
	return path, nil
}

// isConnected tells whether connect came to its end for the module.
func isConnected(m *plan.Module) bool {
	l, err := netlink.LinkByName(hostEnd(m))
	return err == nil && l.Attrs().Alias == m.Name
}

func isNamespace(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// makeNamespace mounts a new network namespace at path.
func makeNamespace(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		return err
	}
	return inThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	})
}

// inThread runs f in a thread of its own, which ends with it and takes its namespaces along.
func inThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime drops the thread
		done <- f()
	}()
	return <-done
}

// connect lays the cable between the host and the module. Last it marks the host's end, for isConnected.
func connect(m *plan.Module, path string) error {
	ns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = hostEnd(m), hostMAC
	cable := &netlink.Veth{
		LinkAttrs: attrs, PeerName: moduleLink, PeerHardwareAddr: moduleMAC(m), PeerNamespace: netlink.NsFd(ns.Fd()),
	}
	if old, err := netlink.LinkByName(attrs.Name); err == nil {
		netlink.LinkDel(old)
	}
	if err := netlink.LinkAdd(cable); err != nil {
		return fmt.Errorf("cannot make a cable: %w", err)
	}
	for _, s := range [][2]string{{"accept_ra", "0"}, {"accept_dad", "0"}} {
		if err := setSysctl("ipv6/conf/"+attrs.Name+"/"+s[0], s[1]); err != nil {
			return err
		}
	}
	if err := inThread(func() error { return configureModule(m, ns) }); err != nil {
		return err
	}
	if err := attach(cable, moduleMAC(m), []netip.Addr{m.IPv4.Addr(), m.IPv6.Addr()}, hostAddrs); err != nil {
		return err
	}
	if err := takeShortWay(attrs.Name); err != nil {
		return err
	}
	if err := netlink.LinkSetAlias(cable, m.Name); err != nil {
		return fmt.Errorf("cannot mark %s: %w", attrs.Name, err)
	}
	return nil
}

// hostEnd is short enough for a link's name whatever the module's is.
func hostEnd(m *plan.Module) string {
	b := m.IPv4.Addr().As4()
	return fmt.Sprintf("%s%d", moduleLinkPrefix, int(b[2])<<8|int(b[3]))
}

// attach sets one end of a cable up and makes the addresses at the other end reachable by it, from one's own addresses.
// Both ends know each other's hardware address beforehand, so neither asks by ARP or neighbour discovery, nor believes it.
func attach(link netlink.Link, mac net.HardwareAddr, there []netip.Addr, own []netip.Prefix) error {
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("cannot set %s up: %w", link.Attrs().Name, err)
	}
	for i, a := range there {
		if err := neighbour(link, a, mac); err != nil {
			return err
		}
		if err := addRoute(link, Route{To: single(a)}, own[i].Addr(), unix.RTPROT_STATIC); err != nil {
			return err
		}
	}
	return nil
}

func neighbour(link netlink.Link, a netip.Addr, mac net.HardwareAddr) error {
	n := &netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac}
	if err := netlink.NeighSet(n); err != nil {
		return fmt.Errorf("cannot fix neighbour %s: %w", a, err)
	}
	return nil
}

// configureModule sets up the inside of the module's namespace. It must run in a thread of its own.
func configureModule(m *plan.Module, ns *os.File) error {
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	for _, s := range [][2]string{
		{"ipv6/conf/all/accept_ra", "0"},
		{"ipv6/conf/default/accept_ra", "0"},
		{"ipv6/conf/" + moduleLink + "/accept_ra", "0"},
		{"ipv6/conf/" + moduleLink + "/accept_dad", "0"},
		// The namespace is the module's alone, so its services may use any port without a capability.
		{"ipv4/ip_unprivileged_port_start", "0"},
	} {
		if err := setSysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	if err := Loopback(); err != nil {
		return err
	}
	eth, err := netlink.LinkByName(moduleLink)
	if err != nil {
		return err
	}
	if err := configure(eth, addrs(m)...); err != nil {
		return err
	}
	hosts := []netip.Addr{plan.HostIPv4.Addr(), plan.HostIPv6.Addr()}
	if err := attach(eth, hostMAC, hosts, addrs(m)); err != nil {
		return err
	}
	for i, all := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		r := Route{To: netip.PrefixFrom(all, 0), Gateway: hosts[i]}
		if err := addRoute(eth, r, netip.Addr{}, unix.RTPROT_STATIC); err != nil {
			return err
		}
	}
	return nil
}

// setSysctl sets a variable below /proc/sys/net of the thread's network namespace.
func setSysctl(name, value string) error {
	if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0); err != nil {
		return fmt.Errorf("cannot set net/%s to %s: %w", name, value, err)
	}
	return nil
}
