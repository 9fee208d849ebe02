package reaper

import (
	"fmt"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Process is a process that was started or found. Its methods may be called from several goroutines.
type Process struct {
	pid  int
	done chan struct{}
	err  error // set before done is closed

	mu sync.Mutex
	fd int // pidfd, -1 after the end
}

// PID is the number of the process. It may belong to another one once Done is closed.
func (p *Process) PID() int { return p.pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err tells after Done how the process ended: nil for exit code 0 and for a process that was only attached to,
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
	unix.Close(p.fd)
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

// Attach watches a process that is not a child of this one, such as a container that a former supervisor started. How it
// ended cannot be known: Err is nil. It fails with ESRCH if there is no such process.
func Attach(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot attach to process %d: %w", pid, err)
	}
	p := &Process{pid: pid, fd: fd, done: make(chan struct{})}
	go func() {
		// A pidfd is readable once its process has ended. Nothing but end closes it, so the descriptor stays valid.
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if n > 0 || err != nil && err != unix.EINTR {
				p.end(0)
				return
			}
		}
	}()
	return p, nil
}
