package supervisor

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"allotment/api"
	"allotment/image"
	"allotment/init/plan"
	"allotment/init/usage"
)

// Box is what others may ask of the running box: it implements apiserver.Box and apiserver.Developer.
type Box struct{ supervisor *Supervisor }

// find is the module of that name, for the loop.
func (s *Supervisor) find(name string) (*module, error) {
	if m := findModule(s.modules, name); m != nil {
		return m, nil
	}
	return nil, api.Errorf(api.NotFound, "there is no module %q", name)
}

// unit is the unit of that name, such as web.php; nil if there is none.
func (s *Supervisor) unit(name string) *unit {
	for _, u := range s.units {
		if u.name == name {
			return u
		}
	}
	return nil
}

// supervisorGroup is the control group in which the supervisor puts itself, so that its use of memory is known.
const supervisorGroup = "/allotment-supervisor"

// EnterGroup puts this process into that group below the folder cgroups.
func EnterGroup(cgroups string) error {
	dir := cgroups + supervisorGroup
	if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
		return fmt.Errorf("cannot make the supervisor's control group: %w", err)
	}
	if err := os.WriteFile(dir+"/cgroup.procs", []byte("0"), 0); err != nil {
		return fmt.Errorf("cannot enter the supervisor's control group: %w", err)
	}
	return nil
}

// Info implements apiserver.Box.
func (b *Box) Info() api.Info {
	s, c := b.supervisor, b.supervisor.config
	trial := false
	_ = s.call(func(context.Context) { trial = s.trial != nil })
	return api.Info{
		Name: c.Manifest.Name, Title: c.Manifest.Title, Version: c.Manifest.Version, Slot: c.Slot, Trial: trial,
		Developer: c.Manifest.Developer,
	}
}

// Modules implements apiserver.Box.
func (b *Box) Modules() []api.Module {
	var all []api.Module
	s := b.supervisor
	_ = s.call(func(context.Context) { // while the box ends there are none
		for _, m := range s.modules {
			all = append(all, s.describe(m))
		}
	})
	return all
}

func (s *Supervisor) describe(m *module) api.Module {
	p := m.plan
	out := api.Module{
		Name: p.Name, Title: p.Title, Importance: string(p.Importance), On: m.on, State: m.state(), Problem: m.trouble(),
		IPv4: p.IPv4.Addr().String(), IPv6: p.IPv6.Addr().String(), Ports: p.Declared.Ports,
		Memory: p.Declared.Memory, Quota: quota(p), Needs: s.needs(m),
	}
	if p.HTTP != nil {
		out.Path = p.HTTP.Path
	}
	for _, u := range m.units {
		service := api.Service{
			Name: strings.TrimPrefix(u.name, p.Name+"."), State: string(u.machine.state), Problem: u.problem,
			Since: s.onWallClock(u.machine.since), Restarts: u.restarts,
		}
		if u.process != nil {
			service.PID = u.process.PID()
		}
		out.Services = append(out.Services, service)
	}
	return out
}

// onWallClock is the time of day at a moment of the monotonic clock: what the clock showed then may have been wrong.
func (s *Supervisor) onWallClock(t time.Time) time.Time {
	return s.wallClock().Add(-s.now().Sub(t)).Round(0)
}

// Restart implements apiserver.Box.
func (b *Box) Restart(_ context.Context, module, service string) error {
	s := b.supervisor
	var err error
	if failed := s.call(func(ctx context.Context) { err = s.restart(ctx, module, service) }); failed != nil {
		return failed
	}
	return err
}

func (s *Supervisor) restart(ctx context.Context, module, service string) error {
	m, err := s.find(module)
	if err != nil {
		return err
	}
	u := s.unit(module + "." + service)
	switch {
	case u == nil:
		return api.Errorf(api.NotFound, "%s has no service %q", m.plan.Title, service)
	case !m.runs() || s.ending:
		return api.Errorf(api.Conflict, "%s is switched off", m.plan.Title)
	}
	s.log.Info("restarting on request", "unit", u.name)
	s.record(api.Event{Level: api.Good, Kind: "service", Text: u.name + " is restarted on request"}, u)
	if !u.prepared { // the module could not be prepared: try again
		m.settled, m.attempts = false, 0
		s.prepareModule(ctx, m)
		return nil
	}
	u.restarts++
	s.perform(ctx, u, u.machine.restart(s.now()))
	return nil
}

// Resources implements apiserver.Box.
func (b *Box) Resources() api.Resources {
	s := b.supervisor
	r := api.Resources{Time: s.wallClock(), Uptime: uptime().Seconds()}
	usage.Machine("/proc", &r)
	var modules []api.ModuleResources
	var plans []*plan.Module
	var state State
	_ = s.call(func(context.Context) {
		state = s.state
		for _, m := range s.modules {
			plans = append(plans, m.plan)
			modules = append(modules, s.measured(m))
		}
	})
	for _, d := range []string{supervisorGroup, "/allotment-gateway", "/allotment-resolver", "/allotment-portal"} {
		r.System = usage.Add(r.System, usage.Group(s.config.Container.Cgroup+d))
	}
	if state != nil {
		if d, err := state.Disk(); err == nil {
			r.Disk, r.DiskFree = d.Total, d.Free
		}
	}
	for i, p := range plans {
		s.measure(&modules[i], p, state)
	}
	r.Modules = modules
	return r
}

// measured is what the loop knows of a module's start.
func (s *Supervisor) measured(m *module) api.ModuleResources {
	out := api.ModuleResources{Name: m.plan.Name}
	for _, u := range m.units {
		out.Services = append(out.Services, api.ServiceResources{
			Name:     strings.TrimPrefix(u.name, m.plan.Name+"."),
			StartCPU: u.startup.cpu.Seconds(), StartSec: u.startup.wall.Seconds(),
		})
	}
	return out
}

// measure adds what the kernel knows.
func (s *Supervisor) measure(r *api.ModuleResources, p *plan.Module, state State) {
	r.Usage = usage.Group(s.config.Container.Cgroup + p.Cgroup)
	for i, service := range p.Services {
		r.Services[i].Usage = usage.Group(s.config.Container.Cgroup + service.Cgroup)
	}
	for _, l := range s.config.Manifest.Layers {
		for _, d := range p.Layers {
			if l.Digest == d {
				r.Layers += l.Size
			}
		}
	}
	if state == nil {
		return
	}
	for _, v := range p.Volumes {
		out := api.Volume{Name: v.Name, Quota: v.Quota}
		if u, err := state.Usage(p.Name, v.Name); err == nil {
			out.Used = u.Used
		}
		if f, err := state.Format(p.Name, v.Name); err == nil {
			out.Format = f
		}
		r.Volumes = append(r.Volumes, out)
	}
}

// cpuTime is what the unit's control group has used of the processors.
func (s *Supervisor) cpuTime(u *unit) time.Duration {
	j, ok := u.job.(*serviceJob)
	if !ok {
		return 0
	}
	return usage.CPU(s.config.Container.Cgroup + j.get().Cgroup)
}

// organisationForm is the organisation's settings as a form.
var organisationForm = []image.Setting{
	{Name: "name", Title: "Name of the organisation", Type: "string"},
	{Name: "domain", Title: "Domain", Help: "a DNS name that belongs to the organisation", Type: "host"},
	{Name: "language", Title: "Language", Help: "a code such as en or de", Type: "string"},
	{Name: "time-zone", Title: "Time zone", Help: "a name such as Europe/London", Type: "string"},
	{Name: "contact", Title: "Contact", Help: "e-mail address of a person", Type: "email"},
}
