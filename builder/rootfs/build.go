package rootfs

import (
	"archive/tar"
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"allotment/builder/profile"
)

// declared is who a declaration's paths are from.
const declared = "the declaration"

// caBundle is where OpenSSL and others look for the certificates of the authorities that they trust.
const caBundle = "/etc/ssl/certs/ca-certificates.crt"

// Build makes the tree of packages and what decl declares, on top of base (nil: none), which stays as it is. The result
// holds base too; Subtract takes it away again for a layer of its own.
//
// Order: packages (base-files first, the others by name), leftovers out, Include, Remove, users and groups, CA bundle,
// folders, links, files, modes; then a check that no program misses a library. Include and Remove look only at what the
// packages brought, never at base. Files that are copied are taken from before Include and Remove, so a tree can keep a
// copy without its original.
func Build(ctx context.Context, pkgs []Deb, decl *profile.Tree, base *Tree) (*Tree, error) {
	if base == nil {
		base = New()
	}
	t := base.Clone()
	t.Accounts = base.Accounts.With(decl)
	for _, d := range inOrder(pkgs) {
		if err := t.AddPackage(ctx, d); err != nil {
			return nil, err
		}
	}
	t.removeLeftovers(base)
	d := declaration{Tree: decl, t: t, base: base, unpacked: t.Clone()}
	if err := d.apply(); err != nil {
		return nil, fmt.Errorf("cannot make tree %q: %w", decl.Name, err)
	}
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("cannot use tree %q: %w", decl.Name, err)
	}
	return t, nil
}

// BuildImage makes the tree of what decl declares on top of an OCI image, whose accounts, libraries and documentation are
// its maker's business.
func BuildImage(img *Tree, decl *profile.Tree) (*Tree, error) {
	t := img.Clone()
	t.Accounts = profile.Accounts{}.With(decl)
	d := declaration{Tree: decl, t: t, base: New(), unpacked: img}
	if err := d.apply(); err != nil {
		return nil, fmt.Errorf("cannot make tree %q: %w", decl.Name, err)
	}
	d.warnOfLinks()
	return t, nil
}

// inOrder puts base-files first, because it ships the links /bin, /lib and /sbin, which others' paths lead through.
func inOrder(pkgs []Deb) []Deb {
	return slices.SortedFunc(slices.Values(pkgs), func(a, b Deb) int {
		if (a.Name == "base-files") != (b.Name == "base-files") {
			if a.Name == "base-files" {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Name, b.Name)
	})
}

// leftovers are what a running system or a package manager leaves behind, and documentation: no image carries it.
var leftovers = []string{
	"/etc/ld.so.cache", "/etc/machine-id", "/var/cache/*/*", "/var/lib/apt", "/var/lib/dbus/machine-id", "/var/lib/dpkg",
	"/**/*.dpkg-dist", "/**/*.dpkg-new", "/**/*.dpkg-old", "/**/__pycache__",
	"/usr/share/bug", "/usr/share/doc-base", "/usr/share/info", "/usr/share/lintian", "/usr/share/man",
}

// removeLeftovers drops leftovers, the files of logs, and of the documentation all but the copyright of each package.
func (t *Tree) removeLeftovers(base *Tree) {
	m := newMatcher(leftovers)
	for _, p := range t.paths() {
		if base.nodes[p] != nil {
			continue
		}
		folder := t.nodes[p].Type == tar.TypeDir
		log := strings.HasPrefix(p, "/var/log/") && !folder
		doc := strings.HasPrefix(p, "/usr/share/doc/") && !folder && path.Base(p) != "copyright"
		if m.match(p) || log || doc {
			delete(t.nodes, p)
		}
	}
}

// declaration is a declaration being applied to a tree.
type declaration struct {
	*profile.Tree
	t        *Tree
	base     *Tree
	unpacked *Tree // t before anything was removed
}

func (d *declaration) apply() error {
	if err := d.include(); err != nil {
		return err
	}
	d.remove()
	if len(d.Users)+len(d.Groups) > 0 && d.Image == "" {
		if err := d.t.writeAccounts(d.t.Accounts); err != nil {
			return err
		}
	}
	if d.CABundle {
		if err := d.bundle(); err != nil {
			return err
		}
	}
	for _, step := range []func() error{d.dirs, d.links, d.files, d.modes} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// check finds what would fail silently on the device: programs without their libraries, and links into nothing.
func (d *declaration) check() error {
	missing, err := d.t.MissingLibraries()
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("libraries are missing; include them, or remove what needs them:\n  %s", strings.Join(missing, "\n  "))
	}
	d.warnOfLinks()
	return nil
}

func (d *declaration) warnOfLinks() {
	for _, l := range d.t.brokenLinks(d.unpacked) {
		d.t.Warnings = append(d.t.Warnings, fmt.Sprintf("tree %q: include and remove leave a link into nothing: %s", d.Name, l))
	}
}

// include drops what fits no pattern, but for the folders that lead to what does.
func (d *declaration) include() error {
	if len(d.Include) == 0 {
		return nil
	}
	m, keep := newMatcher(d.Include), map[string]bool{}
	for p := range d.t.All() {
		if d.base.nodes[p] == nil && m.match(p) {
			for a := p; !keep[a]; a = path.Dir(a) {
				keep[a] = true
			}
		}
	}
	if lost := m.unused(d.Include); len(lost) > 0 {
		return fmt.Errorf("include patterns fit no path of the packages: %s", strings.Join(lost, ", "))
	}
	for _, p := range d.t.paths() {
		if !keep[p] && d.base.nodes[p] == nil {
			delete(d.t.nodes, p)
		}
	}
	return nil
}

func (d *declaration) remove() {
	m := newMatcher(d.Remove)
	for _, p := range d.t.paths() {
		if d.base.nodes[p] == nil && m.match(p) {
			delete(d.t.nodes, p)
		}
	}
	for _, p := range m.unused(d.Remove) {
		d.t.Warnings = append(d.t.Warnings, fmt.Sprintf("tree %q: remove pattern fits no path: %s", d.Name, p))
	}
}

// bundle joins the certificates that package ca-certificates ships, as update-ca-certificates would.
func (d *declaration) bundle() error {
	var all []byte
	for p, n := range d.unpacked.All() {
		if n.Type != tar.TypeReg || !Match("/usr/share/ca-certificates/mozilla/*.crt", p) {
			continue
		}
		b, err := d.unpacked.ReadFile(p)
		if err != nil {
			return err
		}
		all = append(all, b...)
		if len(b) > 0 && b[len(b)-1] != '\n' {
			all = append(all, '\n')
		}
	}
	if len(all) == 0 {
		return fmt.Errorf("cannot make the CA bundle: no certificates; add package ca-certificates")
	}
	return d.t.Put(caBundle, &Node{Type: tar.TypeReg, Mode: 0o644, Content: Content{Bytes: all}, From: declared})
}
