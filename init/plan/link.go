package plan

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// link resolves what a module has to do with others, and what its migrations and services have to do with each other.
func (p *Plan) link(m *Module) error {
	if err := p.linkPeers(m); err != nil {
		return err
	}
	for _, s := range m.Services {
		if err := p.linkNeeds(s); err != nil {
			return fmt.Errorf("service %q: %w", s.Name, err)
		}
	}
	if err := p.linkMigrations(m); err != nil {
		return err
	}
	if m.Declared.LDAP == nil {
		return nil
	}
	directory := p.Module(Directory)
	if directory == nil || directory == m {
		return fmt.Errorf("it has an account in module %q, which is not there or itself", Directory)
	}
	for _, s := range m.Services {
		s.require(directory.Services...)
	}
	m.allow(directory, LDAPPort)
	return nil
}

func (p *Plan) linkPeers(m *Module) error {
	for _, d := range m.Declared.Peers {
		peer := p.Module(d.Module)
		if peer == nil || peer == m {
			return fmt.Errorf("its peer %q is not there or itself", d.Module)
		}
		m.allow(peer, d.Ports...)
	}
	return nil
}

// allow adds ports to those of a peer.
func (m *Module) allow(peer *Module, ports ...int) {
	i := slices.IndexFunc(m.Peers, func(x Peer) bool { return x.Module == peer })
	if i < 0 {
		i = len(m.Peers)
		m.Peers = append(m.Peers, Peer{Module: peer})
	}
	for _, n := range ports {
		if !slices.Contains(m.Peers[i].Ports, n) {
			m.Peers[i].Ports = append(m.Peers[i].Ports, n)
		}
	}
}

// linkNeeds resolves the names of what a service or migration needs.
func (p *Plan) linkNeeds(s *Service) error {
	for _, name := range s.Needs {
		m, service := s.Module, name
		if module, rest, other := strings.Cut(name, "."); other {
			m, service = p.Module(module), rest
		}
		if m == nil || m.Service(service) == nil {
			return fmt.Errorf("it needs %q, which is not there", name)
		}
		s.require(m.Service(service))
	}
	return nil
}

// require adds services that must be ready first.
func (s *Service) require(others ...*Service) {
	for _, o := range others {
		if !slices.Contains(s.Requires, o) {
			s.Requires = append(s.Requires, o)
		}
	}
}

// linkMigrations orders the migrations of a module among its services: each waits for those before it and requires what
// they require, so that it finds the same services whether they had to run or not. A service waits for those migrations
// that can be done without it.
func (p *Plan) linkMigrations(m *Module) error {
	for i, d := range m.Migrations {
		if err := p.linkNeeds(d.Service); err != nil {
			return fmt.Errorf("migration of volume %q to format %d: %w", d.Volume, d.Format, err)
		}
		d.After = m.Migrations[:i:i]
		if i > 0 {
			d.require(m.Migrations[i-1].Requires...)
		}
	}
	return nil
}

// checkClaims makes sure that no two modules offer one port to the outside, nor the same web pages.
func (p *Plan) checkClaims() error {
	taken := map[string]string{}
	var errs []error
	for _, m := range p.Modules {
		for _, claim := range m.claims() {
			if by, ok := taken[claim]; ok {
				errs = append(errs, fmt.Errorf("cannot plan module %q: module %q has %s already", m.Name, by, claim))
			}
			taken[claim] = m.Name
		}
	}
	return errors.Join(errs...)
}

// claims are what only one module can have.
func (m *Module) claims() []string {
	var all []string
	for _, d := range m.Declared.Ports {
		if d.Expose != "none" {
			all = append(all, fmt.Sprintf("port %s %d", cmp.Or(d.Protocol, "tcp"), d.Port))
		}
	}
	if m.HTTP != nil {
		for _, path := range append([]string{m.HTTP.Path}, m.HTTP.Also...) {
			all = append(all, "path "+path)
		}
	}
	return all
}

// order lets every service wait for the migrations that do not need it, and sorts each module's services, or reports a
// circle.
func (p *Plan) order() error {
	for _, m := range p.Modules {
		for _, s := range m.Services {
			first := slices.IndexFunc(m.Migrations, func(d *Migration) bool { return d.reaches(s) })
			if first < 0 {
				first = len(m.Migrations)
			}
			s.After = m.Migrations[:first:first]
		}
	}
	all, err := sorted(p.Modules)
	if err != nil {
		return err
	}
	for _, m := range p.Modules {
		slices.SortFunc(m.Services, func(a, b *Service) int { return slices.Index(all, a) - slices.Index(all, b) })
	}
	return nil
}

// reaches tells whether s requires other, directly or by what it requires.
func (s *Service) reaches(other *Service) bool {
	seen := map[*Service]bool{}
	var walk func(*Service) bool
	walk = func(at *Service) bool {
		if at == other {
			return true
		}
		if seen[at] {
			return false
		}
		seen[at] = true
		return slices.ContainsFunc(at.Requires, walk)
	}
	return walk(s)
}

// sorted lists all services and migrations so that each comes after what it waits for; equal ones keep the manifest's
// order. Its error names a circle.
func sorted(modules []*Module) ([]*Service, error) {
	var waiting, out []*Service
	for _, m := range modules {
		waiting = append(waiting, m.Services...)
		for _, d := range m.Migrations {
			waiting = append(waiting, d.Service)
		}
	}
	placed := map[*Service]bool{}
	blocker := func(s *Service) *Service {
		for _, o := range s.before() {
			if !placed[o] {
				return o
			}
		}
		return nil
	}
	for len(waiting) > 0 {
		i := slices.IndexFunc(waiting, func(s *Service) bool { return blocker(s) == nil })
		if i < 0 {
			return nil, circle(waiting[0], blocker)
		}
		placed[waiting[i]] = true
		out = append(out, waiting[i])
		waiting = slices.Delete(waiting, i, i+1)
	}
	return out, nil
}

// before lists all that a service or migration waits for.
func (s *Service) before() []*Service {
	out := slices.Clone(s.Requires)
	for _, m := range s.After {
		out = append(out, m.Service)
	}
	return out
}

// circle follows what blocks a service until it comes to one for the second time, and names those in between.
func circle(s *Service, blocker func(*Service) *Service) error {
	var way []string
	for !slices.Contains(way, s.ID) {
		way = append(way, s.ID)
		s = blocker(s)
	}
	way = append(way[slices.Index(way, s.ID):], s.ID)
	return errors.New("services wait for each other in a circle: " + strings.Join(way, " -> "))
}
