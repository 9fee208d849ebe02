package network

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"allotment/image"
	"allotment/init/plan"
)

// town is a box with modules, and a network outside that has addresses of every kind.
type town struct {
	rules Rules
	nets  map[string]otherNetwork // the modules', and "outside"
}

// Ports on which all listen: each tells whoever connects by which address it knows him.
var townPorts = []int{25, 53, 80, 389, 443, 5222, 9000}

// Addresses outside, and the host's own there.
var (
	outsideAddrs = prefixes("192.168.77.1/24", "fd77::1/64", "8.8.8.8/32", "2001:db8:8::8/128", "169.254.169.254/32", "fd00:ec2::254/128",
		"64:ff9b::a9fe:a9fe/128", "64:ff9b::808:808/128", "100.64.0.1/32")
	uplinkAddrs = prefixes("192.168.77.2/24", "fd77::2/64")
)

func newTown(t *testing.T) *town {
	isolated(t)
	hostNetwork(t)
	web, directory, mail, off := testModule("web", "2"), testModule("directory", "3"), testModule("mail", "4"), testModule("off", "5")
	web.Peers = []plan.Peer{{Module: directory, Ports: []int{389}}}
	web.HTTP = &image.HTTP{Port: 80}
	web.Declared = &image.Module{
		Egress: []image.Egress{{Ports: []int{443}}, {Protocol: "udp", Ports: []int{9000}}},
		Ports:  []image.Port{{Port: 25, Expose: "public"}, {Port: 5222, Expose: "lan"}, {Port: 389, Expose: "none"}, {Port: 80, Expose: "public"}},
	}
	mail.Declared = &image.Module{SSO: "oidc", Egress: []image.Egress{{To: "lan", Ports: []int{443}}}}
	off.Peers, off.Declared = web.Peers, web.Declared
	v := &town{rules: Rules{Ports: []uint16{80}, UDP: []uint16{443}, Modules: []*plan.Module{web, directory, mail}}, nets: map[string]otherNetwork{}}
	dir := t.TempDir()
	for _, m := range append(v.rules.Modules, off) {
		path, err := Module(m, dir)
		t.Cleanup(func() { disconnect(m, path) })
		if err != nil {
			t.Fatal(err)
		}
		v.nets[m.Name] = otherNetwork{path}
	}
	v.nets["outside"] = plug(t, "uplink", outsideAddrs[0])
	v.in(t, "outside", func() error { return v.streets() })
	uplink, err := netlink.LinkByName("uplink")
	if err != nil {
		t.Fatal(err)
	}
	if err := configure(uplink, uplinkAddrs...); err != nil {
		t.Fatal(err)
	}
	for i, all := range prefixes("0.0.0.0/0", "::/0") {
		if err := addRoute(uplink, Route{To: all, Gateway: outsideAddrs[i].Addr()}, netip.Addr{}, unix.RTPROT_STATIC); err != nil {
			t.Fatal(err)
		}
	}
	for _, who := range []string{"web", "directory", "mail", "off", "outside", "host"} {
		v.in(t, who, func() error { return serve(t) })
	}
	t.Cleanup(func() { install(nil) })
	return v
}

// streets gives the network outside its addresses, and ways to the modules by way of the host as a neighbour would set them.
func (v *town) streets() error {
	if err := Loopback(); err != nil {
		return err
	}
	l, err := netlink.LinkByName("outside")
	if err != nil {
		return err
	}
	if err := configure(l, outsideAddrs...); err != nil {
		return err
	}
	for i, n := range ownNetworks {
		if err := addRoute(l, Route{To: n, Gateway: uplinkAddrs[i].Addr()}, netip.Addr{}, unix.RTPROT_STATIC); err != nil {
			return err
		}
	}
	return nil
}

// hostUsers are programs of the host that do not run as root.
var hostUsers = map[string]uintptr{"gateway": plan.GatewayID, "resolver": plan.ResolverID, "portal": plan.PortalID,
	"updater": plan.UpdaterID}

func isRealRoot() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && slices.Equal(strings.Fields(string(b)), []string{"0", "0", "4294967295"})
}

// in runs f in somebody's network.
func (v *town) in(t *testing.T, who string, f func() error) {
	t.Helper()
	if n, ok := v.nets[who]; ok {
		n.do(t, f)
		return
	}
	err := inThread(func() error { // a process of the host
		if user := hostUsers[who]; user != 0 {
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, user, user, user); errno != 0 {
				return errno
			}
		}
		return f()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// serve listens at all addresses of the thread's network until the test ends.
func serve(t *testing.T) error {
	all, err := list(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return err
	}
	for _, a := range all {
		ip, _ := netip.AddrFromSlice(a.IP)
		if ip = ip.Unmap(); ip.IsLinkLocalUnicast() && ip.Is6() {
			continue
		}
		for _, port := range townPorts {
			if err := serveAt(t, netip.AddrPortFrom(ip, uint16(port)).String()); err != nil {
				return err
			}
		}
	}
	return nil
}

func serveAt(t *testing.T, address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	u, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	t.Cleanup(func() { l.Close(); u.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().String())
			c.Close()
		}
	}()
	go func() {
		for b := make([]byte, 1); ; {
			_, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			u.WriteTo([]byte(from.(*net.UDPAddr).AddrPort().Addr().String()), from)
		}
	}()
	return nil
}

// attempt is somebody's wish to reach an address, and what must come of it.
type attempt struct {
	who, source string // source: address, empty for his own
	network     string // tcp if empty
	to          string // addresses of all families, comma between
	port        int
	seen        string // as whom he is known there; empty: as source
	opens       string // refused: the rules without which it would succeed, comma between
}

// try makes the attempt at one address.
func (v *town) try(t *testing.T, a attempt, to, source string, within time.Duration) (seen string, err error) {
	v.in(t, a.who, func() error {
		d := net.Dialer{Timeout: within}
		network := a.network
		if network == "" {
			network = "tcp"
		}
		if ip := net.ParseIP(source); ip != nil && network == "tcp" {
			d.LocalAddr = &net.TCPAddr{IP: ip}
		} else if ip != nil {
			d.LocalAddr = &net.UDPAddr{IP: ip}
		}
		c, e := d.Dial(network, net.JoinHostPort(to, fmt.Sprint(a.port)))
		if e != nil {
			err = e
			return nil
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(within))
		if network == "udp" {
			c.Write([]byte{1})
		}
		b := make([]byte, 100)
		n, e := c.Read(b)
		seen, err = string(b[:n]), e
		return nil
	})
	return seen, err
}

// each calls f for every address of the attempt with the source of the same family.
func (a attempt) each(f func(to, source, seen string)) {
	if hostUsers[a.who] != 0 && !isRealRoot() {
		return // of an ordinary user's namespace there is one user alone
	}
	pick := func(list string, i int) string {
		all := strings.Split(list, ",")
		return all[min(i, len(all)-1)]
	}
	for i, to := range strings.Split(a.to, ",") {
		f(to, pick(a.source, i), pick(a.seen, i))
	}
}

const (
	hostInside = "10.209.0.1,fd00:a110::1"
	hostUplink = "192.168.77.2,fd77::2"
	web        = "10.209.0.2,fd00:a110::2"
	directory  = "10.209.0.3,fd00:a110::3"
	mail       = "10.209.0.4,fd00:a110::4"
	internet   = "8.8.8.8,2001:db8:8::8"
	lan        = "192.168.77.1,fd77::1"
	metadataAt = "169.254.169.254,fd00:ec2::254"
)

func TestRulesLetThrough(t *testing.T) {
	v := newTown(t)
	if err := SetRules(v.rules); err != nil {
		t.Fatal(err)
	}
	for _, a := range []attempt{
		{who: "web", to: directory, port: 389, seen: web},
		{who: "web", to: internet, port: 443, seen: hostUplink},
		{who: "web", to: internet, port: 9000, network: "udp", seen: hostUplink},
		{who: "web", to: "64:ff9b::808:808", port: 443, seen: "fd77::2"},
		{who: "web", to: hostInside, port: 53, seen: web},
		{who: "directory", to: hostInside, port: 53, network: "udp", seen: directory},
		{who: "mail", to: lan, port: 443, seen: hostUplink},
		{who: "mail", to: hostInside, port: 80, seen: mail},
		{who: "host", to: web, port: 80, seen: hostInside},
		{who: "host", to: internet, port: 443, seen: hostUplink},
		{who: "gateway", to: web, port: 80, seen: hostInside},
		{who: "gateway", to: internet, port: 443, seen: hostUplink},
		{who: "gateway", to: lan, port: 53, network: "udp", seen: hostUplink},
		{who: "portal", to: directory, port: 389, seen: hostInside},
		{who: "portal", to: internet, port: 25, seen: hostUplink},
		{who: "portal", to: lan, port: 443, seen: hostUplink},
		{who: "updater", to: internet, port: 80, seen: hostUplink},
		{who: "updater", to: lan, port: 443, seen: hostUplink},
		{who: "portal", to: "169.254.169.254", port: 53, network: "udp", seen: "192.168.77.2"},
		{who: "resolver", to: internet, port: 53, seen: hostUplink},
		{who: "resolver", to: lan, port: 53, network: "udp", seen: hostUplink},
		{who: "outside", source: internet, to: hostUplink, port: 25, seen: internet},
		{who: "outside", source: lan, to: hostUplink, port: 5222, seen: lan},
		{who: "outside", source: internet, to: hostUplink, port: 80, seen: internet},
		{who: "outside", source: internet, to: hostUplink, port: 443, network: "udp", seen: internet},
	} {
		a.each(func(to, source, want string) {
			if seen, err := v.try(t, a, to, source, patience); err != nil || seen != want {
				t.Errorf("%s to %s port %d: known as %q, want %q: %v", a.who, to, a.port, seen, want, err)
			}
		})
	}
}

// Rules without which nobody is refused by the forward and the input chain.
const (
	noForward = "nothing else by a module,policy of forward"
	noGenuine = "spoofed by a module,spoofed from outside,the box's network is not the outside's business"
	noInput   = "nothing else of the host,nothing else from a module,policy of input"
)

func TestRulesRefuse(t *testing.T) {
	v := newTown(t)
	for _, a := range []attempt{
		{who: "web", to: directory, port: 80, opens: noForward},
		{who: "web", to: mail, port: 389, opens: noForward},
		{who: "directory", to: web, port: 25, opens: noForward},
		{who: "off", to: directory, port: 389, source: "10.209.0.5,fd00:a110::5", opens: noForward + "," + noGenuine},
		{who: "web", to: internet, port: 80, opens: noForward},
		{who: "web", to: internet, port: 53, network: "udp", opens: noForward},
		{who: "directory", to: internet, port: 443, opens: noForward},
		{who: "mail", to: internet, port: 443, opens: noForward},
		{who: "web", to: lan, port: 443, opens: "not the internet"},
		{who: "web", to: metadataAt, port: 443, opens: "not the internet"},
		{who: "web", to: "64:ff9b::a9fe:a9fe", port: 443, opens: "not the internet"},
		{who: "web", to: "100.64.0.1", port: 443, opens: "not the internet"},
		{who: "web", to: mail, port: 443, opens: "not the internet,another module is not the internet"},
		{who: "mail", to: metadataAt, port: 443, opens: "not the local network"},
		{who: "mail", to: directory, port: 443, opens: "not the local network,another module is not the local network"},
		{who: "web", to: hostInside, port: 80, opens: noInput},
		{who: "web", to: hostUplink, port: 443, opens: noInput},
		{who: "mail", to: hostUplink, port: 80, opens: noInput},
		{who: "web", to: hostUplink, port: 53, network: "udp", opens: noInput},
		{who: "gateway", to: web, port: 25, opens: "the gateway to a module,nothing else by the gateway"},
		{who: "gateway", to: directory, port: 389, opens: "the gateway to a module,nothing else by the gateway"},
		{who: "gateway", to: internet, port: 25, opens: "nothing else by the gateway"},
		{who: "gateway", to: mail, port: 443, opens: "the gateway to a module"},
		{who: "gateway", to: hostInside, port: 443, opens: "the gateway to the host"},
		{who: "gateway", to: metadataAt, port: 443, opens: "the gateway to a metadata service"},
		{who: "portal", to: web, port: 80, opens: "the portal to a module,nothing else by the portal"},
		{who: "portal", to: directory, port: 25, opens: "the portal to a module"},
		{who: "portal", to: mail, port: 389, opens: "the portal to a module,nothing else by the portal"},
		{who: "portal", to: hostInside, port: 443, opens: "the portal to the host"},
		{who: "portal", to: metadataAt, port: 443, opens: "the portal to a metadata service"},
		{who: "portal", to: internet, port: 80, opens: "nothing else by the portal"},
		{who: "portal", to: lan, port: 9000, network: "udp", opens: "nothing else by the portal"},
		{who: "gateway", to: hostInside, port: 9000, opens: "the gateway to the host,nothing else by the gateway"},
		{who: "gateway", to: hostInside, port: 53, network: "udp", opens: "the gateway to the host,nothing else by the gateway"},
		{who: "updater", to: web, port: 80, opens: "the updater to a module"},
		{who: "updater", to: directory, port: 389, opens: "the updater to a module"},
		{who: "updater", to: hostInside, port: 443, opens: "the updater to the host"},
		{who: "updater", to: metadataAt, port: 443, opens: "the updater to a metadata service"},
		{who: "resolver", to: web, port: 80, opens: "nothing else by the resolver"},
		{who: "resolver", to: internet, port: 443, opens: "nothing else by the resolver"},
		{who: "outside", source: internet, to: hostUplink, port: 9000, opens: "policy of input"},
		{who: "outside", source: lan, to: hostUplink, port: 53, network: "udp", opens: "policy of input"},
		{who: "outside", source: lan, to: web, port: 80,
			opens: "the box's network is not the outside's business,policy of forward"},
		{who: "outside", source: lan, to: hostInside, port: 53, opens: "the box's network is not the outside's business,policy of input"},
	} {
		if err := SetRules(v.rules); err != nil {
			t.Fatal(err)
		}
		a.each(func(to, source, _ string) {
			if seen, err := v.try(t, a, to, source, moment); err == nil {
				t.Errorf("%s reaches %s port %d, as %q", a.who, to, a.port, seen)
			}
		})
		if err := install(without(chains(v.rules), a.opens)); err != nil {
			t.Fatal(err)
		}
		a.each(func(to, source, _ string) {
			if _, err := v.try(t, a, to, source, patience); err != nil {
				t.Errorf("without %q %s does not reach %s port %d either: %v", a.opens, a.who, to, a.port, err)
			}
		})
	}
}

// without takes rules away, named by their comments, and the policies of chains.
func without(all []chain, names string) []chain {
	for _, name := range strings.Split(names, ",") {
		found := false
		for i := range all {
			c := &all[i]
			if c.drop && name == "policy of "+c.name {
				c.drop, found = false, true
			}
			before := len(c.rules)
			c.rules = slices.DeleteFunc(c.rules, func(r rule) bool { return r.why == name })
			found = found || len(c.rules) < before
		}
		if !found {
			panic("no such rule: " + name)
		}
	}
	return all
}

// A port that is offered to the local network, and everything while a release is on trial.
func TestRulesOfOfferedPorts(t *testing.T) {
	v := newTown(t)
	lanPort := attempt{who: "outside", source: internet, to: hostUplink, port: 5222}
	publicPort := attempt{who: "outside", source: internet, to: hostUplink, port: 25}
	gateway := attempt{who: "outside", source: lan, to: hostUplink, port: 80}
	check := func(a attempt, rules Rules, through string, want bool) {
		t.Helper()
		if err := SetRules(rules); err != nil {
			t.Fatal(err)
		}
		limit := moment
		if want {
			limit = patience
		}
		a.each(func(to, source, _ string) {
			seen, err := v.try(t, a, to, source, limit)
			if (err == nil && seen == source) != want {
				t.Errorf("%s: port %d at %s for %s: known as %q, %v", through, a.port, to, source, seen, err)
			}
		})
	}
	closed := v.rules
	closed.Closed = true
	public := v.rules
	m := *v.rules.Modules[0]
	m.Declared = &image.Module{Ports: []image.Port{{Port: 5222, Expose: "public"}}}
	public.Modules = []*plan.Module{&m}
	// The host itself listens on all of these ports too, behind its own rules.
	check(lanPort, v.rules, "offered to the local network", false)
	check(lanPort, public, "the twin, offered to all", true)
	check(publicPort, closed, "on trial", false)
	check(publicPort, v.rules, "the twin, not on trial", true)
	check(gateway, closed, "on trial", false)
	check(gateway, v.rules, "the twin, not on trial", true)
}

// The gateway asks an authority of the organisation's own at the port that it has.
func TestRulesOfAuthority(t *testing.T) {
	if !isRealRoot() {
		t.Skip("programs of other users are started by root alone")
	}
	v := newTown(t)
	a := attempt{who: "gateway", to: lan, port: 9000}
	for _, ask := range [][]uint16{nil, {9000}} {
		rules := v.rules
		rules.Ask = ask
		if err := SetRules(rules); err != nil {
			t.Fatal(err)
		}
		a.each(func(to, source, _ string) {
			if _, err := v.try(t, a, to, source, moment); (err == nil) != (ask != nil) {
				t.Errorf("ports %v: %s: %v", ask, to, err)
			}
		})
	}
}

// Nothing leaves by a module while a release is on trial, but modules reach each other.
func TestRulesOfTrial(t *testing.T) {
	v := newTown(t)
	outwards := []attempt{{who: "web", to: internet, port: 443}}
	inwards := []attempt{{who: "web", to: directory, port: 389}}
	if isRealRoot() { // or each would do nothing, and so reach it
		outwards = append(outwards, attempt{who: "portal", to: internet, port: 25}, attempt{who: "gateway", to: internet, port: 443},
			attempt{who: "updater", to: internet, port: 443})
		inwards = append(inwards, attempt{who: "portal", to: directory, port: 389}, attempt{who: "gateway", to: web, port: 80})
	}
	reaches := func(a attempt) (all bool) {
		t.Helper()
		all = true
		a.each(func(to, source, _ string) {
			_, err := v.try(t, a, to, source, moment)
			all = all && err == nil
		})
		return all
	}
	for _, closed := range []bool{true, false} {
		rules := v.rules
		rules.Closed = closed
		if err := SetRules(rules); err != nil {
			t.Fatal(err)
		}
		for _, a := range outwards {
			if reaches(a) == closed {
				t.Errorf("closed %t: %s reaches the internet: %t", closed, a.who, !closed)
			}
		}
		for _, a := range inwards {
			if !reaches(a) {
				t.Errorf("closed %t: %s does not reach %s", closed, a.who, a.to)
			}
		}
	}
}

// Nothing passes from a module that is switched off, although answers to connections that were accepted go on.
func TestConnectionsEndWithTheirModules(t *testing.T) {
	const port = 3890
	v := newTown(t)
	web, directory, mail := v.rules.Modules[0], v.rules.Modules[1], v.rules.Modules[2]
	web.Peers[0].Ports = []int{port}
	for _, a := range addrs(directory) {
		v.in(t, "directory", func() error { return echoAt(t, netip.AddrPortFrom(a.Addr(), port).String()) })
		for _, on := range [][]*plan.Module{{directory, mail}, {web, mail}} {
			if err := SetRules(v.rules); err != nil {
				t.Fatal(err)
			}
			var c net.Conn
			v.in(t, "web", func() (err error) {
				c, err = net.DialTimeout("tcp", netip.AddrPortFrom(a.Addr(), port).String(), patience)
				return err
			})
			defer c.Close()
			rules := v.rules
			rules.Modules = on
			if err := SetRules(rules); err != nil {
				t.Fatal(err)
			}
			if err := echo(c, moment); err == nil {
				t.Errorf("%s is reached by an old connection", a)
			}
			if err := install(without(chains(rules), noGenuine)); err != nil { // the twin
				t.Fatal(err)
			}
			if err := echo(c, patience); err != nil {
				t.Errorf("%s is not reached without %q either: %v", a, noGenuine, err)
			}
		}
	}
}

// echoAt sends back what it gets, until the test ends.
func echoAt(t *testing.T, address string) error {
	l, err := net.Listen("tcp", address)
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
			go io.Copy(c, c)
		}
	}()
	return nil
}

// echo sends a byte and wants one back.
func echo(c net.Conn, within time.Duration) error {
	c.SetDeadline(time.Now().Add(within))
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

// A module cannot fill the kernel's memory of connections: neither with connections nor with questions for names.
func TestConnectionsAreBounded(t *testing.T) {
	v := newTown(t)
	for bound, want := range map[uint32]int{2: 2, 100: 5} { // the second is the twin
		rules := chains(v.rules)
		for _, c := range rules {
			for _, r := range c.rules {
				for _, e := range r.exprs {
					if l, ok := e.(*expr.Connlimit); ok {
						l.Count = bound
					}
				}
			}
		}
		if err := install(rules); err != nil {
			t.Fatal(err)
		}
		reached := 0
		v.in(t, "web", func() error {
			for range 5 {
				if c, err := net.DialTimeout("tcp", "10.209.0.3:389", moment); err == nil {
					defer c.Close()
					reached++
				}
			}
			return nil
		})
		if reached != want {
			t.Errorf("with a bound of %d, %d connections of 5 come about", bound, reached)
		}
	}
	names := attempt{who: "web", to: hostInside, port: 53, network: "udp"}
	for _, untracking := range []string{"", "questions for names,answers with names"} {
		rules := chains(v.rules)
		if untracking != "" {
			rules = without(rules, untracking)
		}
		if err := install(rules); err != nil {
			t.Fatal(err)
		}
		if err := netlink.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
			t.Fatal(err)
		}
		names.each(func(to, source, _ string) {
			if _, err := v.try(t, names, to, source, patience); err != nil {
				t.Errorf("%s: %v", to, err)
			}
		})
		known := 0
		for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
			flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
			if err != nil {
				t.Fatal(err)
			}
			known += len(flows)
		}
		if (known > 0) != (untracking != "") {
			t.Errorf("without %q %d questions for names are remembered", untracking, known)
		}
	}
}

func TestSpoofedAddresses(t *testing.T) {
	v := newTown(t)
	forge := func(who, link string, a netip.Prefix) {
		v.in(t, who, func() error {
			l, err := netlink.LinkByName(link)
			if err != nil {
				return err
			}
			return netlink.AddrReplace(l, newAddr(a))
		})
	}
	for _, a := range prefixes("10.209.0.9/32", "fd00:a110::9/128") {
		forge("web", moduleLink, a)
		forge("outside", "outside", a)
	}
	// rp_filter would save IPv4 alone; the answers need a way back.
	uplink, err := netlink.LinkByName("uplink")
	if err != nil {
		t.Fatal(err)
	}
	cable, err := netlink.LinkByName(hostEnd(v.rules.Modules[0]))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		attempt
		back  netlink.Link
		named string
	}{
		{attempt{who: "web", to: hostInside, source: "10.209.0.9,fd00:a110::9", port: 53}, cable, noGenuine},
		{attempt{who: "outside", to: hostUplink, source: "10.209.0.9,fd00:a110::9", port: 80}, uplink, "spoofed from outside"},
	} {
		for i, a := range prefixes("10.209.0.9/32", "fd00:a110::9/128") {
			r := Route{To: a}
			if c.back == uplink {
				r.Gateway = outsideAddrs[i].Addr()
			} else if err := neighbour(cable, a.Addr(), moduleMAC(v.rules.Modules[0])); err != nil {
				t.Fatal(err)
			}
			if err := addRoute(c.back, r, netip.Addr{}, unix.RTPROT_STATIC); err != nil {
				t.Fatal(err)
			}
		}
		for named, want := range map[string]bool{"": false, c.named: true} {
			rules := chains(v.rules)
			if want {
				rules = without(rules, named)
			}
			if err := install(rules); err != nil {
				t.Fatal(err)
			}
			c.each(func(to, source, _ string) {
				if _, err := v.try(t, c.attempt, to, source, 4*moment); (err == nil) != want {
					t.Errorf("%s as %s to %s without %q: %v", c.who, source, to, named, err)
				}
			})
		}
	}
}
