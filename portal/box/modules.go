package box

import (
	"cmp"
	"context"
	"net/http"
	"slices"

	"allotment/api"
	"allotment/portal/web"
)

// moduleView is a module with what it takes of the machine.
type moduleView struct {
	api.Module
	Title    string // in the visitor's language
	About    string
	Class    string // of the lamp
	StateIs  string // in words
	Core     bool   // it cannot be off
	Uses     int64  // bytes of memory that it uses now; or usually, while it is off
	Disk     int64  // bytes that its volumes use
	Layers   int64  // bytes of its programs
	Needs    []string
	NeededBy []string // titles of modules that are on and need it
	Missing  []string // titles of modules that it needs and that are off
	Settings bool
}

// machineView is the room that the machine has, in bytes.
type machineView struct {
	Memory, MemoryFree int64
	Disk, DiskFree     int64
}

// CanSwitch tells whether it can be switched to the other state.
func (m moduleView) CanSwitch() bool {
	if m.On {
		return !m.Core && len(m.NeededBy) == 0
	}
	return len(m.Missing) == 0
}

// Fits tells whether the machine has the memory that the module usually takes.
func (v machineView) Fits(m moduleView) bool { return m.On || m.Uses <= v.MemoryFree }

// look asks the box for modules and resources.
func look(r *web.Request) ([]moduleView, machineView, error) {
	modules, err := r.Box.Modules(ctx(r))
	if err != nil {
		return nil, machineView{}, problem(err)
	}
	res, err := r.Box.Resources(ctx(r))
	if err != nil {
		return nil, machineView{}, problem(err)
	}
	var all []moduleView
	for _, m := range modules {
		all = append(all, viewOf(r, m, modules, res))
	}
	return all, machineView{res.Memory, res.Available, res.Disk, res.DiskFree}, nil
}

func viewOf(r *web.Request, m api.Module, all []api.Module, res api.Resources) moduleView {
	v := moduleView{Module: m, Title: r.ModuleTitle(m.Name, m.Title), About: r.Or("module."+m.Name+".about", ""),
		Core: m.Importance == "core", StateIs: r.T("box.state." + m.State), Class: stateClass(m.State)}
	for _, x := range res.Modules {
		if x.Name != m.Name {
			continue
		}
		v.Uses, v.Layers = x.Usage.Memory, x.Layers
		for _, volume := range x.Volumes {
			v.Disk += volume.Used
		}
	}
	if !m.On {
		v.Uses = int64(cmp.Or(m.Memory.Typical, m.Memory.Idle, m.Memory.Max)) << 20
	}
	for _, o := range all {
		if slices.Contains(m.Needs, o.Name) {
			v.Needs = append(v.Needs, r.ModuleTitle(o.Name, o.Title))
			if !o.On {
				v.Missing = append(v.Missing, r.ModuleTitle(o.Name, o.Title))
			}
		}
		if o.On && slices.Contains(o.Needs, m.Name) {
			v.NeededBy = append(v.NeededBy, r.ModuleTitle(o.Name, o.Title))
		}
	}
	return v
}

func stateClass(state string) string {
	switch state {
	case "ready":
		return "good"
	case "off":
		return ""
	case "starting", "degraded":
		return "warn"
	}
	return "bad"
}

func (p *Pages) modules(r *web.Request) error {
	all, machine, err := look(r)
	if err != nil {
		return err
	}
	return r.Render("modules", map[string]any{"Modules": all, "Machine": machine})
}

// find is the module that the path names, with the room that the machine has.
func find(r *web.Request) (moduleView, machineView, error) {
	all, machine, err := look(r)
	if err != nil {
		return moduleView{}, machine, err
	}
	i := slices.IndexFunc(all, func(m moduleView) bool { return m.Name == r.Path("module") })
	if i < 0 {
		return moduleView{}, machine, web.ErrNotFound
	}
	return all[i], machine, nil
}

func (p *Pages) module(r *web.Request) error {
	m, machine, err := find(r)
	if err != nil {
		return err
	}
	s, err := r.Box.Settings(ctx(r), m.Name)
	if err != nil {
		return problem(err)
	}
	m.Settings = len(s.Form) > 0
	if m.State == "starting" {
		r.W.Header().Set("Refresh", "5")
	}
	return r.Render("module", map[string]any{"Module": m, "Machine": machine})
}

func (p *Pages) switchModule(r *web.Request) error {
	on := r.Form.Choice("to", "on", "off") == "on"
	if !r.Form.OK() {
		return web.Fail(http.StatusBadRequest, "form.choice")
	}
	m, _, err := find(r)
	if err != nil {
		return err
	}
	back, key := root+"modules/"+m.Name, "box.module.switched.off"
	if on {
		key = "box.module.switched.on"
	}
	about := About{Key: "module " + m.Name, Title: r.T(key, "name", m.Title), Back: back}
	kind := map[bool]string{true: "box.module-on", false: "box.module-off"}[on]
	r.Record(kind, m.Name, nil)
	done, err := p.Do(r, about, func(ctx context.Context, _ func(api.Progress)) error {
		return p.deps.Box.Switch(ctx, m.Name, on)
	})
	if !done || err != nil {
		return problem(err)
	}
	return r.Done(back, key, "name", m.Title)
}

func (p *Pages) restartService(r *web.Request) error {
	m, _, err := find(r)
	if err != nil {
		return err
	}
	service := r.Form.Value("service")
	if !slices.ContainsFunc(m.Services, func(s api.Service) bool { return s.Name == service }) {
		return web.ErrNotFound
	}
	if err := r.Box.Restart(ctx(r), m.Name, service); err != nil {
		return problem(err)
	}
	r.Record("box.service-restarted", m.Name, map[string]string{"service": service})
	return r.Done(root+"modules/"+m.Name, "box.module.restarted", "name", m.Title)
}
