package supervisor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"allotment/api"
	"allotment/init/plan"
	"allotment/init/state"
	"allotment/init/usage"
)

// From where on somebody should look, and from where on things break, in parts of the whole that are left.
const (
	diskFair, diskBad     = 0.10, 0.03
	memoryFair, memoryBad = 0.10, 0.03

	recently = 24 * time.Hour // for how long a want of memory is told
)

// Health implements apiserver.Box.
func (b *Box) Health() api.Health {
	s := b.supervisor
	h := api.Health{Level: api.Good, Uptime: uptime().Seconds()}
	err := s.call(func(context.Context) {
		for _, m := range s.modules {
			if m.on {
				h.Lamps = append(h.Lamps, m.lamp())
			}
		}
		if s.stranded {
			h.Lamps = append(h.Lamps, api.Lamp{What: "update", Level: api.Bad, Text: strandedText})
		}
		if s.portal != nil && s.portal.machine.state != ready {
			h.Lamps = append(h.Lamps, api.Lamp{What: "portal", Level: api.Fair, Text: "is being started: " + s.portal.problem})
		}
		h.Lamps = append(h.Lamps, s.networkLamp(), s.clockLamp(), s.memoryLamp(), s.diskLamp())
		h.Summary = s.summary()
	})
	if err != nil {
		return api.Health{Level: api.Fair, Summary: err.Error(), Uptime: h.Uptime}
	}
	h.Lamps = append(h.Lamps, s.backupLamp()...)
	for _, l := range h.Lamps {
		h.Level = worse(h.Level, l.Level)
	}
	return h
}

func worse(a, b api.Level) api.Level {
	if a == api.Bad || b == api.Bad {
		return api.Bad
	}
	if a == api.Fair || b == api.Fair {
		return api.Fair
	}
	return api.Good
}

// lamp is how the module does. What fails of an optional one is not as bad.
func (m *module) lamp() api.Lamp {
	l := api.Lamp{What: m.plan.Title, Module: m.plan.Name, Level: api.Good, Text: "works"}
	bad := api.Bad
	if m.plan.Importance == plan.Optional {
		bad = api.Fair
	}
	switch why := m.trouble(); m.state() {
	case "ready":
	case "starting":
		l.Level, l.Text = api.Fair, "is starting"
		if what := m.migrating(); what != "" {
			l.Text += ", " + what
		} else if why != "" {
			l.Text += " again: " + why
		}
	case "degraded":
		l.Level, l.Text = api.Fair, "is started again: "+why
	default:
		l.Level, l.Text = bad, "does not work: "+why
	}
	return l
}

func (s *Supervisor) networkLamp() api.Lamp {
	l := api.Lamp{What: "network", Level: api.Good}
	var all []string
	for _, a := range s.net.Addresses {
		all = append(all, a.Addr().String())
	}
	if l.Text = strings.Join(all, ", "); len(all) == 0 {
		l.Level, l.Text = api.Bad, "the box has no address: nobody reaches it"
	}
	return l
}

func (s *Supervisor) clockLamp() api.Lamp {
	if s.synced.IsZero() {
		return api.Lamp{What: "clock", Level: api.Fair, Text: "no time server has answered yet, so the time may be wrong"}
	}
	return api.Lamp{What: "clock", Level: api.Good, Text: "follows the time servers"}
}

func (s *Supervisor) memoryLamp() api.Lamp {
	var r api.Resources
	usage.Machine("/proc", &r)
	l := api.Lamp{What: "memory", Text: fmt.Sprintf("%d of %d MiB are available", r.Available>>20, r.Memory>>20)}
	l.Level = left(r.Available, r.Memory, memoryFair, memoryBad)
	if s.shortage != "" && s.now().Sub(s.shortageAt) < recently {
		l.Level, l.Text = worse(l.Level, api.Fair), l.Text+"; "+s.shortage
	}
	return l
}

func (s *Supervisor) diskLamp() api.Lamp {
	if s.state == nil {
		return api.Lamp{What: "disk", Level: api.Fair, Text: "is not open yet"}
	}
	d, err := s.state.Disk()
	if err != nil {
		return api.Lamp{What: "disk", Level: api.Bad, Text: err.Error()}
	}
	room := min(d.Free, max(d.Volumes.Limit-d.Volumes.Used, 0))
	l := api.Lamp{What: "disk", Text: fmt.Sprintf("%d of %d MiB are free, %d for modules", d.Free>>20, d.Total>>20, room>>20)}
	l.Level = worse(left(d.Free, d.Total, diskFair, diskBad), left(room, d.Volumes.Limit, diskFair, diskBad))
	if len(s.fullVolumes) > 0 {
		l.Level, l.Text = worse(l.Level, api.Fair), l.Text+"; nearly full: "+strings.Join(s.fullVolumes, ", ")
	}
	return l
}

func left(free, size int64, fair, bad float64) api.Level {
	switch part := float64(free) / float64(max(size, 1)); {
	case part < bad:
		return api.Bad
	case part < fair:
		return api.Fair
	}
	return api.Good
}

// patrolEvery is how often the box looks at what changes slowly.
const patrolEvery = time.Minute

// renewEvery is how often it looks whether certificates want to be renewed.
const renewEvery = 24 * time.Hour

// eventPatrol asks for a look.
type eventPatrol struct{}

// eventVolumes tells which volumes are nearly full, as module/volume.
type eventVolumes struct{ full []string }

// patrol looks how full volumes are, beside the loop.
func (s *Supervisor) patrol(ctx context.Context) {
	time.AfterFunc(patrolEvery, func() { s.send(eventPatrol{}) })
	p, st := s.plan, s.state
	if st == nil {
		return
	}
	if s.now().Sub(s.renewed) >= renewEvery {
		s.renewed = s.now()
		go s.renewFiles(ctx)
	}
	s.reading.Go(func() { s.send(eventVolumes{fullVolumes(p, st)}) })
	s.lookAtCertificates()
}

func fullVolumes(p *plan.Plan, st State) []string {
	var full []string
	for _, m := range p.Modules {
		for _, v := range m.Volumes {
			var u state.Usage
			var err error
			if u, err = st.Usage(m.Name, v.Name); err == nil && u.Near() {
				full = append(full, m.Name+"/"+v.Name)
			}
		}
	}
	return full
}

func (s *Supervisor) onVolumes(e eventVolumes) {
	for _, name := range e.full {
		if !slices.Contains(s.fullVolumes, name) {
			s.log.Warn("a volume is nearly full", "volume", name)
			module, _, _ := strings.Cut(name, "/")
			s.record(api.Event{Level: api.Fair, Kind: "disk", Module: module, Text: "volume " + name + " is nearly full"}, nil)
		}
	}
	s.fullVolumes = e.full
}

// renewFiles makes the files of all modules again: certificates may have been renewed.
func (s *Supervisor) renewFiles(context.Context) {
	s.changing.Lock()
	defer s.changing.Unlock()
	f, p, err := s.filesAndPlan()
	if err != nil {
		return
	}
	c := &change{Supervisor: s, files: f, plan: p}
	if err := c.make(f.settings.Values(), p.Modules); err != nil {
		s.warn(err)
	}
	for m, x := range c.next {
		if x.err != nil {
			delete(c.next, m)
		}
	}
	if err := c.show(); err != nil {
		s.warn(err)
	}
}
