package plan

import (
	"slices"
)

// BackupID is the user of the host, and the group of the same number, that restic runs as.
const BackupID = 904

// proofAddress is the place in the box's network of a module's second instance; MaxModules end before it.
const proofAddress = MaxModules + 1

// ProofCgroup is the control group of what Proof plans.
const ProofCgroup = "/allotment-proof"

// Proof is the module once more, beside the one that runs: with services of its own in a control group and at an address of
// their own, and with nobody to talk to. Names, ids and files are those of the module.
func Proof(m *Module) *Module {
	p := *m
	p.Cgroup = ProofCgroup + "/" + m.Name
	p.IPv4, p.IPv6 = nth(HostIPv4, proofAddress), nth(HostIPv6, proofAddress)
	p.OOMScore, p.CPUWeight, p.IOWeight = 1000, 20, 20
	p.Peers, p.HTTP = nil, nil
	if m.Declared != nil {
		alone := *m.Declared
		alone.Ports, alone.Egress, alone.LDAP, alone.SSO = nil, nil, nil, ""
		p.Declared = &alone
	}
	p.link(m)
	return &p
}

// link gives the copy services and migrations that belong to it, with the same needs of each other.
func (p *Module) link(m *Module) {
	services, migrations := map[*Service]*Service{}, map[*Migration]*Migration{}
	copied := func(s *Service) *Service {
		c := *s
		c.Module, c.Cgroup = p, p.Cgroup+"/"+s.Name
		services[s] = &c
		return &c
	}
	p.Services, p.Migrations = nil, nil
	for _, s := range m.Services {
		p.Services = append(p.Services, copied(s))
	}
	for _, d := range m.Migrations {
		c := &Migration{Service: copied(d.Service), Volume: d.Volume, Format: d.Format}
		migrations[d] = c
		p.Migrations = append(p.Migrations, c)
	}
	for _, c := range services {
		c.Requires = own(c.Requires, services) // what other modules offer is not there
		c.After = own(c.After, migrations)
	}
}

// own replaces those that have a copy, and leaves out the others.
func own[T any](all []*T, copies map[*T]*T) []*T {
	var out []*T
	for _, x := range all {
		if c := copies[x]; c != nil {
			out = append(out, c)
		}
	}
	return slices.Clip(out)
}
