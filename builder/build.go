// Package builder makes images: it takes a profile and its lock and gives signed, bootable disk images. Build tells the
// whole story; each step is a file of this package that calls the package which does the work. Every step is keyed by its
// inputs and kept in the cache, so that what has not changed is not done again.
package builder

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"allotment/builder/apt"
	"allotment/builder/kernel"
	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/builder/tools"
	"allotment/image"
	"allotment/image/secureboot"
	"allotment/internal/cache"
	"allotment/internal/progress"
)

// Options says what to build and where.
type Options struct {
	Profile  *profile.Profile
	Lock     *lock.Lock
	Source   Source     // of the device's programs
	Arch     image.Arch // one that the profile names
	Keys     string     // folder that allot key new made
	Out      string     // folder for the finished images
	Registry string     // folder with the policy that admits images of registries; empty: registry in Source
	Cache    cache.Dir
	Progress progress.Reporter // of the steps
}

// build is a build under way: its options and what every step needs.
type build struct {
	Options
	goVersion string
	epoch     int64 // Unix time in seconds that everything bears
	keys      *secureboot.Keys
	archive   *apt.Client
	toolsID   string // what decides the tools' bytes
	code      string // hash of all our code that has a part in an image
	treeCode  string // of that which makes trees
	rootCode  string // of that which makes the root and the boot files
	key       string // hash of every input
	warnings  []string
}

// Build makes the images of one architecture. When nothing has changed since they were last made it only says so.
// A failed or interrupted build leaves no file under a final name that is not whole.
func Build(ctx context.Context, o Options) (*Result, error) {
	r, err := buildUnlessDone(ctx, o)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err() // whatever else went wrong followed from the interrupt
	}
	return r, err
}

func buildUnlessDone(ctx context.Context, o Options) (*Result, error) {
	b, err := prepare(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(b.Out, 0o755); err != nil { // what will not work at the end had better fail now
		return nil, fmt.Errorf("cannot write images: %w", err)
	}
	unlock, err := b.turn(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if r, ok := b.upToDate(); ok {
		return r, nil
	}
	return b.make(ctx)
}

// turn waits until no other build makes the same files, so that two builds at once do not mix theirs.
func (b *build) turn(ctx context.Context) (unlock func(), err error) {
	step := b.Progress.Step("wait for another build of the same images", 0)
	unlock, err = b.Cache.Lock(ctx, "outputs", cache.Key(b.base()))
	step.Done(err)
	return unlock, err
}

// make makes everything, in order.
func (b *build) make(ctx context.Context) (*Result, error) {
	var err error
	p := &parts{}
	if p.programs, err = b.programs(ctx); err != nil {
		return nil, err
	}
	toolRoot, err := tools.Open(ctx, b.Cache, b.archive, b.Progress)
	if err != nil {
		return nil, err
	}
	if p.layers, p.modules, err = b.layers(ctx, toolRoot); err != nil {
		return nil, err
	}
	if p.kernel, err = b.kernel(ctx); err != nil {
		return nil, err
	}
	if p.root, err = b.root(ctx, toolRoot, p); err != nil {
		return nil, err
	}
	if p.boot, err = b.boot(ctx, p); err != nil {
		return nil, err
	}
	return b.outputs(ctx, toolRoot, p)
}

// parts are what an image is put together from, in the order in which they are made.
type parts struct {
	programs string   // folder of the device's programs
	layers   []*Layer // of all modules, each once
	modules  []module
	kernel   *kernel.Kernel
	root     *rootFS
	boot     *bootFiles
}

// time is the time that everything in the image bears.
func (b *build) time() time.Time { return time.Unix(b.epoch, 0).UTC() }

// prepare reads what the whole build depends on and fails early where something is missing.
func prepare(ctx context.Context, o Options) (*build, error) {
	b := &build{Options: o, epoch: o.Lock.Epoch}
	if !slices.Contains(o.Profile.Archs, o.Arch) {
		return nil, fmt.Errorf("cannot build profile %q for %s: it names only %v; add it to arch in %s",
			o.Profile.Name, o.Arch, o.Profile.Archs, o.Profile.File)
	}
	if err := o.Lock.Check(o.Profile); err != nil {
		return nil, err
	}
	var err error
	if b.Out, err = filepath.Abs(o.Out); err != nil {
		return nil, err
	}
	if _, err := b.layout(nil); err != nil {
		return nil, err
	}
	if b.keys, err = secureboot.LoadKeys(o.Keys); err != nil {
		return nil, err
	}
	if b.goVersion, err = goVersion(ctx, o.Source, o.Arch); err != nil {
		return nil, err
	}
	if b.treeCode, err = o.Source.Key(treeCode...); err != nil {
		return nil, err
	}
	if b.rootCode, err = o.Source.Key(rootCode...); err != nil {
		return nil, err
	}
	toolLock, err := tools.Lock()
	if err != nil {
		return nil, err
	}
	b.toolsID = cache.Key(toolLock.Trees["tools"][image.Arch(runtime.GOARCH)])
	b.archive = apt.New(o.Cache, o.Profile.Debian, b.epoch, toolLock.Epoch)
	b.key, err = b.inputsKey()
	return b, err
}
