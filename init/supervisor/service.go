package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"allotment/image"
	"allotment/init/check"
	"allotment/init/container"
	"allotment/init/plan"
	"allotment/init/reaper"
	"allotment/init/servicelog"
)

// serviceJob runs one service of a module as a container.
type serviceJob struct {
	runtime *container.Runtime
	running sync.Mutex // held while a command runs in the container: there is one at a time

	mu      sync.Mutex
	service *plan.Service
	network string   // path of the module's network namespace
	output  *os.File // the service's end of its log pipe; nil before open
	reader  *os.File // ours
	file    *servicelog.File
}

// set gives the service that the job runs from its next start on.
func (j *serviceJob) set(service *plan.Service) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.service = service
}

func (j *serviceJob) get() *plan.Service {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.service
}

// open prepares the service's log, unless it is open; network is the path of its module's network namespace.
func (j *serviceJob) open(network, logs string, logErr func(error)) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.network = network
	if j.output != nil {
		return nil
	}
	service, reader, err := j.runtime.Pipe(j.service)
	if err != nil {
		return err
	}
	file, err := servicelog.Open(filepath.Join(logs, j.service.Module.Name, j.service.Name+".log"))
	if err != nil {
		service.Close()
		reader.Close()
		return err
	}
	go func() {
		if err := servicelog.Copy(file, reader, time.Now); err != nil && !errors.Is(err, os.ErrClosed) {
			logErr(err)
		}
	}()
	j.output, j.reader, j.file = service, reader, file
	return nil
}

func (j *serviceJob) find() *reaper.Process { return j.runtime.Find(j.get()) }

func (j *serviceJob) start(ctx context.Context) (*reaper.Process, error) {
	j.mu.Lock()
	service, network, output := j.service, j.network, j.output
	j.mu.Unlock()
	return j.runtime.Start(ctx, service, network, output)
}

func (j *serviceJob) check(ctx context.Context) error {
	s := j.get()
	return check.AwaitReady(ctx, s.Ready, j.question(s, s.Ready))
}

func (j *serviceJob) live(ctx context.Context) error {
	s := j.get()
	if s.Live == nil {
		return nil
	}
	return check.AwaitDead(ctx, *s.Live, j.question(s, *s.Live))
}

func (j *serviceJob) question(s *plan.Service, c image.Check) check.Question {
	return check.New(c, s.Module.IPv4.Addr(), func(ctx context.Context, command []string) error {
		j.running.Lock()
		defer j.running.Unlock()
		return j.runtime.Exec(ctx, s, command)
	})
}

// exec runs a command in the container and gives what it prints to output.
func (j *serviceJob) exec(ctx context.Context, command []string, output io.Writer) error {
	j.running.Lock()
	defer j.running.Unlock()
	return j.runtime.ExecTo(ctx, j.get(), command, output)
}

func (j *serviceJob) reload(p *reaper.Process) error {
	s := j.get()
	sig := unix.SignalNum(s.Reload)
	if sig == 0 {
		return fmt.Errorf("cannot reload %q: no such signal as %q", s.ID, s.Reload)
	}
	return p.Signal(sig)
}

func (j *serviceJob) signal(p *reaper.Process) (time.Duration, error) {
	s := j.get()
	sig := unix.SignalNum(s.Stop)
	if sig == 0 {
		sig = unix.SIGTERM
	}
	return s.StopTimeout, p.Signal(sig)
}

func (j *serviceJob) kill(p *reaper.Process) {
	p.Signal(unix.SIGKILL)
	j.runtime.Kill(j.get())
}

func (j *serviceJob) cleanup(ctx context.Context) string {
	return j.runtime.Remove(ctx, j.get())
}

// close ends the service's log.
func (j *serviceJob) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.output == nil {
		return
	}
	j.output.Close()
	j.reader.Close()
	j.file.Close()
	j.output = nil
}
