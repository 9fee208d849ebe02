package supervisor

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"allotment/init/console"
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
	s.showClaim(&c)
	var good []string
	for _, m := range s.modules {
		switch {
		case m.state() == "off":
		case allIn(m.units, ready):
			good = append(good, m.plan.Title+": ready")
		default:
			c.Modules = append(c.Modules, m.describe())
		}
	}
	c.Modules = append(c.Modules, good...)
	s.config.Console.Show(c)
}

// summary is the box in one line.
func (s *Supervisor) summary() string {
	notReady := slices.ContainsFunc(s.units, func(u *unit) bool {
		return u.module.runs() && u != s.updater && u.machine.state != ready
	})
	switch {
	case s.ending:
		return "shutting down"
	case s.stranded:
		return strandedText
	case s.trial != nil && s.booted:
		return "trying a new version"
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
func (m *module) describe() string {
	var parts []string
	for _, u := range m.units {
		if u.machine.state == ready {
			continue
		}
		part := strings.TrimPrefix(u.name, m.plan.Name+".") + " " + string(u.machine.state)
		if u.problem != "" {
			part += " (" + u.problem + ")"
		}
		parts = append(parts, part)
	}
	if what := m.migrating(); what != "" {
		parts = append(parts, what)
	} else if d := m.nextMigration(); d != nil && d.state == broken {
		parts = append(parts, m.problem)
	}
	return fmt.Sprintf("%s: %s", m.plan.Title, strings.Join(parts, ", "))
}

// showClaim tells whoever sees the console how to make the box theirs.
func (s *Supervisor) showClaim(c *console.Status) {
	switch {
	case s.locked:
		c.Claim = lockedText
	case s.claim != "":
		c.Claim = "claim code: " + s.claim
		if len(c.URLs) > 0 {
			c.Code = c.URLs[0] + "portal/first/?code=" + s.claim
		}
	}
}
