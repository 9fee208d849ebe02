package profile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"allotment/image"
)

// directory is the module that those with [ldap] have an account in.
const directory = "directory"

// declared is a module with its file.
type declared struct {
	d *document
	m *ModuleSpec
}

// neighbours are the modules that a module is run with.
type neighbours struct {
	profile string                 // file that names them; empty: they are all modules that there are
	modules map[string]*ModuleSpec // nil for one that has faults of its own
	there   []string               // all that could be added to the profile
}

// find returns the module called name, or nil where that one is not known; it is a fault if there is none.
func (n *neighbours) find(d *document, key, name string) *ModuleSpec {
	m, ok := n.modules[name]
	switch {
	case ok:
	case slices.Contains(n.there, name):
		d.fault(key, "add it to modules in "+n.profile, "module %q is not in this profile", name)
	default:
		d.fault(key, oneOf(name, n.there), "no module %q", name)
	}
	return m
}

// checkTogether checks what modules have to do with each other. Those of one profile must not take the same ports and
// paths either.
func checkTogether(all []declared, n *neighbours) {
	for _, x := range all {
		n.peers(x.d, &x.m.Module)
		for i, s := range x.m.Services {
			n.needs(x.d, item("service", i, "needs"), x.m, s.Needs)
		}
		for i, m := range x.m.Migrations {
			n.needs(x.d, item("migration", i, "needs"), x.m, m.Needs)
		}
		if x.m.LDAP != nil {
			n.find(x.d, "ldap", directory)
		}
		if x.m.LDAP != nil && x.m.Name == directory {
			x.d.fault("ldap", "leave it out", "the directory has no account in itself")
		}
	}
	n.circles(all)
	if n.profile != "" {
		checkTaken(all)
	}
}

// peers checks that peers are there and have the ports.
func (n *neighbours) peers(d *document, m *image.Module) {
	for i, p := range m.Peers {
		if p.Module == m.Name || p.Module == "" {
			continue // told before
		}
		peer := n.find(d, item("peer", i, "module"), p.Module)
		if peer == nil {
			continue
		}
		open := openPorts(&peer.Module)
		for j, port := range p.Ports {
			if !slices.Contains(open, port) {
				d.fault(item(item("peer", i, "ports"), j), fmt.Sprintf(`add [[port]] with port = %d and expose = "none" there`, port),
					"module %q does not name port %d", p.Module, port)
			}
		}
	}
}

// openPorts are the TCP ports that a module names as its own.
func openPorts(m *image.Module) []int {
	var out []int
	if m.HTTP != nil {
		out = append(out, m.HTTP.Port)
	}
	for _, p := range m.Ports {
		if orDefault(p.Protocol, "tcp") == "tcp" {
			out = append(out, p.Port)
		}
	}
	return out
}

// needs checks that needed services are there: of the module itself, or as MODULE.SERVICE of another one.
func (n *neighbours) needs(d *document, key string, m *ModuleSpec, needs []string) {
	for i, need := range needs {
		module, service, other := strings.Cut(need, ".")
		if !other {
			d.known(item(key, i), "service", need, serviceNames(&m.Module))
			continue
		}
		if module == m.Name {
			d.fault(item(key, i), fmt.Sprintf("write %q", service), "a service of the module itself goes without its name")
			continue
		}
		neighbour := n.find(d, item(key, i), module)
		if neighbour == nil {
			continue
		}
		if all := serviceNames(&neighbour.Module); !slices.Contains(all, service) {
			d.fault(item(key, i), oneOf(service, all), "module %q has no service %q", module, service)
		}
	}
}

// circles checks that no services wait for each other. It tells each circle once.
func (n *neighbours) circles(all []declared) {
	waits := n.waits()
	var told []string
	for _, x := range all {
		for i, s := range x.m.Services {
			name := x.m.Name + "." + s.Name
			circle := way(name, name, waits)
			if circle == nil || slices.Contains(told, name) {
				continue
			}
			told = append(told, circle...)
			x.d.fault(item("service", i, "needs"), "take one of them out", "services wait for each other in a circle: %s",
				strings.Join(append(circle, name), " -> "))
		}
	}
}

// waits says what services and migrations wait for, by the names that the device gives them, as init/plan orders them: a
// service for what it requires and for the migrations that do not require it, a migration for what it requires and for
// those before it.
func (n *neighbours) waits() map[string][]string {
	requires := map[string][]string{}
	for _, m := range n.modules {
		if m != nil {
			n.addRequired(requires, &m.Module)
		}
	}
	waits := maps.Clone(requires)
	for _, m := range n.modules {
		if m == nil {
			continue
		}
		steps := migrationNames(&m.Module)
		for i, step := range steps {
			waits[step] = slices.Concat(waits[step], steps[:i])
		}
		for _, name := range serviceNames(&m.Module) {
			name = m.Name + "." + name
			first := slices.IndexFunc(steps, func(step string) bool { return way(step, name, requires) != nil })
			if first < 0 {
				first = len(steps)
			}
			waits[name] = slices.Concat(waits[name], steps[:first])
		}
	}
	return waits
}

// addRequired adds what the services and migrations of a module require: what they need, for a service the directory if
// its module has an account there, for a migration what those before it need.
func (n *neighbours) addRequired(requires map[string][]string, m *image.Module) {
	full := func(need string) string {
		if strings.Contains(need, ".") {
			return need
		}
		return m.Name + "." + need
	}
	var account []string
	if d := n.modules[directory]; m.LDAP != nil && d != nil && m.Name != directory {
		account = names(d.Services, func(s image.Service) string { return directory + "." + s.Name })
	}
	for _, s := range m.Services {
		requires[full(s.Name)] = slices.Concat(names(s.Needs, full), account)
	}
	var before []string
	for _, d := range sortedMigrations(m) {
		before = slices.Concat(before, names(d.Needs, full))
		requires[migrationName(m, d)] = before
	}
}

func migrationName(m *image.Module, d image.Migration) string {
	return fmt.Sprintf("%s.migrate-%s-%d", m.Name, d.Volume, d.Format)
}

// sortedMigrations are the migrations in the order in which they run.
func sortedMigrations(m *image.Module) []image.Migration {
	return slices.SortedStableFunc(slices.Values(m.Migrations),
		func(a, b image.Migration) int { return cmp.Compare(a.Format, b.Format) })
}

func migrationNames(m *image.Module) []string {
	return names(sortedMigrations(m), func(d image.Migration) string { return migrationName(m, d) })
}

// way returns a way of at least one step in a graph, without its end, or nil if there is none.
func way(from, to string, graph map[string][]string) []string {
	seen := map[string]bool{}
	var walk func(at string, way []string) []string
	walk = func(at string, way []string) []string {
		way = append(slices.Clone(way), at)
		for _, next := range graph[at] {
			if next == to {
				return way
			}
			if !seen[next] {
				seen[next] = true
				if found := walk(next, way); found != nil {
					return found
				}
			}
		}
		return nil
	}
	return walk(from, nil)
}

// checkTaken checks that no two modules have the same web pages or, from outside the box, the same port.
func checkTaken(all []declared) {
	paths, ports := map[string]string{}, map[string]string{}
	for _, x := range all {
		if h := x.m.HTTP; h != nil {
			take(x, paths, "http.path", h.Path, "path "+h.Path)
			for i, p := range h.Also {
				take(x, paths, item("http.also", i), p, "path "+p)
			}
		}
		for i, p := range x.m.Ports {
			if p.Expose == "public" || p.Expose == "lan" {
				take(x, ports, item("port", i, "port"), portName(p), "port "+portName(p))
			}
		}
	}
}

// take notes what a module has for itself, and a fault if another one has it already.
func take(x declared, taken map[string]string, key, thing, what string) {
	if by, ok := taken[thing]; ok && by != x.m.Name {
		x.d.fault(key, "give one of them another one, or take one out of the profile", "module %q has %s already", by, what)
		return
	}
	taken[thing] = x.m.Name
}

// checkSettings checks the settings that a profile has for its modules.
func checkSettings(d *document, p *Profile, n *neighbours) {
	for name, values := range p.Settings {
		key := "settings." + name
		if !slices.Contains(p.ModuleNames, name) {
			d.fault(key, oneOf(name, p.ModuleNames), "module %q is not in this profile", name)
			continue
		}
		m := n.modules[name]
		if m == nil {
			continue
		}
		known := names(m.Settings, func(s image.Setting) string { return s.Name })
		for setting, value := range values {
			at := join(key, setting)
			i := slices.Index(known, setting)
			if i < 0 {
				d.fault(at, oneOf(setting, known), "module %q has no setting %q", name, setting)
			} else if _, err := m.Settings[i].Check(value); err != nil {
				d.fault(at, "", "%s %v", setting, err)
			}
		}
	}
}
