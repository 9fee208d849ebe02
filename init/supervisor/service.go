package supervisor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"allotment/init/container"
	"allotment/init/plan"
	"allotment/init/reaper"
	"allotment/init/servicelog"
)

// serviceJob runs one service of a module as a container.
type serviceJob struct {
	service *plan.Service
	runtime *container.Runtime

	mu      sync.Mutex
	network string   // path of the module's network namespace
	output  *os.File // the service's end of its log pipe; nil before open
	reader  *os.File // ours
	file    *servicelog.File
}

// open prepares the service's log; network is the path of its module's network namespace.
func (j *serviceJob) open(network, logs string, logErr func(error)) error {
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
	j.mu.Lock()
	defer j.mu.Unlock()
	j.network, j.output, j.reader, j.file = network, service, reader, file
	return nil
}

func (j *serviceJob) find() *reaper.Process { return j.runtime.Find(j.service) }

func (j *serviceJob) start(ctx context.Context) (*reaper.Process, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.runtime.Start(ctx, j.service, j.network, j.output)
}

func (j *serviceJob) check(ctx context.Context) error {
	return awaitReady(ctx, j.service.Ready, j.service.Module.IPv4.Addr())
}

func (j *serviceJob) signal(p *reaper.Process) error {
	sig := unix.SignalNum(j.service.Stop)
	if sig == 0 {
		sig = unix.SIGTERM
	}
	return p.Signal(sig)
}

func (j *serviceJob) kill(p *reaper.Process) {
	p.Signal(unix.SIGKILL)
	j.runtime.Kill(j.service)
}

func (j *serviceJob) cleanup(ctx context.Context) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.runtime.Remove(ctx, j.service)
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
}
