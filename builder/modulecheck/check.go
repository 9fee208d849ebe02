package modulecheck

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"

	"allotment/builder/apt"
	"allotment/builder/deb"
	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/builder/rootfs"
	"allotment/builder/tools"
	"allotment/image"
	"allotment/internal/cache"
	"allotment/internal/progress"
)

// Options says what to check and with what.
type Options struct {
	Trees    []*profile.Tree // the module's tree, after those below it, lowest first
	Lock     *lock.Lock      // has the packages of Trees for this host's architecture
	Tools    *tools.Root
	Fetcher  tools.Fetcher
	Cache    cache.Dir
	Progress progress.Reporter
}

// Check installs the packages of a module normally and compares the result with the module's tree. Findings are in the
// report, see Report.Err; the error is for a check that could not be done.
func Check(ctx context.Context, o Options) (*Report, error) {
	if len(o.Trees) == 0 {
		return nil, fmt.Errorf("cannot check a module without a tree")
	}
	p, err := o.fetch(ctx)
	if err != nil {
		return nil, err
	}
	built, err := o.build(ctx, p)
	if err != nil {
		return nil, err
	}
	normal, err := o.normal(ctx, p)
	if err != nil {
		return nil, err
	}
	return compare(normal, built, o.Trees, p.own)
}

// installation is a normal installation.
type installation struct {
	before *rootfs.Tree // unpacked only
	after  *rootfs.Tree // all scripts have run
}

// normal makes a normal installation of all packages.
func (o *Options) normal(ctx context.Context, p *packages) (*installation, error) {
	before, err := o.unpack(ctx, p)
	if err != nil {
		return nil, err
	}
	tar, err := o.install(ctx, p)
	if err != nil {
		return nil, err
	}
	after, err := rootfs.ReadTar(ctx, tar)
	return &installation{before, after}, err
}

// debFile is a package with its verified file.
type debFile struct {
	lock.Package
	path string
}

// packages are those of a check.
type packages struct {
	trees map[string][]debFile // the module's, by tree
	own   map[string]debFile   // the same by name
	below []debFile            // which scripts need, base-files first; the module's own where it has them
}

// above are the module's packages that are not in below, by name.
func (p *packages) above() []debFile {
	var out []debFile
	for _, name := range slices.Sorted(maps.Keys(p.own)) {
		if d := p.own[name]; !slices.Contains(p.below, d) {
			out = append(out, d)
		}
	}
	return out
}

// fetch finds and fetches all packages.
func (o *Options) fetch(ctx context.Context) (*packages, error) {
	arch, err := image.ParseArch(runtime.GOARCH)
	if err != nil {
		return nil, fmt.Errorf("cannot run maintainer scripts on this host: %w", err)
	}
	p := &packages{trees: map[string][]debFile{}, own: map[string]debFile{}}
	for _, t := range o.Trees {
		locked, ok := o.Lock.Trees[t.Name][arch]
		if !ok {
			return nil, fmt.Errorf("cannot check tree %q: the lock does not have it for %s, this host's architecture", t.Name, arch)
		}
		files, err := o.files(ctx, locked)
		if err != nil {
			return nil, err
		}
		p.trees[t.Name] = files
		for _, f := range files {
			if f.Archive != apt.NPM { // no scripts
				p.own[f.Name] = f
			}
		}
	}
	own, err := tools.Lock()
	if err != nil {
		return nil, err
	}
	below, err := o.files(ctx, own.Trees["check"][arch])
	if err != nil {
		return nil, err
	}
	return p, p.fit(below)
}

func (o *Options) files(ctx context.Context, locked []lock.Package) ([]debFile, error) {
	paths, err := o.Fetcher.Fetch(ctx, locked, o.Progress)
	if err != nil {
		return nil, err
	}
	files := make([]debFile, len(locked))
	for i := range locked {
		files[i] = debFile{locked[i], paths[i]}
	}
	return files, nil
}

// fit sets p.below to the given packages: the module's own take the place of those that it has too, and those that
// conflict with one of its own are left out. Base-files comes first, whose links others are unpacked through.
func (p *packages) fit(below []debFile) error {
	for _, d := range below {
		if own, ok := p.own[d.Name]; ok {
			d = own
		} else if conflicts, err := p.conflicts(d); err != nil {
			return err
		} else if conflicts {
			continue
		}
		if d.Name == "base-files" {
			p.below = slices.Insert(p.below, 0, d)
		} else {
			p.below = append(p.below, d)
		}
	}
	return nil
}

// conflicts tells whether d names one of the module's packages as one that it cannot be installed with.
func (p *packages) conflicts(d debFile) (bool, error) {
	f, err := deb.Open(d.path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	for _, c := range strings.Split(f.Control.Get("Conflicts"), ",") {
		name, _, _ := strings.Cut(strings.TrimSpace(c), " ") // before its version
		if _, ok := p.own[name]; ok {
			return true, nil
		}
	}
	return false, nil
}

// build makes the module's tree as a build does.
func (o *Options) build(ctx context.Context, p *packages) (*rootfs.Tree, error) {
	var tree *rootfs.Tree
	for _, decl := range o.Trees {
		debs, err := o.debs(ctx, p.trees[decl.Name])
		if err != nil {
			return nil, err
		}
		if tree, err = rootfs.Build(ctx, debs, decl, tree); err != nil {
			return nil, err
		}
	}
	return tree, nil
}

// unpack makes the tree of all packages before any script runs.
func (o *Options) unpack(ctx context.Context, p *packages) (*rootfs.Tree, error) {
	debs, err := o.debs(ctx, slices.Concat(p.below, p.above()))
	if err != nil {
		return nil, err
	}
	tree := rootfs.New()
	for _, d := range debs {
		if err := tree.AddPackage(ctx, d); err != nil {
			return nil, err
		}
	}
	return tree, nil
}

func (o *Options) debs(ctx context.Context, files []debFile) ([]rootfs.Deb, error) {
	debs := make([]rootfs.Deb, len(files))
	for i, f := range files {
		tar, err := deb.DataTarCached(ctx, o.Cache, f.path, f.SHA256)
		if err != nil {
			return nil, err
		}
		debs[i] = rootfs.Deb{Name: f.Name, Version: f.Version, DataTar: tar}
	}
	return debs, nil
}
