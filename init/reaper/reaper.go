// Package reaper starts processes and waits for them. It is the only package on the device that does: a second place that
// waited for children would take away the exits that this one is told of. One Reaper per process is enough; PID 1's also
// reaps the orphans that the kernel hands it.
package reaper

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Reaper collects every child of this process that ends. No other code of the process may wait for children, so os/exec
// is not to be used beside it.
type Reaper struct {
	mu        sync.Mutex // held from fork to registration, so that an exit is never seen before its process is known
	children  map[int]*Process
	strangers map[int]syscall.WaitStatus // how children ended that came from elsewhere and were not asked for yet
	signals   chan os.Signal
	stop      chan struct{}
	stopped   chan struct{}
}

// mostStrangers bounds how many ends are remembered for Attach, which comes soon if it comes.
const mostStrangers = 64

// New begins to reap. Close ends it.
func New() *Reaper {
	r := &Reaper{
		children:  map[int]*Process{},
		strangers: map[int]syscall.WaitStatus{},
		signals:   make(chan os.Signal, 1), // one is enough: a pending SIGCHLD stands for any number of exits
		stop:      make(chan struct{}),
		stopped:   make(chan struct{}),
	}
	signal.Notify(r.signals, unix.SIGCHLD)
	go r.loop()
	return r
}

// Close stops reaping. Processes that still run are left alone, and their Done is never closed.
func (r *Reaper) Close() {
	signal.Stop(r.signals)
	close(r.stop)
	<-r.stopped
}

func (r *Reaper) loop() {
	defer close(r.stopped)
	for {
		r.reap()
		select {
		case <-r.signals:
		case <-r.stop:
			return
		}
	}
}

// reap collects all children that have ended.
func (r *Reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if pid <= 0 {
			return // ECHILD, or children that all still run
		}
		p := r.children[pid]
		if p == nil {
			r.remember(pid, syscall.WaitStatus(status))
			continue
		}
		delete(r.children, pid)
		p.end(syscall.WaitStatus(status))
	}
}

// remember keeps how a child from elsewhere ended, in place of any other one if there are too many.
func (r *Reaper) remember(pid int, status syscall.WaitStatus) {
	for old := range r.strangers {
		if len(r.strangers) < mostStrangers {
			break
		}
		delete(r.strangers, old)
	}
	r.strangers[pid] = status
}

// Spec describes a process.
type Spec struct {
	Path   string   // of the program, absolute
	Args   []string // without the program's name
	Env    []string // all of the environment; nothing is inherited
	Dir    string   // working folder, default /
	Stdin  *os.File // nil: /dev/null, as for the other two
	Stdout *os.File
	Stderr *os.File
	Extra  []*os.File           // become file descriptors 3 and up
	Sys    *syscall.SysProcAttr // credentials, namespaces, cgroup; PidFD is set by Start
}

// Start starts a process. The files of the spec stay the caller's to close.
func (r *Reaper) Start(s Spec) (*Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot start %q: %w", s.Path, err)
	}
	defer null.Close()
	var files []uintptr
	for _, f := range append([]*os.File{s.Stdin, s.Stdout, s.Stderr}, s.Extra...) {
		if f == nil {
			f = null
		}
		files = append(files, f.Fd())
	}
	sys := syscall.SysProcAttr{}
	if s.Sys != nil {
		sys = *s.Sys
	}
	fd := -1
	sys.PidFD = &fd
	dir := s.Dir
	if dir == "" {
		dir = "/"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(s.Path, append([]string{s.Path}, s.Args...),
		&syscall.ProcAttr{Dir: dir, Env: s.Env, Files: files, Sys: &sys})
	if err != nil {
		return nil, fmt.Errorf("cannot start %q: %w", s.Path, err)
	}
	p := &Process{pid: pid, child: true, fd: fd, done: make(chan struct{})}
	r.children[pid] = p
	return p, nil
}

// killWait is how long Run waits for a process that it killed. One that hangs in the kernel is reaped when it ends.
const killWait = 10 * time.Second

// Run starts a process, waits for its end and returns what it wrote to standard output. Its standard error, and an end
// other than exit code 0, become the error. When ctx ends first, the process is killed, and not waited for if it hangs.
// Output is kept in memory. The spec's Stdout and Stderr are not used.
func (r *Reaper) Run(ctx context.Context, s Spec) ([]byte, error) {
	out, outW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	said, saidW, err := os.Pipe()
	if err != nil {
		outW.Close()
		return nil, err
	}
	defer said.Close()
	s.Stdout, s.Stderr = outW, saidW
	p, err := r.Start(s)
	outW.Close()
	saidW.Close()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() {
		p.Signal(unix.SIGKILL)
		out.SetReadDeadline(time.Unix(1, 0)) // its children may still hold the pipes
		said.SetReadDeadline(time.Unix(1, 0))
	})
	defer stop()
	complaints := make(chan []byte, 1)
	go func() { b, _ := io.ReadAll(said); complaints <- b }()
	output, _ := io.ReadAll(out)
	complaint := strings.TrimSpace(string(<-complaints))
	if err := p.await(ctx); err != nil {
		return nil, fmt.Errorf("cannot run %q to its end: %w", s.Path, err)
	}
	if err := p.Err(); err != nil {
		return nil, fmt.Errorf("cannot run %q: %w: %s", s.Path, err, complaint)
	}
	return output, nil
}

// await waits for the end of a process that is killed when ctx ends; it fails if ctx did.
func (p *Process) await(ctx context.Context) error {
	select {
	case <-p.Done():
		return ctx.Err()
	case <-ctx.Done():
	}
	select {
	case <-p.Done():
	case <-time.After(killWait):
	}
	return ctx.Err()
}
