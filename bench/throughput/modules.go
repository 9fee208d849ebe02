package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"allotment/builder/apt"
	"allotment/builder/lock"
	"allotment/builder/lock/resolve"
	"allotment/builder/profile"
	"allotment/image"
)

// What is measured: the modules, and how they are reached from outside. The site and the directory are not open to the outside
// otherwise: one is behind the gateway and the other for modules alone.
const (
	httpPort = 8080 // of module web
	ldapPort = 389  // of module directory
	xmppPort = 5223 // of module chat: TLS from the start
)

// portalPassword is that of the account that fills the directory; every box makes its own otherwise.
const portalPassword = "only-for-this-measurement"

// newProfile is the profile of the box.
func newProfile(source string) (*profile.Profile, error) {
	p, err := profile.Load(filepath.Join(source, "profiles", "garden-club.toml"))
	if err != nil {
		return nil, err
	}
	p.Name, p.Archs, p.Outputs = "bench-throughput", []image.Arch{image.AMD64}, []string{"qcow2"}
	const unmeasured = "calendar"
	p.ModuleNames = slices.DeleteFunc(p.ModuleNames, func(name string) bool { return name == unmeasured })
	p.Modules = slices.DeleteFunc(p.Modules, func(m *profile.ModuleSpec) bool { return m.Name == unmeasured })
	delete(p.Trees, unmeasured)
	return p, open(p.Modules)
}

// modules are the profile of the box and its lock, of the packages that Debian has now, as the peer's are.
func (b *bench) modules(ctx context.Context) (*profile.Profile, *lock.Lock, error) {
	p, err := newProfile(string(b.source))
	if err != nil {
		return nil, nil, err
	}
	l, err := resolve.Lock(ctx, resolve.Options{Trees: p.Trees, Archs: p.Archs, Archive: apt.New(b.cache, p.Debian, 0),
		Cache: b.cache, Now: time.Now(), Progress: b.progress})
	return p, l, err
}

// open opens to the outside what is measured.
func open(modules []*profile.ModuleSpec) error {
	const own, known = "{{quote .Secrets.portal}}", `"` + portalPassword + `"`
	changed := false
	for _, m := range modules {
		switch m.Name {
		case "web":
			m.Ports = append(m.Ports, image.Port{Port: httpPort, Expose: "public"})
		case "directory":
			m.Ports = append(m.Ports, image.Port{Port: ldapPort, Expose: "public"})
			for i, t := range m.Templates {
				m.Templates[i].Text = strings.ReplaceAll(t.Text, own, known)
				changed = changed || m.Templates[i].Text != t.Text
			}
		}
	}
	if !changed {
		return fmt.Errorf("cannot find %q in the directory's templates", own)
	}
	return nil
}

// manifest is as much of what the builder makes of a profile as the device's own code needs to render the modules' files.
func manifest(p *profile.Profile) (*image.Manifest, error) {
	m := &image.Manifest{Organisation: p.Organisation}
	for _, spec := range p.Modules {
		chain, err := p.Chain(&spec.Tree)
		if err != nil {
			return nil, err
		}
		var a profile.Accounts
		for _, t := range chain {
			a = a.With(t)
		}
		declared := spec.Module
		declared.Users, declared.Layers = a.ImageUsers(), make([]image.Digest, 1)
		m.Modules = append(m.Modules, declared)
	}
	if len(m.Modules) == 0 {
		return nil, errors.New("cannot measure a profile without modules")
	}
	return m, nil
}
