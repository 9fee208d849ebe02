// Package resolve makes locks: it has apt find the packages that trees need in Debian's verified indexes.
package resolve

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"allotment/builder/apt"
	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/builder/tools"
	"allotment/image"
	"allotment/internal/cache"
	"allotment/internal/progress"
	"allotment/internal/run"
)

// Options says what to resolve.
type Options struct {
	Trees    map[string]*profile.Tree // by name, with all that they name as base
	Archs    []image.Arch
	Archive  *apt.Client
	Cache    cache.Dir
	Now      time.Time // for the validity of indexes
	Progress progress.Reporter
}

// Lock resolves trees to the packages that Debian has now, with the apt of the tool root.
func Lock(ctx context.Context, o Options) (*lock.Lock, error) {
	host, err := image.ParseArch(runtime.GOARCH)
	if err != nil {
		return nil, fmt.Errorf("cannot run apt on this host: %w", err)
	}
	index, err := o.Archive.Update(ctx, set(append([]image.Arch{host}, o.Archs...)), o.Now, o.Progress)
	if err != nil {
		return nil, err
	}
	packages, err := solverPackages(index, host)
	if err != nil {
		return nil, err
	}
	root, err := tools.OpenPackages(ctx, o.Cache, o.Archive, packages, o.Progress)
	if err != nil {
		return nil, err
	}
	return resolveAll(ctx, o, index, root)
}

// solverPackages is the locked solver, with every package that the archive no longer has replaced by the newest version
// of it that there is: an old lock must not keep anybody from making a new one.
func solverPackages(index *apt.Index, host image.Arch) ([]lock.Package, error) {
	l, err := tools.Lock()
	if err != nil {
		return nil, err
	}
	there := map[image.Digest]bool{}
	for _, e := range index.Entries[host] {
		there[e.SHA256] = true
	}
	packages := slices.Clone(l.Trees["solver"][host])
	for i, p := range packages {
		if there[p.SHA256] {
			continue
		}
		if packages[i], err = index.Newest(host, p.Name); err != nil {
			return nil, err
		}
	}
	return packages, nil
}

// resolveAll resolves with the apt-get that runner runs.
func resolveAll(ctx context.Context, o Options, index *apt.Index, runner run.Runner) (*lock.Lock, error) {
	archs := set(o.Archs)
	step := o.Progress.Step(fmt.Sprintf("resolve %d trees for %s", len(o.Trees), join(archs)), 0)
	results := make([]map[string][]lock.Package, len(archs))
	group, solving := errgroup.WithContext(ctx)
	for i, arch := range archs {
		group.Go(func() (err error) {
			results[i], err = resolve(solving, index, runner, o.Trees, arch)
			return err
		})
	}
	err := group.Wait()
	step.Done(err)
	if err != nil {
		return nil, err
	}
	l := &lock.Lock{
		Format: lock.Format, Epoch: index.Date.Unix(), Inputs: lock.InputsOf(o.Trees, archs),
		Trees: map[string]map[image.Arch][]lock.Package{},
	}
	for name, tree := range o.Trees {
		files, err := npmPackages(ctx, o.Archive, tree)
		if err != nil {
			return nil, fmt.Errorf("cannot resolve tree %q: %w", name, err)
		}
		l.Trees[name] = map[image.Arch][]lock.Package{}
		for i, arch := range archs {
			l.Trees[name][arch] = slices.Concat(results[i][name], files)
			slices.SortFunc(l.Trees[name][arch], func(a, b lock.Package) int { return strings.Compare(a.Name, b.Name) })
		}
	}
	return l, nil
}

// npmPackages finds the packages of the npm registry that a tree names.
func npmPackages(ctx context.Context, archive *apt.Client, t *profile.Tree) ([]lock.Package, error) {
	var all []lock.Package
	for _, named := range t.NPM {
		p, err := archive.NPM(ctx, named)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// set is the different elements of s in order.
func set[S ~string](s []S) []S { return slices.Compact(slices.Sorted(slices.Values(s))) }

func join[S ~string](s []S) string {
	var parts []string
	for _, e := range s {
		parts = append(parts, string(e))
	}
	return strings.Join(parts, " and ")
}

// resolver resolves the trees of one architecture.
type resolver struct {
	trees  map[string]*profile.Tree
	arch   image.Arch
	apt    *solver
	done   map[string][]lock.Package
	active []string // trees under way, the base last
}

// resolve returns the packages of every tree for one architecture.
func resolve(
	ctx context.Context, index *apt.Index, runner run.Runner, trees map[string]*profile.Tree, arch image.Arch,
) (map[string][]lock.Package, error) {
	s, err := newSolver(index, runner, arch)
	if err != nil {
		return nil, fmt.Errorf("cannot prepare apt: %w", err)
	}
	defer s.close()
	r := &resolver{trees: trees, arch: arch, apt: s, done: map[string][]lock.Package{}}
	for _, name := range slices.Sorted(maps.Keys(trees)) {
		if err := r.tree(ctx, name); err != nil {
			return nil, err
		}
	}
	return r.done, nil
}

// tree resolves one tree, its base before it.
func (r *resolver) tree(ctx context.Context, name string) error {
	if _, ok := r.done[name]; ok {
		return nil
	}
	t, ok := r.trees[name]
	if !ok {
		return fmt.Errorf("cannot resolve tree %q: there is no such tree", name)
	}
	if slices.Contains(r.active, name) {
		return fmt.Errorf("cannot resolve tree %q: it is its own base, by way of %s", name, strings.Join(r.active, ", "))
	}
	if t.Image != "" { // the registry's business
		r.done[name] = nil
		return nil
	}
	r.active = append(r.active, name)
	defer func() { r.active = r.active[:len(r.active)-1] }()
	w := wish{packages: t.Packages, without: t.Without}
	switch r.arch {
	case image.AMD64:
		w.packages = slices.Concat(w.packages, t.PackagesAMD64)
	case image.ARM64:
		w.packages = slices.Concat(w.packages, t.PackagesARM64)
	}
	for base := t.Base; base != ""; base = r.trees[base].Base {
		if err := r.tree(ctx, base); err != nil {
			return err
		}
		w.present = append(w.present, r.done[base]...)
		w.without = slices.Concat(w.without, r.trees[base].Without)
	}
	packages, err := r.apt.solve(ctx, w)
	if err != nil {
		return fmt.Errorf("cannot resolve tree %q for %s: %w", name, r.arch, err)
	}
	r.done[name] = packages
	return nil
}
