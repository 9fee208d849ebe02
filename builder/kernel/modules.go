package kernel

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// module is one kernel module and what its .modinfo section says.
type module struct {
	path    string // below /usr/lib/modules/RELEASE, ending in .ko
	name    string
	bytes   []byte // as signed: never to be stripped
	aliases []string
	depends []string // names of modules that must be loaded before
	softdep []string // as in a modprobe configuration: "pre: a b post: c"; a and b are names or aliases
}

// moduleName is the name of a module by its file, as the kernel makes it.
func moduleName(file string) string {
	name := path.Base(file)
	name = strings.TrimSuffix(strings.TrimSuffix(name, ".xz"), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// parseModule reads the .modinfo section: strings KEY=VALUE, each ended by a zero byte (MODULE_INFO of linux/module.h).
func parseModule(file string, b []byte) (*module, error) {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("cannot read module %q: %w", file, err)
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("cannot read module %q: no .modinfo section", file)
	}
	info, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("cannot read module %q: %w", file, err)
	}
	m := &module{path: file, name: moduleName(file), bytes: b}
	for entry := range strings.SplitSeq(string(info), "\x00") {
		key, value, _ := strings.Cut(entry, "=")
		switch key {
		case "alias":
			m.aliases = append(m.aliases, value)
		case "softdep":
			m.softdep = append(m.softdep, value)
		case "depends":
			value = strings.ReplaceAll(value, "-", "_")
			m.depends = strings.FieldsFunc(value, func(r rune) bool { return r == ',' })
		}
	}
	return m, nil
}

// choose returns the modules that fit the patterns, and all that those need, by name.
func (p *kernelPackage) choose(ctx context.Context, patterns []string) (map[string]*module, error) {
	var queue []string
	for _, file := range slices.Sorted(maps.Keys(p.packed)) {
		fits, err := fitsAny(patterns, file)
		if err != nil {
			return nil, err
		}
		if fits {
			queue = append(queue, file)
		}
	}
	chosen := map[string]*module{}
	for ; len(queue) > 0; queue = queue[1:] {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		name := moduleName(queue[0])
		if chosen[name] != nil {
			continue
		}
		m, err := p.module(queue[0])
		if err != nil {
			return nil, err
		}
		chosen[name] = m
		for _, d := range m.depends {
			file := p.byName[d]
			if file == "" {
				return nil, fmt.Errorf("cannot take module %q: the package lacks %q, which it depends on", name, d)
			}
			queue = append(queue, file)
		}
		for _, d := range softNames(m.softdep) {
			if file := p.byName[d]; file != "" { // else it is built in, or an alias of modules that modules.toml names
				queue = append(queue, file)
			}
		}
	}
	return chosen, nil
}

func fitsAny(patterns []string, file string) (bool, error) {
	file = strings.TrimPrefix(strings.TrimSuffix(strings.TrimSuffix(file, ".xz"), ".ko"), "kernel/")
	for _, pattern := range patterns {
		ok, err := path.Match(pattern, file)
		if err != nil {
			return false, fmt.Errorf("cannot use pattern %q: %w", pattern, err)
		}
		if ok {
			return true, nil
		}
	}
	return false, nil
}

// softNames is the modules named by soft dependencies, by their module names.
func softNames(softdep []string) []string {
	var names []string
	for _, field := range strings.Fields(strings.Join(softdep, " ")) {
		if !strings.HasSuffix(field, ":") {
			names = append(names, strings.ReplaceAll(field, "-", "_"))
		}
	}
	return names
}

// writeModules writes modules and their indexes into dir, the folder of a release. Where sameFile is given, modules are
// hard links to the files that it names.
func writeModules(dir string, modules map[string]*module, sameFile func(string) string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var dep, alias, soft strings.Builder
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		m := modules[name]
		file := filepath.Join(dir, m.path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		err := error(nil)
		if sameFile != nil {
			err = os.Link(sameFile(m.path), file)
		} else {
			err = os.WriteFile(file, m.bytes, 0o644)
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(&dep, "%s:%s\n", m.path, dependencies(modules, m))
		for _, a := range m.aliases {
			fmt.Fprintf(&alias, "alias %s %s\n", a, name)
		}
		for _, s := range m.softdep {
			fmt.Fprintf(&soft, "softdep %s %s\n", name, s)
		}
	}
	indexes := map[string]string{"dep": dep.String(), "alias": alias.String(), "softdep": soft.String()}
	for name, text := range indexes {
		if err := os.WriteFile(filepath.Join(dir, "modules."+name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// dependencies is the right side of a line of modules.dep: everything that m needs, directly or not. Modules are loaded
// from right to left (modules.dep(5)).
func dependencies(modules map[string]*module, m *module) string {
	var order []string // first to be loaded first
	seen := map[string]bool{}
	var visit func(m *module)
	visit = func(m *module) {
		for _, d := range m.depends {
			if !seen[d] {
				seen[d] = true
				visit(modules[d])
				order = append(order, modules[d].path)
			}
		}
	}
	visit(m)
	line := ""
	for _, file := range slices.Backward(order) {
		line += " " + file
	}
	return line
}
