package network

import (
	"errors"
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

// BridgeName is the bridge between the host and its modules.
const BridgeName = "allot0"

// moduleLink is what a module's end of its cable is called.
const moduleLink = "eth0"

// hostMAC is the bridge's hardware address. All addresses inside the box are fixed (and locally administered), so that
// no module can take over another one's by answering for it.
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

// Bridge makes the bridge with the host's addresses, unless it is there.
func Bridge() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = BridgeName, hostMAC
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(bridge); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("cannot make bridge %q: %w", BridgeName, err)
	}
	if err := setSysctl("ipv6/conf/"+BridgeName+"/accept_dad", "0"); err != nil {
		return err
	}
	if err := setSysctl("ipv6/conf/"+BridgeName+"/accept_ra", "0"); err != nil {
		return err
	}
	link, err := netlink.LinkByName(BridgeName)
	if err != nil {
		return fmt.Errorf("cannot find bridge %q: %w", BridgeName, err)
	}
	return configure(link, plan.HostIPv4, plan.HostIPv6)
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

// Module makes the module's network namespace, mounted at dir/NAME, with a cable to the bridge, and returns that path. The
// module reaches nothing by it but answers to the host. What is there already is kept.
func Module(m *plan.Module, dir string) (string, error) {
	path := filepath.Join(dir, m.Name)
	if isNamespace(path) {
		return path, nil
	}
	if err := makeNamespace(path); err != nil {
		return "", fmt.Errorf("cannot make the network of module %q: %w", m.Name, err)
	}
	if err := connect(m, path); err != nil {
		unix.Unmount(path, unix.MNT_DETACH) // so that the next attempt does not take it for a whole one
		return "", fmt.Errorf("cannot connect module %q: %w", m.Name, err)
	}
	return path, nil
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

// connect lays the cable between the bridge and the module.
func connect(m *plan.Module, path string) error {
	ns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	bridge, err := netlink.LinkByName(BridgeName)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = hostEnd(m)
	attrs.MasterIndex = bridge.Attrs().Index
	cable := &netlink.Veth{
		LinkAttrs: attrs, PeerName: moduleLink, PeerHardwareAddr: moduleMAC(m), PeerNamespace: netlink.NsFd(ns.Fd()),
	}
	if old, err := netlink.LinkByName(attrs.Name); err == nil {
		netlink.LinkDel(old)
	}
	if err := netlink.LinkAdd(cable); err != nil {
		return fmt.Errorf("cannot make a cable: %w", err)
	}
	if err := fence(m, bridge, cable); err != nil {
		return err
	}
	if err := inThread(func() error { return configureModule(m, ns) }); err != nil {
		return err
	}
	return netlink.LinkSetUp(cable)
}

// hostEnd is short enough for a link's name whatever the module's is.
func hostEnd(m *plan.Module) string {
	b := m.IPv4.Addr().As4()
	return fmt.Sprintf("module%d", int(b[2])<<8|int(b[3]))
}

// fence makes sure that the module's port of the bridge leads to the host alone, and that the module has just the
// hardware and IP addresses that are its own.
func fence(m *plan.Module, bridge netlink.Link, port *netlink.Veth) error {
	if err := netlink.LinkSetIsolated(port, true); err != nil {
		return fmt.Errorf("cannot isolate a port: %w", err)
	}
	if err := netlink.LinkSetLearning(port, false); err != nil {
		return fmt.Errorf("cannot fix a port's address: %w", err)
	}
	fixed := &netlink.Neigh{
		LinkIndex: port.Index, Family: unix.AF_BRIDGE, State: netlink.NUD_NOARP, Flags: netlink.NTF_MASTER,
		HardwareAddr: moduleMAC(m),
	}
	if err := netlink.NeighSet(fixed); err != nil {
		return fmt.Errorf("cannot fix a port's address: %w", err)
	}
	for _, a := range []netip.Prefix{m.IPv4, m.IPv6} {
		if err := neighbour(bridge, a.Addr(), moduleMAC(m)); err != nil {
			return err
		}
	}
	return setSysctl("ipv6/conf/"+port.Name+"/disable_ipv6", "1")
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
	if err := configure(eth, m.IPv4, m.IPv6); err != nil {
		return err
	}
	for _, host := range []netip.Prefix{plan.HostIPv4, plan.HostIPv6} {
		if err := neighbour(eth, host.Addr(), hostMAC); err != nil {
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
