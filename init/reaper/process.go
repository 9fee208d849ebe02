package reaper

import (
	"fmt"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Process is a process that was started or found. Its methods may be called from several goroutines.
type Process struct {
	pid   int
	child bool // so that it is known how it ends
	done  chan struct{}
	err   error // set before done is closed

	mu sync.Mutex
	fd int // pidfd, -1 after the end
}

// PID is the number of the process. It may belong to another one once Done is closed.
func (p *Process) PID() int { return p.pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Child tells whether the process is a child of this one. How others end cannot be known: their Err is nil.
func (p *Process) Child() bool { return p.child }

// Err tells after Done how the process ended: nil for exit code 0 and for a process that is no child of this one,
// otherwise an *ExitError.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		panic("reaper: Err called before Done")
	}
}

// ExitCode is Err as one number: the exit code, or 128 and the number of the signal that ended the process.
func (p *Process) ExitCode() int {
	e, ok := p.Err().(*ExitError)
	if !ok {
		return 0
	}
	if s := syscall.WaitStatus(*e); s.Signaled() {
		return 128 + int(s.Signal())
	}
	return syscall.WaitStatus(*e).ExitStatus()
}

// Signal sends a signal; it is not an error if the process has ended. The pidfd makes sure that no other process which
// got the same number is hit.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd < 0 {
		return nil
	}
	err := unix.PidfdSendSignal(p.fd, sig, nil, 0)
	if err != nil && err != unix.ESRCH {
		return fmt.Errorf("cannot send %v to process %d: %w", sig, p.pid, err)
	}
	return nil
}

func (p *Process) end(status syscall.WaitStatus) {
	if status != 0 {
		e := ExitError(status)
		p.err = &e
	}
	p.mu.Lock()
	if p.fd >= 0 {
		unix.Close(p.fd)
	}
	p.fd = -1
	p.mu.Unlock()
	close(p.done)
}

// ExitError is the wait status of a process that did not end with exit code 0.
type ExitError syscall.WaitStatus

// Error implements error.
func (e *ExitError) Error() string {
	if s := syscall.WaitStatus(*e); s.Signaled() {
		return fmt.Sprintf("ended by signal %d (%v)", int(s.Signal()), s.Signal())
	}
	return fmt.Sprintf("exit code %d", syscall.WaitStatus(*e).ExitStatus())
}

// Attach watches a process that this one did not start itself. It may be a child all the same: processes that lose their
// parent become children of the nearest process above that is a subreaper (see prctl(2), PR_SET_CHILD_SUBREAPER), and it
// may have ended and been reaped meanwhile. It fails with ESRCH if there is no such process.
func (r *Reaper) Attach(pid int) (*Process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fd, err := unix.PidfdOpen(pid, 0)
	if status, ok := r.strangers[pid]; ok {
		delete(r.strangers, pid)
		if err != nil {
			p := &Process{pid: pid, child: true, fd: -1, done: make(chan struct{})}
			p.end(status)
			return p, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot attach to process %d: %w", pid, err)
	}
	p := &Process{pid: pid, fd: fd, done: make(chan struct{})}
	if isChild(fd) {
		p.child = true
		r.children[pid] = p
		return p, nil
	}
	go p.poll(fd)
	return p, nil
}

// isChild tells whether the process, which may be a zombie, is a child of this one; see waitid(2).
func isChild(pidfd int) bool {
	for {
		err := unix.Waitid(unix.P_PIDFD, pidfd, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return err == nil
		}
	}
}

// poll waits for the end of a process that is no child: its pidfd becomes readable. Nothing but end closes it, so the
// descriptor stays valid.
func (p *Process) poll(fd int) {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if n > 0 || err != nil && err != unix.EINTR {
			p.end(0)
			return
		}
	}
}
