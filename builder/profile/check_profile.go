package profile

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"allotment/image"
)

// outputs are the formats of a finished image.
var outputs = []string{"raw.zst", "qcow2", "vmdk", "vhd"}

// maxDisk is the largest partition that a profile may ask for: 1 TiB, in MiB.
const maxDisk = 1 << 20

func checkProfile(d *document, p *Profile) {
	d.format(p.Format)
	file := strings.TrimSuffix(filepath.Base(p.File), ".toml")
	if d.name("name", p.Name, nameForm) && p.Name != file {
		d.fault("name", fmt.Sprintf("write name = %q or rename the file", file), "name is %q in a file called %q", p.Name, file+".toml")
	}
	d.filled("title", p.Title)
	if _, err := image.ParseVersion(string(p.Version)); err != nil {
		d.fault("version", "want two to four numbers with dots, such as 2026.11.3", "version %q is not usable", p.Version)
	}
	d.choice("channel", p.Channel, "stable", "candidate")
	if len(p.Archs) == 0 {
		d.missing("arch", oneOf("", archs))
	}
	for i, a := range p.Archs {
		d.choice(item("arch", i), string(a), archs...)
	}
	unique(d, "arch", p.Archs)
	unique(d, "modules", p.ModuleNames)
	if len(p.Outputs) == 0 {
		d.missing("outputs", oneOf("", outputs))
	}
	for i, o := range p.Outputs {
		d.choice(item("outputs", i), o, outputs...)
	}
	unique(d, "outputs", p.Outputs)
	checkCommandLine(d, p.Kernel.CommandLine)
	for key, n := range map[string]int{"esp": p.Disk.ESP, "root": p.Disk.Root, "verity": p.Disk.Verity, "state": p.Disk.State} {
		d.number("disk."+key, n, 0, maxDisk)
	}
	checkNetwork(d, &p.Network)
	if len(p.Time.Servers) == 0 {
		d.missing("time.servers", `write, for instance, servers = ["0.debian.pool.ntp.org"]`)
	}
	for i, s := range p.Time.Servers {
		if _, err := netip.ParseAddr(s); err != nil && !hostForm.MatchString(s) {
			d.fault(item("time.servers", i), "want a host name or an address", "time server %q is not usable", s)
		}
	}
	for key, u := range map[string]string{"mirror": p.Debian.Mirror, "security": p.Debian.Security, "snapshot": p.Debian.Snapshot, "npm": p.Debian.NPM} {
		checkURL(d, "debian."+key, u)
	}
	checkUpdate(d, &p.Update, p.Channel, filepath.Dir(p.File))
	checkACME(d, &p.Gateway.ACME, filepath.Dir(p.File))
	for key, err := range p.Organisation.Check() {
		if key == "name" && p.Organisation.Name == "" {
			continue // nor has it a title, which is told
		}
		d.fault("organisation."+key, "", "the organisation's %s %v", key, err)
	}
	if p.Developer && p.Channel == "stable" {
		d.fault("developer", `write channel = "candidate" or leave it out`, "an image for developers is never for members")
	}
}

// defaults fills in what an organisation has not said of itself.
func (p *Profile) defaults() {
	o := &p.Organisation
	o.Name = cmp.Or(o.Name, p.Title)
	o.Domain = cmp.Or(o.Domain, "allotment.internal")
	o.Language = cmp.Or(o.Language, "en")
	o.TimeZone = cmp.Or(o.TimeZone, "Etc/UTC")
}

var hostForm = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// ours are the words of the kernel command line that the builder sets, and that would undo what it promises if a profile
// set them.
var ours = []string{"roothash", "init", "rdinit", "root", "panic"}

func checkCommandLine(d *document, line string) {
	const key = "kernel.command-line"
	for _, r := range line {
		if r < ' ' || r > '~' {
			d.fault(key, "", "the command line has a character other than printable ASCII: %q", r)
			return
		}
	}
	for _, w := range strings.Fields(line) {
		name, _, _ := strings.Cut(w, "=")
		for _, o := range ours {
			if name == o {
				d.fault(key, "leave it out", "the builder sets %s= itself", o)
			}
		}
	}
}

func checkURL(d *document, key, s string) {
	if s == "" {
		return
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		d.fault(key, "want http:// or https://", "%s %q is not a usable address", last(key), s)
	}
}

func checkNetwork(d *document, n *image.Network) {
	d.choice("network.mode", n.Mode, "auto", "static")
	if len(n.Interface) > 15 || strings.ContainsAny(n.Interface, "/ \t\n") { // IFNAMSIZ
		d.fault("network.interface", "", "interface %q is not usable: want at most 15 letters without blanks and slashes", n.Interface)
	}
	if n.Mode == "static" && len(n.Addresses) == 0 {
		d.fault("network.addresses", `write, for instance, addresses = ["192.0.2.10/24"]`, "a static network needs addresses")
	}
	if n.Mode == "auto" && len(n.Addresses)+len(n.Gateways) > 0 {
		d.fault("network.mode", `write mode = "static" or leave them out`, "an automatic network has no addresses and gateways of its own")
	}
	var nets []netip.Prefix
	for i, s := range n.Addresses {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			d.fault(item("network.addresses", i), "want an address with the length of its network, such as 192.0.2.10/24",
				"address %q is not usable", s)
			continue
		}
		nets = append(nets, p)
	}
	unique(d, "network.addresses", n.Addresses)
	checkGateways(d, n.Gateways, nets)
	for i, s := range n.DNS {
		if _, err := netip.ParseAddr(s); err != nil {
			d.fault(item("network.dns", i), "want an address, such as 192.0.2.1", "resolver %q is not usable", s)
		}
	}
}

// checkGateways checks that there is at most one gateway for each address family, and that it can be reached.
func checkGateways(d *document, gateways []string, nets []netip.Prefix) {
	families := once{}
	for i, s := range gateways {
		key := item("network.gateways", i)
		a, err := netip.ParseAddr(s)
		if err != nil {
			d.fault(key, "want an address, such as 192.0.2.1", "gateway %q is not usable", s)
			continue
		}
		family := "IPv6"
		if a.Is4() {
			family = "IPv4"
		}
		if first, ok := families[family]; ok {
			d.fault(key, "keep one", "a second %s gateway, after %s", family, first)
		}
		families[family] = s
		reached := a.IsLinkLocalUnicast() || len(nets) == 0
		for _, p := range nets {
			reached = reached || p.Contains(a)
		}
		if !reached {
			d.fault(key, "it must be in the network of one of the addresses", "gateway %s is out of reach", s)
		}
	}
}
