package tools

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"allotment/builder/apt"
	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/image"
	"allotment/internal/cache"
	"allotment/internal/progress"
)

//go:embed tools.lock
var lockFile []byte

// layoutVersion is part of the cache's key: raise it when unpack or finish change what a tool root holds.
const layoutVersion = 1

// Fetcher gets packages as verified files; it returns their paths in the order of packages.
type Fetcher interface {
	Fetch(ctx context.Context, packages []lock.Package, to progress.Reporter) ([]string, error)
}

// Root is an unpacked tool root that can be entered.
type Root struct {
	dir    string
	binds  []string
	spaces namespaces
}

// Open returns the tool root with all tools, made in the cache on first use.
func Open(ctx context.Context, c cache.Dir, f Fetcher, to progress.Reporter) (*Root, error) {
	return open(ctx, c, f, to, "tools")
}

// OpenFrom is Open with packages from the given places, and where those no longer have them from the snapshot service as
// of the tools' own lock.
func OpenFrom(ctx context.Context, c cache.Dir, places profile.Debian, to progress.Reporter) (*Root, error) {
	l, err := Lock()
	if err != nil {
		return nil, err
	}
	return Open(ctx, c, apt.New(c, places, l.Epoch), to)
}

// OpenSolver returns the small tool root that holds apt and what apt needs.
func OpenSolver(ctx context.Context, c cache.Dir, f Fetcher, to progress.Reporter) (*Root, error) {
	return open(ctx, c, f, to, "solver")
}

// OpenRegistry returns the small tool root that holds skopeo, which fetches images and judges their signatures.
func OpenRegistry(ctx context.Context, c cache.Dir, f Fetcher, to progress.Reporter) (*Root, error) {
	return open(ctx, c, f, to, "registry")
}

// OpenBrowser returns the tool root that holds a headless Chromium, for tests of the portal's pages.
func OpenBrowser(ctx context.Context, c cache.Dir, f Fetcher, to progress.Reporter) (*Root, error) {
	return open(ctx, c, f, to, "browser")
}

// Lock returns the tool root's lock, for the build record.
func Lock() (*lock.Lock, error) { return lock.Parse("builder/tools/tools.lock", lockFile) }

func open(ctx context.Context, c cache.Dir, f Fetcher, to progress.Reporter, tree string) (*Root, error) {
	packages, err := locked(tree)
	if err != nil {
		return nil, err
	}
	return OpenPackages(ctx, c, f, packages, to)
}

// OpenPackages returns a tool root of the given packages: those of other locks, or what there is now of packages whose locked
// versions the archive no longer has.
func OpenPackages(
	ctx context.Context, c cache.Dir, f Fetcher, packages []lock.Package, to progress.Reporter,
) (*Root, error) {
	spaces, err := probe(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := c.Make(ctx, "tools", cache.Key(layoutVersion, packages), func(tmp string) error {
		return fill(ctx, tmp, packages, f, to)
	})
	if err != nil {
		return nil, fmt.Errorf("cannot make the tool root: %w", err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil { // the host's links lead elsewhere while the root is entered
		return nil, fmt.Errorf("cannot find the tool root: %w", err)
	}
	return &Root{dir: dir, binds: []string{string(c), os.TempDir()}, spaces: spaces}, nil
}

// locked returns a tree's packages for the architecture of this program.
func locked(tree string) ([]lock.Package, error) {
	arch, err := image.ParseArch(runtime.GOARCH)
	if err != nil {
		return nil, fmt.Errorf("cannot build on this host: %w", err)
	}
	l, err := Lock()
	if err != nil {
		return nil, err
	}
	packages := l.Trees[tree][arch]
	if len(packages) == 0 {
		return nil, fmt.Errorf("cannot find tree %q for %s in builder/tools/tools.lock", tree, arch)
	}
	return packages, nil
}

// fill makes a tool root in the new folder dir.
func fill(ctx context.Context, dir string, packages []lock.Package, f Fetcher, to progress.Reporter) error {
	debs, err := f.Fetch(ctx, packages, to)
	if err != nil {
		return err
	}
	step := to.Step(fmt.Sprintf("unpack %d packages of tools", len(packages)), totalSize(packages))
	err = unpack(ctx, dir, packages, debs, step)
	if err == nil {
		err = finish(dir)
	}
	step.Done(err)
	return err
}

func totalSize(packages []lock.Package) int64 {
	var n int64
	for _, p := range packages {
		n += p.Size
	}
	return n
}

// Dir is the folder on the host that the tool root was unpacked to, for reading files such as firmware out of it.
func (r *Root) Dir() string { return r.dir }

// With returns the same root with further host folders or files, which appear inside at the same paths, writable. The
// whole of the host's devices is there With("/dev", "/sys").
func (r *Root) With(paths ...string) *Root {
	more := *r
	more.binds = append(slices.Clone(r.binds), paths...)
	return &more
}

// Unprivileged returns the same root for programs that are not to be trusted with root's rights on the host: they run in
// a user namespace also when the caller is root.
func (r *Root) Unprivileged(ctx context.Context) (*Root, error) {
	less := *r
	less.spaces.user = true
	if err := try(ctx, less.spaces); err != nil {
		return nil, fmt.Errorf("cannot enter the tool root without root's rights: %w%s", err, remedy(os.DirFS("/proc/sys")))
	}
	return &less, nil
}
