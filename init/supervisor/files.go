package supervisor

import (
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"allotment/image"
	"allotment/init/fileset"
	"allotment/init/plan"
	"allotment/init/render"
	"allotment/init/secret"
	"allotment/init/settings"
)

// files makes what modules read in /run/config and /run/secrets: templates rendered from settings and secrets, and the
// secrets themselves.
type files struct {
	run      string // folder
	settings *settings.Store

	mu      sync.Mutex // one at a time makes secrets, or there would be two of one name
	secrets *secret.Store

	portal sync.Mutex // held while the portal's own files are exchanged: the claim code may come at the same time
}

// openFiles opens settings and secrets in the state partition.
func openFiles(c Config, m *image.Manifest, log *slog.Logger) (*files, error) {
	values, err := settings.Open(filepath.Join(c.State, "settings"), m, log)
	if err != nil {
		return nil, err
	}
	secrets, err := secret.Open(filepath.Join(c.State, "secrets"))
	if err != nil {
		return nil, err
	}
	secrets.Handed = modulesFolder(c.State)
	return &files{run: c.Run, settings: values, secrets: secrets}, nil
}

// made is what one module reads, or why it cannot be made.
type made struct {
	config  map[string][]byte
	secrets map[string]secret.Value
	err     error
}

// make makes the files of the wanted modules by their names; nothing is shown to anybody yet. Secrets that are missing come
// into being, of whatever module: others may depend on them.
func (f *files) make(p *plan.Plan, v settings.Values, now time.Time, wanted ...*plan.Module) map[string]made {
	f.mu.Lock()
	defer f.mu.Unlock()
	out, secrets, o := map[string]made{}, map[string]map[string]secret.Value{}, v.Organisation()
	for _, m := range p.Modules {
		var x made
		x.secrets, x.err = f.secrets.Ensure(m, o, now)
		out[m.Name], secrets[m.Name] = x, x.secrets
	}
	for _, m := range p.Modules {
		x := out[m.Name]
		if !slices.ContainsFunc(wanted, func(w *plan.Module) bool { return w.Name == m.Name }) {
			delete(out, m.Name)
			continue
		}
		if x.err == nil {
			var data render.Data
			if data, x.err = render.NewData(p, m, o, v.Module(m.Name), secrets); x.err == nil {
				x.config, x.err = render.Render(m, data)
			}
			out[m.Name] = x
		}
	}
	return out
}

// install makes the module's files and lets its services see them; it returns those that depend on one that changed.
func (f *files) install(p *plan.Plan, m *plan.Module, now time.Time) ([]*plan.Service, error) {
	x := f.make(p, f.settings.Values(), now, m)[m.Name]
	if x.err != nil {
		return nil, x.err
	}
	return f.show(m, x)
}

// show lets the module's services see its files, and returns those that depend on one that changed.
func (f *files) show(m *plan.Module, x made) ([]*plan.Service, error) {
	folder := filepath.Join(f.run, "secrets")
	before, err := fileset.Read(filepath.Join(folder, m.Name))
	if err != nil {
		return nil, err
	}
	same := maps.EqualFunc(before, x.secrets, func(b []byte, v secret.Value) bool { return string(b) == v.Reveal() })
	if len(m.Secrets) > 0 && !same {
		if err := secret.Install(folder, m, x.secrets); err != nil {
			return nil, err
		}
	}
	if len(m.Templates) == 0 {
		if same {
			return nil, nil
		}
		return m.Services, nil
	}
	changed, err := render.Install(filepath.Join(f.run, "config"), m, x.config)
	if err != nil {
		return nil, err
	}
	if !same {
		return m.Services, nil
	}
	return dependents(m, changed), nil
}

// dependents are the services that depend on one of the templates.
func dependents(m *plan.Module, changed []string) []*plan.Service {
	names := map[string]bool{}
	for _, name := range changed {
		names[name] = true
	}
	needs := map[*plan.Service]bool{}
	for _, t := range m.Templates {
		for _, s := range t.For {
			needs[s] = needs[s] || names[t.Name]
		}
	}
	var out []*plan.Service
	for _, s := range m.Services {
		if needs[s] {
			out = append(out, s)
		}
	}
	return out
}

// secret is one of the module's secrets.
func (f *files) secret(m *plan.Module, name string, now time.Time) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all, err := f.secrets.Ensure(m, f.settings.Values().Organisation(), now)
	if err != nil {
		return "", err
	}
	v, ok := all[name]
	if !ok {
		return "", fmt.Errorf("module %s has no secret %q", m.Name, name)
	}
	return v.Reveal(), nil
}
