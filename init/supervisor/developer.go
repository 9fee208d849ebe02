package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"allotment/api"
	"allotment/image"
	"allotment/image/layer"
	"allotment/init/plan"
	"allotment/init/reaper"
	"allotment/init/usage"
)

// layerFile is where a layer lies that a developer gave. Such layers are not protected by fs-verity.
func (s *Supervisor) layerFile(d image.Digest) string {
	return filepath.Join(s.config.State, "developer", layer.FileName(d))
}

// layerOf is the file of a layer: of the system's own, or of a developer's.
func (s *Supervisor) layerOf(state State, d image.Digest) (string, error) {
	own := slices.ContainsFunc(s.config.Manifest.Layers, func(l image.Layer) bool { return l.Digest == d })
	if own || !s.config.Manifest.Developer {
		return state.Layer(d)
	}
	_, err := os.Stat(s.layerFile(d))
	return s.layerFile(d), err
}

// HasLayer implements apiserver.Developer.
func (b *Box) HasLayer(d image.Digest) bool {
	s := b.supervisor
	var state State
	if s.call(func(context.Context) { state = s.state }) != nil || state == nil {
		return false
	}
	_, err := s.layerOf(state, d)
	return err == nil
}

// AddLayer implements apiserver.Developer.
func (b *Box) AddLayer(_ context.Context, d image.Digest, r io.Reader) error {
	path := b.supervisor.layerFile(d)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "new")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	got, _, err := layer.Digest(io.TeeReader(r, f))
	switch {
	case err != nil:
		return err
	case got != d:
		return api.Errorf(api.Invalid, "the layer's digest is %s, not %s", got, d)
	}
	return errors.Join(f.Close(), os.Rename(f.Name(), path))
}

// Replace implements apiserver.Developer.
func (b *Box) Replace(ctx context.Context, m image.Module) error {
	s := b.supervisor
	s.changing.Lock()
	defer s.changing.Unlock()
	var old *image.Manifest
	var state State
	if err := s.call(func(context.Context) { old, state = s.manifest, s.state }); err != nil {
		return err
	}
	if state == nil {
		return api.Errorf(api.Conflict, "the state partition is not open yet")
	}
	for _, d := range m.Layers {
		if _, err := s.layerOf(state, d); err != nil {
			return api.Errorf(api.NotFound, "layer %s is not there", d)
		}
	}
	if err := s.swap(ctx, withModule(old, m), m.Name); err != nil {
		return err
	}
	problem := ""
	err := s.await(ctx, func() bool {
		x := findModule(s.modules, m.Name)
		if x.settled {
			problem = x.problem
		}
		return x.settled
	})
	if err != nil {
		return err
	}
	if problem != "" {
		err := api.Errorf(api.Invalid, "the module cannot run, the one before does: %s", problem)
		return errors.Join(err, s.swap(ctx, old, m.Name))
	}
	s.record(api.Event{Level: api.Good, Kind: "module", Module: m.Name, Text: m.Title + " was replaced by a developer"}, nil)
	return nil
}

// withModule is the manifest with the module in place of the one of that name.
func withModule(m *image.Manifest, with image.Module) *image.Manifest {
	next := *m
	next.Modules = slices.Clone(m.Modules)
	i := slices.IndexFunc(next.Modules, func(x image.Module) bool { return x.Name == with.Name })
	if i < 0 {
		next.Modules = append(next.Modules, with)
	} else {
		next.Modules[i] = with
	}
	return &next
}

// swap stops the module of that name and starts it as the manifest has it. An error before the stop changes nothing.
func (s *Supervisor) swap(ctx context.Context, to *image.Manifest, name string) error {
	p, err := plan.New(to)
	if err != nil {
		return api.Errorf(api.Invalid, "%v", err)
	}
	f, err := openFiles(s.config, to, s.log)
	if err != nil {
		return err
	}
	c := &change{Supervisor: s, files: f, plan: p}
	if m := p.Module(name); m != nil {
		if err := c.make(f.settings.Values(), []*plan.Module{m}); err != nil {
			return api.Errorf(api.Invalid, "%v", err)
		}
	}
	if err := s.halt(ctx, name); err != nil {
		return err
	}
	err = s.call(func(ctx context.Context) {
		s.manifest, s.files = to, f
		s.wire(p)
		s.setRules()
		if m := findModule(s.modules, name); m != nil {
			s.prepareAfresh(ctx, m)
		}
	})
	if err != nil {
		return err
	}
	// Others may depend on what the module declares, such as the directory on its account.
	if err := c.make(f.settings.Values(), p.Modules); err != nil {
		s.warn(err)
		return nil
	}
	delete(c.next, p.Module(name))
	return c.show()
}

// halt stops the module of that name, if there is one, and takes its mounts away.
func (s *Supervisor) halt(ctx context.Context, name string) error {
	var m *module
	err := s.call(func(context.Context) {
		if m = findModule(s.modules, name); m != nil {
			m.held = true
		}
	})
	if err != nil || m == nil {
		return err
	}
	err = s.await(ctx, m.standsStill)
	if err == nil {
		err = s.dismiss(m.plan)
	}
	if err != nil {
		return errors.Join(err, s.call(func(context.Context) { s.release(m) }))
	}
	return nil
}

// release lets a module go on that was held.
func (s *Supervisor) release(m *module) {
	m.held = false
	for _, u := range m.units {
		s.allow(u)
	}
}

// Processes implements apiserver.Developer.
func (b *Box) Processes() ([]api.Process, error) { return usage.Processes("/proc") }

// Signal implements apiserver.Developer.
func (b *Box) Signal(pid int, sig unix.Signal) error {
	if err := unix.Kill(pid, sig); err != nil {
		return api.Errorf(api.NotFound, "cannot send signal %d to process %d: %v", int(sig), pid, err)
	}
	return nil
}

// Run implements apiserver.Developer.
func (b *Box) Run(ctx context.Context, module, service string, command []string) iter.Seq2[api.Output, error] {
	return func(yield func(api.Output, error) bool) {
		j, err := b.supervisor.runningJob(module, service)
		if err != nil {
			yield(api.Output{}, err)
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		r, w := io.Pipe()
		defer r.Close()
		ended := make(chan error, 1)
		go func() {
			err := j.exec(ctx, command, w)
			w.Close()
			ended <- err
		}()
		buf := make([]byte, 4096)
		for {
			n, err := r.Read(buf)
			if n > 0 && !yield(api.Output{Text: string(buf[:n])}, nil) {
				return
			}
			if err != nil {
				break
			}
		}
		exit, err := exitOf(<-ended)
		yield(api.Output{Exit: exit}, err)
	}
}

// runningJob is the job of a service that runs.
func (s *Supervisor) runningJob(module, service string) (*serviceJob, error) {
	var j *serviceJob
	err := s.call(func(context.Context) {
		if u := s.unit(module + "." + service); u != nil && u.process != nil {
			j, _ = u.job.(*serviceJob)
		}
	})
	if err == nil && j == nil {
		err = api.Errorf(api.Conflict, "%s.%s does not run", module, service)
	}
	return j, err
}

// exitOf is the status of a command; negative is the signal that ended it.
func exitOf(err error) (*int, error) {
	var status *reaper.ExitError
	code := 0
	switch {
	case err == nil:
	case !errors.As(err, &status):
		return nil, fmt.Errorf("cannot run the command: %w", err)
	case unix.WaitStatus(*status).Signaled():
		code = -int(unix.WaitStatus(*status).Signal())
	default:
		code = unix.WaitStatus(*status).ExitStatus()
	}
	return &code, nil
}
