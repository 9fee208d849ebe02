// Package resolver answers the modules' questions for names (RFC 1035): those inside the box itself, all others by asking
// the network's resolvers, for modules that may connect to anything outside. It runs as an unprivileged process,
// cmd/allot-resolver, on the host's addresses in the box's network, which the outside cannot reach.
//
// Every module may know every name inside: addresses are no secret, and the firewall decides who connects to whom.
package resolver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/miekg/dns"

	"allotment/init/plan"
)

// Port is where the resolver listens, by UDP and TCP.
const Port = 53

// zone is the domain of the names inside (reserved for that by ICANN in 2024).
const zone = "internal"

// hostName is the box itself.
const hostName = "host." + zone

// Config is what the supervisor tells the resolver; see docs/formats/network.md.
type Config struct {
	Names    map[string][]netip.Addr `json:"names"`    // addresses by name, in lower case, without a dot at the end
	Forward  []netip.Addr            `json:"forward"`  // clients whose questions for other names are asked outside
	Upstream []netip.AddrPort        `json:"upstream"` // the network's resolvers, in the order in which they are asked
}

// NewConfig is the configuration for the modules that are switched on. The organisation's own host names lead to the
// gateway; upstream are the network's resolvers.
func NewConfig(modules []*plan.Module, own []string, upstream []netip.Addr) Config {
	host := []netip.Addr{plan.HostIPv4.Addr(), plan.HostIPv6.Addr()}
	c := Config{Names: map[string][]netip.Addr{hostName: host}}
	for _, name := range own {
		c.Names[strings.TrimSuffix(strings.ToLower(name), ".")] = host
	}
	for _, m := range modules {
		addrs := []netip.Addr{m.IPv4.Addr(), m.IPv6.Addr()}
		c.Names[m.Name+"."+zone] = addrs
		if m.Declared != nil && len(m.Declared.Egress) > 0 {
			c.Forward = append(c.Forward, addrs...)
		}
	}
	for _, a := range upstream {
		c.Upstream = append(c.Upstream, netip.AddrPortFrom(a, Port))
	}
	return c
}

// ReadConfig reads the file at path.
func ReadConfig(path string) (Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("cannot read the resolver's configuration: %w", err)
	}
	var c Config
	if err := json.Unmarshal(b, &c); err != nil {
		return Config{}, fmt.Errorf("cannot read the resolver's configuration %q: %w", path, err)
	}
	return c, nil
}

// ResolvConf is the content of every module's /etc/resolv.conf (resolv.conf(5)).
func ResolvConf() string {
	return fmt.Sprintf("nameserver %s\nnameserver %s\noptions edns0\n", plan.HostIPv4.Addr(), plan.HostIPv6.Addr())
}

// Listen opens the resolver's sockets, in the order in which the program takes them: UDP and TCP by IPv4, then by IPv6. The
// host must have its addresses already.
func Listen() ([]*os.File, error) {
	var files []*os.File
	for _, a := range []netip.Addr{plan.HostIPv4.Addr(), plan.HostIPv6.Addr()} {
		f, err := listenAt(netip.AddrPortFrom(a, Port))
		files = append(files, f...)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, fmt.Errorf("cannot listen for the resolver: %w", err)
		}
	}
	return files, nil
}

func listenAt(a netip.AddrPort) ([]*os.File, error) {
	u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(a))
	if err != nil {
		return nil, err
	}
	defer u.Close()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(u.LocalAddr().(*net.UDPAddr).AddrPort()))
	if err != nil {
		return nil, err
	}
	defer l.Close()
	uf, err := u.File()
	if err != nil {
		return nil, err
	}
	lf, err := l.File()
	return []*os.File{uf, lf}, err
}

// Probe asks the running resolver for the host's own address, which it needs nobody for.
func Probe(ctx context.Context) error {
	return probe(ctx, netip.AddrPortFrom(plan.HostIPv4.Addr(), Port))
}

func probe(ctx context.Context, at netip.AddrPort) error {
	q := new(dns.Msg).SetQuestion(dns.Fqdn(hostName), dns.TypeA)
	r, _, err := new(dns.Client).ExchangeContext(ctx, q, at.String())
	if err != nil {
		return fmt.Errorf("cannot ask the resolver: %w", err)
	}
	if r.Rcode != dns.RcodeSuccess || len(r.Answer) == 0 {
		return errors.New("the resolver does not know the host")
	}
	return nil
}
