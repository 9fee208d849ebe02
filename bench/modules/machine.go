package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"allotment/api"
	"allotment/bench/host"
	"allotment/builder"
	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/builder/tools"
	"allotment/image"
	"allotment/internal/cache"
	"allotment/internal/progress"
	"allotment/qemu-tests/vm"
)

// bench is a run under way.
type bench struct {
	profile, keys string
	copies        int
	progress      progress.Reporter
	source        builder.Source
	cache         cache.Dir
	tools         *tools.Root
	dir           string // for all that the run makes
}

const (
	memory   = 1024             // MiB
	diskSize = 16 << 30         // bytes
	settle   = 60 * time.Second // wall time between the last service's start and the measurement
	idling   = 60 * time.Second // wall time
)

// build makes the image of a profile for amd64.
func (b *bench) build(ctx context.Context, p *profile.Profile, l *lock.Lock) (string, error) {
	p.Outputs = []string{"qcow2"}
	r, err := builder.Build(ctx, builder.Options{Profile: p, Lock: l, Source: b.source, Arch: image.AMD64, Keys: b.keys,
		Out: filepath.Join(b.dir, "out"), Cache: b.cache, Progress: b.progress})
	if err != nil {
		return "", err
	}
	return r.Image("qcow2")
}

// load reads the profile with its lock.
func (b *bench) load() (*profile.Profile, *lock.Lock, error) {
	file := filepath.Join(string(b.source), "profiles", b.profile+".toml")
	p, err := profile.Load(file)
	if err != nil {
		return nil, nil, err
	}
	l, err := lock.Read(strings.TrimSuffix(file, ".toml") + ".lock")
	return p, l, err
}

// boot starts a machine and waits until all its modules are ready.
func (b *bench) boot(ctx context.Context, disk, name string) (*vm.VM, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	step := b.progress.Step("boot "+name, 0)
	v, err := vm.Start(ctx, vm.Options{Tools: b.tools, Dir: dir, Firmware: vm.UEFI, Memory: memory, Disk: disk,
		DiskSize: diskSize, Forward: []int{80}, Limit: vm.Patience(30 * time.Minute)})
	if err == nil {
		if err = allReady(ctx, v); err != nil {
			v.Close()
		}
	}
	step.Done(err)
	return v, err
}

// allReady follows the box's events until every module is ready.
func allReady(ctx context.Context, v *vm.VM) error {
	for _, err := range v.API().Events(ctx, api.EventQuery{Follow: true}) {
		if err != nil {
			return err
		}
		modules, err := v.API().Modules(ctx)
		if err != nil {
			return err
		}
		if ready(modules) {
			return nil
		}
	}
	return errors.New("the box ended before its modules were ready")
}

func ready(modules []api.Module) bool {
	for _, m := range modules {
		if m.State != "ready" {
			return false
		}
	}
	return len(modules) > 0
}

// together is what was measured of the modules of one box.
type together struct {
	first, idle, after api.Resources // as they became ready and settled; a while later; after all journeys
	used               int64         // bytes neither free nor page cache, when idle
}

// together boots the profile and measures it idle and while members' journeys run.
func (b *bench) together(ctx context.Context) (*together, error) {
	p, l, err := b.load()
	if err != nil {
		return nil, err
	}
	disk, err := b.build(ctx, p, l)
	if err != nil {
		return nil, err
	}
	v, err := b.boot(ctx, disk, b.profile)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	t := &together{}
	if t.first, t.used, err = b.whenIdle(ctx, v); err != nil {
		return nil, err
	}
	if err := host.Sleep(ctx, idling); err != nil {
		return nil, err
	}
	if t.idle, err = v.API().Resources(ctx); err != nil {
		return nil, err
	}
	if err := b.journeys(ctx, v); err != nil {
		return nil, err
	}
	t.after, err = v.API().Resources(ctx)
	return t, err
}

// whenIdle lets a machine settle and asks what it uses.
func (b *bench) whenIdle(ctx context.Context, v *vm.VM) (api.Resources, int64, error) {
	if err := host.Sleep(ctx, settle); err != nil {
		return api.Resources{}, 0, err
	}
	m, err := v.Memory(ctx)
	if err != nil {
		return api.Resources{}, 0, err
	}
	r, err := v.API().Resources(ctx)
	return r, m.Used(), err
}

// journeys runs every journey of every module three times.
func (b *bench) journeys(ctx context.Context, v *vm.VM) error {
	tasks, err := v.API().Tasks(ctx)
	if err != nil {
		return err
	}
	for range 3 {
		for _, t := range tasks {
			if t.Kind != api.Journey {
				continue
			}
			for p, err := range v.API().RunTask(ctx, t) {
				if err != nil {
					return err
				}
				if p.Done && !p.OK {
					return fmt.Errorf("journey %s of module %s: %s: %s", t.Name, t.Module, p.Title, p.Problem)
				}
			}
		}
	}
	return nil
}
