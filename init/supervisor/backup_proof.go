package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"allotment/image"
	"allotment/init/check"
	"allotment/init/container"
	"allotment/init/network"
	"allotment/init/plan"
	"allotment/init/state/btrfs"
)

// proof is a module's second instance, on restored volumes and with nobody to talk to.
type proof struct {
	s       *Supervisor
	module  *plan.Module
	runtime *container.Runtime
	run     string // folder for what lives as long
	network string
	formats map[string]int // of volumes
	runs    []*plan.Service
	stays   []string // services that restoring does not want
	said    *tail
	output  *os.File
}

// Prove implements backup.Box.
func (b backupBox) Prove(ctx context.Context, name string, volumes map[string]string) (steps []string, err error) {
	var m *plan.Module
	failed := b.call(func(context.Context) {
		if found := findModule(b.modules, name); found != nil {
			m = plan.Proof(found.plan)
			b.proving = m
			b.setRules()
		}
	})
	if failed != nil || m == nil {
		return nil, firstOf(failed, fmt.Errorf("there is no module %q any more", name))
	}
	p := &proof{s: b.Supervisor, module: m, run: filepath.Join(b.config.Run, "proof"), formats: map[string]int{}, said: &tail{}}
	c := b.config.Container
	c.Run = p.run
	p.runtime = container.New(c, b.reaper)
	defer func() {
		err = errors.Join(err, p.end())
		_ = b.call(func(context.Context) { b.proving = nil; b.setRules() })
	}()
	if err := p.prepare(volumes); err != nil {
		return nil, err
	}
	steps, err = p.try(ctx)
	if err != nil && p.said.String() != "" {
		err = fmt.Errorf("%w: %s", err, p.said)
	}
	return steps, err
}

// endProofs takes away what a supervisor has left that ended in the middle of a proof.
func (s *Supervisor) endProofs(modules []*plan.Module) error {
	run := filepath.Join(s.config.Run, "proof")
	if _, err := os.Stat(run); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	c := s.config.Container
	c.Run = run
	runtime := container.New(c, s.reaper)
	var errs []error
	err := os.WriteFile(filepath.Join(c.Cgroup, plan.ProofCgroup, "cgroup.kill"), []byte("1"), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, m := range modules {
		p := plan.Proof(m)
		for _, service := range p.Services {
			runtime.Remove(context.Background(), service)
		}
		_ = unix.Unmount(filepath.Join(run, "net", m.Name), unix.MNT_DETACH) // or it is not there
		errs = append(errs, runtime.Dismiss(p))
	}
	return errors.Join(errs...)
}

// prepare makes what the containers need. Settings and secrets are those of the module that runs.
func (p *proof) prepare(volumes map[string]string) error {
	if err := os.MkdirAll(p.run, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"config", "secrets"} {
		link := filepath.Join(p.run, name)
		if err := os.Symlink(filepath.Join(p.s.config.Run, name), link); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	var err error
	if p.network, err = network.Module(p.module, filepath.Join(p.run, "net")); err != nil {
		return err
	}
	from := container.Sources{Volumes: map[string]string{}}
	for _, d := range p.module.Layers {
		file, err := p.s.layerOf(p.s.state, d)
		if err != nil {
			return err
		}
		from.Layers = append(from.Layers, file)
	}
	for _, v := range p.module.Volumes {
		if from.Volumes[v.Name] = volumes[v.Name]; from.Volumes[v.Name] == "" {
			if from.Volumes[v.Name], err = p.empty(v); err != nil {
				return err
			}
		} else {
			p.formats[v.Name] = v.Format // what is older was refused, or is not there
		}
	}
	if err := p.runtime.Prepare(p.module, from); err != nil {
		return err
	}
	return p.listen()
}

// empty makes a volume that is not in the backup.
func (p *proof) empty(v plan.Volume) (string, error) {
	path := filepath.Join(p.s.config.State, "backup", "scratch", p.module.Name+"."+v.Name)
	err := btrfs.CreateSubvolume(path)
	if err == nil {
		var id btrfs.QgroupID
		if id, err = btrfs.SubvolumeID(path); err == nil {
			err = btrfs.Assign(p.s.config.State, id) // so that it takes no room beyond that of all volumes
		}
	}
	if err == nil {
		err = errors.Join(btrfs.SetNoCOW(path, v.NoCOW), os.Chmod(path, 0o750), os.Chown(path, int(v.UID), int(v.GID)))
	}
	return path, err
}

// listen collects the last that the containers print.
func (p *proof) listen() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	p.output = w
	go func() {
		io.Copy(p.said, r)
		r.Close()
	}()
	return nil
}

// try starts the module, restores and proves.
func (p *proof) try(ctx context.Context) (steps []string, err error) {
	b := p.module.Declared.Backup
	if b == nil {
		return nil, nil
	}
	if b.Restore != nil {
		p.stays = b.Restore.Stops
	}
	if err := p.migrate(ctx); err != nil {
		return steps, err
	}
	if b.Verify != nil {
		if err := p.task(ctx, "verify", b.Verify); err != nil {
			return steps, err
		}
		steps = append(steps, "verify")
	}
	if b.Restore != nil {
		if err := p.startAll(ctx); err != nil {
			return steps, err
		}
		if err := p.task(ctx, "restore", &b.Restore.Task); err != nil {
			return steps, err
		}
		steps = append(steps, "restore")
	}
	p.stays = nil
	if err := p.startAll(ctx); err != nil {
		return steps, err
	}
	steps = append(steps, "start")
	if b.RestoreTest != nil {
		if err := p.task(ctx, "restore-test", b.RestoreTest); err != nil {
			return steps, err
		}
		steps = append(steps, "restore-test")
	}
	return steps, nil
}

// migrate runs the migrations that the volumes lack, with the services that these need.
func (p *proof) migrate(ctx context.Context) error {
	for _, d := range p.module.Migrations {
		if p.formats[d.Volume] >= d.Format {
			continue
		}
		for _, need := range d.Requires {
			if err := p.start(ctx, need); err != nil {
				return err
			}
		}
		p.own(d.Service)
		if err := p.runtime.Run(ctx, d.Service, p.network, p.output); err != nil {
			return err
		}
		p.formats[d.Volume] = d.Format
	}
	for _, name := range p.stays {
		p.stop(ctx, name)
	}
	return nil
}

func (p *proof) startAll(ctx context.Context) error {
	for _, service := range p.module.Services {
		if err := p.start(ctx, service); err != nil {
			return err
		}
	}
	return nil
}

// start starts a service and those that it needs, and waits until it is ready.
func (p *proof) start(ctx context.Context, service *plan.Service) error {
	if slices.Contains(p.runs, service) || slices.Contains(p.stays, service.Name) {
		return nil
	}
	for _, need := range service.Requires {
		if err := p.start(ctx, need); err != nil {
			return err
		}
	}
	p.own(service)
	process, err := p.runtime.Start(ctx, service, p.network, p.output)
	if err != nil {
		return err
	}
	p.runs = append(p.runs, service)
	ready := check.New(service.Ready, service.Module.IPv4.Addr(), func(ctx context.Context, command []string) error {
		return p.runtime.Exec(ctx, service, command)
	})
	err = whileItRuns(ctx, process, func(ctx context.Context) error { return check.AwaitReady(ctx, service.Ready, ready) })
	if err != nil {
		return fmt.Errorf("%s does not get ready on what was restored: %w", service.Name, err)
	}
	return nil
}

// own lets the container open its standard output anew, as some programs do.
func (p *proof) own(service *plan.Service) {
	if err := p.output.Chown(int(p.module.FirstID+service.UID), int(p.module.FirstID+service.GID)); err != nil {
		p.s.warn(err)
	}
}

func (p *proof) task(ctx context.Context, name string, t *image.Task) error {
	service, err := plan.Task(p.module, "proof-"+name, t)
	if err != nil {
		return err
	}
	p.own(service)
	return p.runtime.Run(ctx, service, p.network, p.output)
}

// stop ends a service, if it runs.
func (p *proof) stop(ctx context.Context, name string) {
	p.runs = slices.DeleteFunc(p.runs, func(service *plan.Service) bool {
		if service.Name != name {
			return false
		}
		_ = p.runtime.Kill(service)
		p.runtime.Remove(ctx, service)
		return true
	})
}

// end takes the second instance away.
func (p *proof) end() error {
	ctx := context.Background()
	for len(p.runs) > 0 {
		p.stop(ctx, p.runs[len(p.runs)-1].Name)
	}
	if p.output != nil {
		p.output.Close()
	}
	err := p.runtime.Dismiss(p.module)
	if p.network != "" {
		if e := unix.Unmount(p.network, unix.MNT_DETACH); e != nil {
			err = errors.Join(err, fmt.Errorf("cannot take the network of a proof away: %w", e))
		}
	}
	folder := filepath.Join(p.run, "modules", p.module.Name)
	if err == nil && strings.HasPrefix(folder, p.run) {
		err = os.RemoveAll(folder)
	}
	return err
}
