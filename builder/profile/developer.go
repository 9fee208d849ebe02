package profile

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"allotment/image"
)

// Developer makes the profile of a developer image of one architecture for the module called name of a source folder: it
// runs that module and all that it needs. Its error is as that of Load.
func Developer(source, name string, arch image.Arch) (*Profile, error) {
	l := newLoader(source)
	if there := l.modules(); !slices.Contains(there, name) {
		return nil, fmt.Errorf("cannot find module %q in %q\n  %s", name, filepath.Join(source, "modules"), oneOf(name, there))
	}
	text := fmt.Sprintf(`format = 1
name = "developer-%s"
title = "Developer image for %s"
version = "0.0.1"
channel = "candidate"
arch = ["%s"]
modules = ["%s"]
outputs = ["qcow2"]
developer = true
[network]
mode = "auto"
[time]
servers = ["0.debian.pool.ntp.org"]
`, name, name, arch, strings.Join(l.closure(name), `", "`))
	p := l.profileOf(filepath.Join(source, "profiles", "developer-"+name+".toml"), []byte(text))
	if err := l.result(); err != nil {
		return nil, err
	}
	return p, nil
}

// closure lists a module behind those that it needs, by its services, its peers or its account in the directory. What is
// wrong with them is not its business.
func (l *loader) closure(name string) []string {
	var order []string
	seen := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		text, err := os.ReadFile(filepath.Join(l.source, "modules", name, "module.toml"))
		if err != nil || seen[name] {
			return
		}
		seen[name] = true
		m := &ModuleSpec{}
		decode(name, text, m)
		for _, other := range m.needed() {
			visit(other)
		}
		order = append(order, name)
	}
	visit(name)
	return order
}

// needed are the modules that this one names as such that must be there.
func (m *ModuleSpec) needed() []string {
	var all []string
	for _, s := range m.Services {
		all = append(all, modulesOf(s.Needs)...)
	}
	for _, v := range m.Migrations {
		all = append(all, modulesOf(v.Needs)...)
	}
	for _, p := range m.Peers {
		all = append(all, p.Module)
	}
	if m.LDAP != nil {
		all = append(all, "directory")
	}
	return all
}

// modulesOf are the modules of needs of the form MODULE.SERVICE.
func modulesOf(needs []string) []string {
	var all []string
	for _, need := range needs {
		if module, _, other := strings.Cut(need, "."); other {
			all = append(all, module)
		}
	}
	return all
}
