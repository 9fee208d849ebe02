package profile

import (
	"fmt"
	"regexp"
	"slices"

	"allotment/image"
)

// boxPorts are those of the box itself: its web pages, and the answers to its DHCP clients.
var boxPorts = []string{"tcp 80", "tcp 443", "udp 443", "udp 68", "udp 546"}

// What a module may read of the directory, and which groups have a permission at first.
var (
	readable   = []string{"people", "groups", "collectives", "offices"}
	groups     = []string{"members", "officers"}
	records    = []string{"A", "AAAA", "CAA", "CNAME", "MX", "SRV", "TLSA", "TXT"}
	recordForm = regexp.MustCompile(`^(@|[a-z0-9_*]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9])?)*)$`)
)

// checkNetworking checks whom a module talks to; whether its peers are there, checkTogether knows.
func checkNetworking(d *document, m *image.Module) {
	checkPorts(d, m.Ports)
	seen := once{}
	for i, p := range m.Peers {
		key := item("peer", i)
		d.name(key+".module", p.Module, nameForm)
		if p.Module == m.Name {
			d.fault(key+".module", "leave it out: services of one module always reach each other", "a module is not a peer of itself")
		}
		seen.add(d, key+".module", p.Module)
		d.ports(key+".ports", p.Ports)
	}
	for i, e := range m.Egress {
		key := item("egress", i)
		d.choice(key+".to", orDefault(e.To, "internet"), "internet", "lan")
		d.choice(key+".protocol", orDefault(e.Protocol, "tcp"), "tcp", "udp")
		d.ports(key+".ports", e.Ports)
		d.filled(key+".why", e.Why)
	}
	if l := m.LDAP; l != nil {
		if len(l.Read) == 0 {
			d.missing("ldap.read", oneOf("", readable))
		}
		for i, what := range l.Read {
			d.choice(item("ldap.read", i), what, readable...)
		}
		unique(d, "ldap.read", l.Read)
	}
	for i, r := range m.DNS {
		key := item("dns", i)
		if !recordForm.MatchString(r.Name) {
			d.fault(key+".name", `want a name below the domain in small letters, or "@" for the domain itself`, "name %q is not usable", r.Name)
		}
		d.choice(key+".type", r.Type, records...)
		d.filled(key+".value", r.Value)
	}
}

func checkPorts(d *document, ports []image.Port) {
	seen := once{}
	for i, p := range ports {
		key := item("port", i)
		d.port(key+".port", p.Port)
		d.choice(key+".protocol", orDefault(p.Protocol, "tcp"), "tcp", "udp")
		d.choice(key+".expose", p.Expose, "public", "lan", "none")
		d.line(key+".name", p.Name)
		seen.add(d, key+".port", portName(p))
		if p.Expose != "none" && slices.Contains(boxPorts, portName(p)) {
			d.fault(key+".port", "", "port %s is the box's own", portName(p))
		}
	}
}

// portName is protocol and number of a port.
func portName(p image.Port) string { return fmt.Sprintf("%s %d", orDefault(p.Protocol, "tcp"), p.Port) }

// ports checks a list of ports.
func (d *document) ports(key string, all []int) {
	if len(all) == 0 {
		d.missing(key, "write, for instance, ports = [443]")
	}
	seen := once{}
	for i, n := range all {
		d.port(item(key, i), n)
		seen.add(d, item(key, i), fmt.Sprint(n))
	}
}
