package supervisor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"allotment/api"
	"allotment/init/durable"
	"allotment/init/network"
	"allotment/init/plan"
)

// offFile names the modules that are switched off, one on a line.
func (s *Supervisor) offFile() string { return filepath.Join(s.config.State, "system", "off") }

// readOff switches off what was so at the last boot. A module that others have come to need runs all the same.
func (s *Supervisor) readOff() {
	b, err := os.ReadFile(s.offFile())
	if err != nil && !os.IsNotExist(err) {
		s.warn(err)
	}
	for name := range strings.Lines(string(b)) {
		if m := findModule(s.modules, strings.TrimSpace(name)); m != nil {
			m.on = false
		}
	}
	for again := true; again; {
		again = false
		for _, m := range s.modules {
			if why := s.neededBy(m); !m.on && why != "" {
				s.log.Warn("a module that was switched off runs", "module", m.plan.Name, "why", why)
				m.on, again = true, true
			}
		}
	}
}

func (s *Supervisor) writeOff() error {
	var b strings.Builder
	for _, m := range s.modules {
		if !m.on {
			b.WriteString(m.plan.Name + "\n")
		}
	}
	return durable.WriteFile(s.offFile(), []byte(b.String()), 0o644)
}

// neededBy says in a sentence why the module cannot be off; empty if it can.
func (s *Supervisor) neededBy(m *module) string {
	if m.plan.Importance == plan.Core {
		return m.plan.Title + " belongs to the core of the box"
	}
	var titles []string
	for _, o := range s.modules {
		if o != m && o.on && o.requires(m) {
			titles = append(titles, o.plan.Title)
		}
	}
	if len(titles) == 0 {
		return ""
	}
	return fmt.Sprintf("%s is needed by %s", m.plan.Title, strings.Join(titles, ", "))
}

// requires tells whether a service or migration of the module requires one of the other.
func (m *module) requires(other *module) bool {
	all := slices.Clone(m.plan.Services)
	for _, d := range m.plan.Migrations {
		all = append(all, d.Service)
	}
	return slices.ContainsFunc(all, func(s *plan.Service) bool {
		return slices.ContainsFunc(s.Requires, func(r *plan.Service) bool { return r.Module == other.plan })
	})
}

// missing are the titles of modules that are off and that the module requires.
func (s *Supervisor) missing(m *module) []string {
	var titles []string
	for _, o := range s.modules {
		if o != m && !o.on && m.requires(o) {
			titles = append(titles, o.plan.Title)
		}
	}
	return titles
}

// Switch implements apiserver.Box.
func (b *Box) Switch(ctx context.Context, name string, on bool) error {
	s := b.supervisor
	var m *module
	var err error
	change := func(context.Context) {
		m, err = s.find(name)
		switch {
		case err != nil || m.on == on:
			return
		case s.state == nil:
			err = api.Errorf(api.Conflict, "the state partition is not open yet")
			return
		}
		if why := s.neededBy(m); !on && why != "" {
			err = api.Errorf(api.Conflict, "%s, so it cannot be switched off", why)
			return
		}
		if off := s.missing(m); on && len(off) > 0 {
			err = api.Errorf(api.Conflict, "%s needs what is off: %s", m.plan.Title, strings.Join(off, ", "))
			return
		}
		m.on = on
		if err = s.writeOff(); err != nil {
			m.on = !on
			return
		}
		s.switched(m)
	}
	if failed := s.call(change); failed != nil {
		return failed
	}
	if err != nil || on {
		return err
	}
	return s.await(ctx, func() bool { return m.on || m.standsStill() })
}

// switched puts into force what m.on says.
func (s *Supervisor) switched(m *module) {
	word := "off"
	if m.on {
		word = "on"
		for _, u := range m.units {
			s.allow(u)
		}
		for _, d := range m.migrations {
			d.retry(m)
		}
	}
	s.log.Info("switched", "module", m.plan.Name, "to", word)
	s.record(api.Event{Level: api.Good, Kind: "module", Module: m.plan.Name, Text: m.plan.Title + " is switched " + word}, nil)
	s.setRules()
}

// allow lets a unit run that was stopped.
func (s *Supervisor) allow(u *unit) {
	u.problem = ""
	u.machine.allow(s.now())
}

// publicPorts are the gateway's TCP ports, publicUDP its UDP ports, that the firewall opens.
var (
	publicPorts = []uint16{80, 443}
	publicUDP   = []uint16{443}
)

// setRules tells the kernel who may talk to whom. Without rules nothing is right, so an error ends the boot.
func (s *Supervisor) setRules() {
	r := network.Rules{Ports: publicPorts, UDP: publicUDP, Ask: authorityPorts(s.config.ACME.Directory), Closed: s.trial != nil}
	for _, m := range s.modules {
		if m.on {
			r.Modules = append(r.Modules, m.plan)
		}
	}
	if s.proving != nil {
		r.Modules = append(r.Modules, s.proving)
	}
	if err := s.rule(r); err != nil {
		s.fail("network", err)
	}
}
