package supervisor

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"allotment/init/console"
	"allotment/init/plan"
)

// show puts the state on the consoles if it has changed.
func (s *Supervisor) show() {
	c := console.Status{
		Title: s.config.Manifest.Title, Version: string(s.config.Manifest.Version), Slot: string(s.config.Slot),
		State: s.summary(),
	}
	for _, p := range s.net.Addresses {
		host := p.Addr().String()
		if p.Addr().Is6() {
			host = "[" + host + "]"
		}
		if _, port, err := net.SplitHostPort(s.config.Listen); err == nil && port != "80" {
			host += ":" + port
		}
		c.URLs = append(c.URLs, "http://"+host+"/")
	}
	for _, m := range s.plan.Modules {
		if !allIn(s.unitsOf[m], ready) {
			c.Modules = append(c.Modules, s.describe(m))
		}
	}
	for _, m := range s.plan.Modules {
		if allIn(s.unitsOf[m], ready) {
			c.Modules = append(c.Modules, m.Title+": ready")
		}
	}
	s.config.Console.Show(c)
}

// summary is the box in one line.
func (s *Supervisor) summary() string {
	notReady := slices.ContainsFunc(s.units, func(u *unit) bool { return u.machine.state != ready })
	switch {
	case s.ending:
		return "shutting down"
	case !notReady:
		return "ready"
	case s.state == nil:
		return "opening the state partition"
	case !s.booted:
		return "starting"
	}
	return "running, but not everything is ready"
}

// describe says in one line what a module waits for.
func (s *Supervisor) describe(m *plan.Module) string {
	var parts []string
	for _, u := range s.unitsOf[m] {
		if u.machine.state == ready {
			continue
		}
		part := strings.TrimPrefix(u.name, m.Name+".") + " " + string(u.machine.state)
		if u.problem != "" {
			part += " (" + u.problem + ")"
		}
		parts = append(parts, part)
	}
	return fmt.Sprintf("%s: %s", m.Title, strings.Join(parts, ", "))
}
