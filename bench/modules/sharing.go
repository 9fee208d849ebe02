package main

import (
	"context"
	"fmt"
	"path/filepath"

	"allotment/bench/host"
	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/image"
)

// The modules that are compared are PHP's process manager alone, with workers that are there from the start.
const (
	runtimeTree = "php"
	phpConfig   = `[global]
daemonize = no
error_log = /proc/self/fd/2
[www]
listen = 0.0.0.0:9000
pm = static
pm.max_children = 4
`
)

// sharing measures the memory in use, with page cache, of copies of a module that share the layers below them, and of as
// many whose layers are files of their own, as images of other systems would be. Both in bytes, without the base's.
func (b *bench) sharing(ctx context.Context) (shared, apart int64, err error) {
	none, err := b.copiesUse(ctx, "none", 0, false)
	if err != nil {
		return 0, 0, err
	}
	if shared, err = b.copiesUse(ctx, "shared", b.copies, false); err != nil {
		return 0, 0, err
	}
	apart, err = b.copiesUse(ctx, "apart", b.copies, true)
	return shared - none, apart - none, err
}

// copiesUse boots a box with so many copies of the module beside its page and returns the memory that is not free.
func (b *bench) copiesUse(ctx context.Context, name string, copies int, own bool) (int64, error) {
	p, l, err := b.load()
	if err != nil {
		return 0, err
	}
	page, err := profile.ReadModule(filepath.Join(string(b.source), "modules", "page"))
	if err != nil {
		return 0, err
	}
	p.Name, p.Modules, p.ModuleNames, p.Settings = "bench-"+name, nil, nil, nil
	add(p, page)
	small, err := lock.Read(filepath.Join(string(b.source), "profiles", "minimal.lock"))
	if err != nil {
		return 0, err
	}
	l.Trees["page"] = small.Trees["page"]
	for i := range copies {
		if err := addCopy(p, l, i+1, own); err != nil {
			return 0, err
		}
	}
	l.Inputs = lock.InputsOf(p.Trees, p.Archs)
	disk, err := b.build(ctx, p, l)
	if err != nil {
		return 0, err
	}
	v, err := b.boot(ctx, disk, "layers-"+name)
	if err != nil {
		return 0, err
	}
	defer v.Close()
	if err := host.Sleep(ctx, settle); err != nil {
		return 0, err
	}
	m, err := v.Memory(ctx)
	return m.Total - m.Free, err
}

// addCopy adds copy number i of the module. With layers of its own, each tree below it gets a file that no other has.
func addCopy(p *profile.Profile, l *lock.Lock, i int, own bool) error {
	base := runtimeTree
	if own {
		chain, err := p.Chain(p.Trees[runtimeTree])
		if err != nil {
			return err
		}
		below := ""
		for _, t := range chain {
			c := *t
			c.Name, c.Base = fmt.Sprintf("%s-%d", t.Name, i), below
			c.Files = append(c.Files[:len(c.Files):len(c.Files)], profile.File{Path: "/etc/bench-" + c.Name, Content: c.Name})
			p.Trees[c.Name], l.Trees[c.Name] = &c, l.Trees[t.Name]
			below = c.Name
		}
		base = below
	}
	name := fmt.Sprintf("copy-%d", i)
	accounts, err := p.Chain(&profile.Tree{Base: base})
	if err != nil {
		return err
	}
	add(p, &profile.ModuleSpec{
		Format: 1,
		Module: image.Module{Name: name, Title: name, Licence: "PHP-3.01", Memory: image.Memory{Max: 128},
			Users: usersOf(accounts),
			Services: []image.Service{{Name: "php", User: "www-data", Tmpfs: []string{"/tmp"},
				Command: []string{"/usr/sbin/php-fpm8.4", "-F", "-y", "/etc/bench.conf"}, Ready: &image.Check{TCP: 9000}}}},
		Tree: profile.Tree{Name: name, Base: base, Files: []profile.File{
			{Path: "/etc/bench.conf", Content: phpConfig},
			{Path: "/etc/bench-name", Content: name}, // so that no two are the same layer
		}},
	})
	return nil
}

// usersOf are the users of a chain of trees.
func usersOf(chain []*profile.Tree) []image.User {
	var a profile.Accounts
	for _, t := range chain {
		a = a.With(t)
	}
	return a.ImageUsers()
}

// add puts a module into a profile.
func add(p *profile.Profile, m *profile.ModuleSpec) {
	p.Modules, p.ModuleNames = append(p.Modules, m), append(p.ModuleNames, m.Name)
	p.Trees[m.Name] = &m.Tree
}
