package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"allotment/api"
	"allotment/builder"
	"allotment/builder/apt"
	"allotment/builder/lock"
	"allotment/builder/lock/resolve"
	"allotment/builder/profile"
	"allotment/image"
	"allotment/image/secureboot"
	"allotment/internal/cache"
	"allotment/internal/progress"
	"allotment/internal/terminal"
	"allotment/qemu-tests/vm"
)

func newModuleRun(c *common) *cobra.Command {
	var memory int
	cmd := &cobra.Command{
		Use:   "run NAME",
		Short: "Boot a machine with one module and what it needs, and follow changes of its files",
		Long: `Boot a machine with one module and what it needs, and follow changes of its files.

The image is a developer image, made in the cache: its keys sign nothing else, and its API lets a developer do as he likes
(see docs/formats/api.md). While it runs, the module's logs are shown, and a saved change of a file in modules/NAME is live
within seconds; a declaration with faults is shown, and what ran goes on. allot device asks the machine anything else.
Ctrl-C ends the machine and all that is in it.`,
		Example: "  allot module run calendar",
		Args:    one("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			source, dir, err := c.folders()
			if err != nil {
				return err
			}
			arch, err := image.ParseArch(runtime.GOARCH)
			if err != nil {
				return err
			}
			d := &developer{
				common: c, source: source, cache: dir, arch: arch, name: args[0],
				out: newOutput(cmd.OutOrStdout()), memory: memory, replaced: make(chan struct{}, 1),
			}
			err = d.run(cmd.Context())
			if cmd.Context().Err() != nil {
				return nil // Ctrl-C is how it ends
			}
			return err
		},
	}
	cmd.Flags().IntVar(&memory, "memory", 768, "memory of the machine in MiB")
	return cmd
}

// developer is a module under work, and the machine that it runs in.
type developer struct {
	*common
	source builder.Source
	cache  cache.Dir
	arch   image.Arch
	name   string
	out    *output
	memory int // MiB

	replaced chan struct{} // gets a word after each replacement
}

// run builds the image, boots it and follows what happens until ctx ends.
func (d *developer) run(ctx context.Context) error {
	o, err := d.options(ctx)
	if err != nil {
		return err
	}
	path, err := d.image(ctx, o)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "allot-module-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	m, err := d.boot(ctx, path, dir, o.Profile)
	if err != nil {
		return err
	}
	defer m.Close()
	shared, unshare, err := m.Share("module-" + d.name)
	if err != nil {
		return err
	}
	defer unshare()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		<-m.Ended()
		stop(errors.New("the machine is off"))
	}()
	if _, err := m.API().Info(ctx); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	d.addresses(m, o.Profile, shared)
	go d.logs(ctx, m.API())
	go d.events(ctx, m.API())
	return d.follow(ctx, m.API(), filepath.Join(string(d.source), "modules", d.name))
}

// options are those of a build of the module as it is now.
func (d *developer) options(ctx context.Context) (builder.Options, error) {
	p, err := profile.Developer(string(d.source), d.name, d.arch)
	if err != nil {
		return builder.Options{}, err
	}
	l, err := d.lock(ctx, p)
	if err != nil {
		return builder.Options{}, err
	}
	keys, err := d.cache.Make(ctx, "developer", "keys", func(tmp string) error {
		return secureboot.NewKeys(tmp, time.Now().UTC().Truncate(time.Second))
	})
	if err != nil {
		return builder.Options{}, err
	}
	return builder.Options{
		Profile: p, Lock: l, Source: d.source, Arch: d.arch, Keys: keys, Cache: d.cache,
		Out: d.cache.Path("developer", "images"),
	}, nil
}

// lock is a part of the lock of a profile that has the same modules, or else packages are resolved, once.
func (d *developer) lock(ctx context.Context, p *profile.Profile) (*lock.Lock, error) {
	files, err := filepath.Glob(profilePath(d.source, "*"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		other, err := profile.Load(file)
		if err != nil {
			continue // it may name the module under work
		}
		l, err := lock.Read(lockPath(file))
		if err != nil {
			continue
		}
		if part, ok := l.Part(other, p); ok {
			return part, nil
		}
	}
	return d.resolve(ctx, p)
}

// resolve finds the packages that the profile asks for, unless that was done before.
func (d *developer) resolve(ctx context.Context, p *profile.Profile) (*lock.Lock, error) {
	key := cache.Key(lock.InputsOf(p.Trees, p.Archs))
	path, err := d.cache.Make(ctx, "developer", "lock-"+key, func(tmp string) error {
		report, done := d.progress()
		defer done()
		l, err := resolve.Lock(ctx, resolve.Options{
			Trees: p.Trees, Archs: p.Archs, Archive: apt.New(d.cache, p.Debian, 0), Cache: d.cache, Now: time.Now(), Progress: report,
		})
		if err != nil {
			return err
		}
		return l.Write(tmp)
	})
	if err != nil {
		return nil, err
	}
	return lock.Read(path)
}

// image builds the developer image.
func (d *developer) image(ctx context.Context, o builder.Options) (string, error) {
	report, done := d.progress()
	defer done()
	o.Progress = report
	r, err := builder.Build(ctx, o)
	if err != nil {
		return "", err
	}
	return r.Image("qcow2")
}

const (
	developerDisk = 8 << 30        // bytes
	workday       = 24 * time.Hour // the longest that a machine lives
)

// boot starts the machine, with a port of this host for each of its own.
func (d *developer) boot(ctx context.Context, path, dir string, p *profile.Profile) (*vm.VM, error) {
	root, err := d.tools(ctx, d.cache, profile.Debian{})
	if err != nil {
		return nil, err
	}
	firmware := vm.UEFI
	if d.arch.BootsBIOS() {
		firmware = vm.BIOS // starts fastest
	}
	return vm.Start(ctx, vm.Options{
		Tools: root.With(filepath.Dir(path), dir), Dir: dir, Arch: d.arch, Firmware: firmware, Memory: d.memory,
		Disk: path, DiskSize: developerDisk, Forward: exposed(p), Limit: workday,
	})
}

// exposed are the TCP ports by which modules can be reached from outside, the gateway's first.
func exposed(p *profile.Profile) []int {
	ports := []int{80}
	for _, m := range p.Modules {
		for _, v := range m.Ports {
			if v.Expose != "none" && v.Protocol != "udp" && !slices.Contains(ports, v.Port) {
				ports = append(ports, v.Port)
			}
		}
	}
	return ports
}

// addresses tells where the modules can be reached.
func (d *developer) addresses(m *vm.VM, p *profile.Profile, shared string) {
	d.out.say("The machine is up; ask it with: allot device --vm %s modules", shared)
	for _, spec := range p.Modules {
		if spec.HTTP != nil {
			d.out.say("  %s: http://%s%s", spec.Name, m.Address(80), spec.HTTP.Path)
		}
		for _, v := range spec.Ports {
			if a := m.Address(v.Port); a != "" {
				d.out.say("  %s: %s is port %d %s", spec.Name, a, v.Port, v.Name)
			}
		}
	}
	d.out.say("Save a file in modules/%s, and it is live. Ctrl-C ends all.", d.name)
}

// logs shows what the module's services print. It asks anew after each replacement, which may have brought new services,
// and while the box does not have the logs yet.
func (d *developer) logs(ctx context.Context, c *api.Client) {
	var last time.Time
	for ctx.Err() == nil {
		shown := last
		one, stop := context.WithCancel(ctx)
		go func() {
			defer stop()
			select {
			case <-d.replaced:
			case <-one.Done():
			}
		}()
		for line, err := range c.Logs(one, api.LogQuery{Module: d.name, Lines: -1, Follow: true}) {
			if err == nil && line.Time.After(shown) {
				last = line.Time
				d.out.line(line.Service, line.Text)
			}
		}
		stop()
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// events shows what happens to any module.
func (d *developer) events(ctx context.Context, c *api.Client) {
	for e, err := range c.Events(ctx, api.EventQuery{Follow: true}) {
		if err != nil {
			return
		}
		d.out.say("%s", e.Text)
	}
}

// replace builds the module as it is now and puts it in the place of the one that runs.
func (d *developer) replace(ctx context.Context, c *api.Client) error {
	begin := time.Now()
	o, err := d.options(ctx)
	if err != nil {
		return err
	}
	o.Progress = progress.Silent{}
	m, layers, err := builder.Module(ctx, o, d.name)
	if err != nil {
		return err
	}
	built := time.Now()
	for _, l := range layers {
		if err := upload(ctx, c, l); err != nil {
			return err
		}
	}
	sent := time.Now()
	if err := c.Replace(ctx, m); err != nil {
		return err
	}
	select {
	case d.replaced <- struct{}{}:
	default:
	}
	state, err := settled(ctx, c, d.name)
	if err != nil {
		return err
	}
	now := time.Now()
	d.out.say("%s is %s after %.1f s: %.1f s to build, %.1f s to send, %.1f s to start", d.name, state,
		now.Sub(begin).Seconds(), built.Sub(begin).Seconds(), sent.Sub(built).Seconds(), now.Sub(sent).Seconds())
	return nil
}

// upload gives the box a layer, unless it has it.
func upload(ctx context.Context, c *api.Client, l *builder.Layer) error {
	has, err := c.HasLayer(ctx, l.Digest)
	if has || err != nil {
		return err
	}
	f, err := os.Open(l.EROFS)
	if err != nil {
		return err
	}
	defer f.Close()
	return c.AddLayer(ctx, l.Digest, f)
}

// settled waits until a module is ready or has failed.
func settled(ctx context.Context, c *api.Client, name string) (string, error) {
	after := uint64(0)
	for {
		m, err := c.Module(ctx, name)
		if err != nil {
			return "", err
		}
		if m.State != "starting" {
			return m.State, nil
		}
		for e, err := range c.Events(ctx, api.EventQuery{After: after, Follow: true}) {
			if err != nil {
				return "", err
			}
			after = e.Number
			if e.Module == name {
				break
			}
		}
	}
}

// follow replaces the module whenever files in its folder were changed and stay as they are, until ctx ends.
func (d *developer) follow(ctx context.Context, c *api.Client, dir string) error {
	live := snapshot(dir)
	last := live
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		now := snapshot(dir)
		if now != last || now == live {
			last = now
			continue
		}
		live = now
		d.out.say("%s has changed", d.name)
		if err := d.replace(ctx, c); err != nil && ctx.Err() == nil {
			d.out.say("%v\nWhat ran before still runs.", err)
		}
	}
}

// snapshot is different whenever a file below dir has changed, come or gone.
func snapshot(dir string) string {
	var all []any
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // gone meanwhile: the next look tells
		}
		if info, err := e.Info(); err == nil && !e.IsDir() {
			all = append(all, path, info.Size(), info.ModTime().UnixNano())
		}
		return nil
	})
	return cache.Key(all...)
}

// output shows what comes from several sides, in colours on a terminal.
type output struct {
	mu     sync.Mutex
	w      io.Writer
	colour bool
	names  []string // services, in the order in which they first spoke
}

func newOutput(w io.Writer) *output {
	f, ok := w.(*os.File)
	return &output{w: w, colour: ok && terminal.Is(f)}
}

// say prints what we have to say ourselves.
func (o *output) say(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	if o.colour {
		text = "\x1b[1m" + text + "\x1b[0m"
	}
	fmt.Fprintln(o.w, text)
}

// line prints a line of a service's log.
func (o *output) line(service, text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.Index(o.names, service)
	if i < 0 {
		i = len(o.names)
		o.names = append(o.names, service)
	}
	if o.colour {
		const firstColour, colours = 31, 6 // ECMA-48: red to cyan
		service = fmt.Sprintf("\x1b[%dm%s\x1b[0m", firstColour+i%colours, service)
	}
	fmt.Fprintf(o.w, "%s  %s\n", service, text)
}
