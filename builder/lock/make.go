package lock

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"allotment/builder/apt"
	"allotment/builder/profile"
	"allotment/image"
	"allotment/internal/progress"
	"allotment/internal/run"
)

// Make resolves trees for the given architectures to the packages of an index. The dependencies are solved by the
// apt-get that solver runs. A tree with a base gets only what the base does not have.
func Make(
	ctx context.Context, index *apt.Index, solver run.Runner,
	trees map[string]*profile.Tree, archs []image.Arch, to progress.Reporter,
) (*Lock, error) {
	l := &Lock{
		Format: Format, Epoch: index.Date.Unix(), Inputs: InputsOf(trees, archs),
		Trees: map[string]map[image.Arch][]Package{},
	}
	for name := range trees {
		l.Trees[name] = map[image.Arch][]Package{}
	}
	archs = set(archs)
	results := make([]map[string][]Package, len(archs))
	step := to.Step(fmt.Sprintf("resolve %d trees for %s", len(trees), join(archs)), 0)
	group, ctx := errgroup.WithContext(ctx)
	for i, arch := range archs {
		group.Go(func() (err error) {
			results[i], err = resolve(ctx, index, solver, trees, arch)
			return err
		})
	}
	err := group.Wait()
	step.Done(err)
	if err != nil {
		return nil, err
	}
	for i, arch := range archs {
		for name, packages := range results[i] {
			l.Trees[name][arch] = packages
		}
	}
	return l, nil
}

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
	done   map[string][]Package
	active []string // trees under way, the base last
}

// resolve returns the packages of every tree for one architecture.
func resolve(
	ctx context.Context, index *apt.Index, runner run.Runner, trees map[string]*profile.Tree, arch image.Arch,
) (map[string][]Package, error) {
	s, err := newSolver(index, runner, arch)
	if err != nil {
		return nil, fmt.Errorf("cannot prepare apt: %w", err)
	}
	defer s.close()
	r := &resolver{trees: trees, arch: arch, apt: s, done: map[string][]Package{}}
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
