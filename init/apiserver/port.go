package apiserver

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"allotment/api"
	"allotment/api/link"
)

// ListenPort serves the virtio console port named api.PortName, whose other end belongs to whoever runs the hypervisor. It
// returns nil where the machine has none. Class is the folder /sys/class/virtio-ports, dev is /dev.
func ListenPort(class, dev string) (net.Listener, error) {
	names, err := filepath.Glob(filepath.Join(class, "*", "name"))
	if err != nil {
		return nil, err
	}
	for _, path := range names {
		if b, err := os.ReadFile(path); err != nil || strings.TrimSpace(string(b)) != api.PortName {
			continue // a port may go at any time
		}
		p, err := openPort(filepath.Join(dev, filepath.Base(filepath.Dir(path))))
		if err != nil {
			return nil, err
		}
		return link.Listen(p), nil
	}
	return nil, nil
}

// port is a virtio console port, a link.Stream. While the host's end is closed, reading gives nothing at once, writing
// waits, and poll(2) tells of a hang-up (Linux, drivers/char/virtio_console.c).
type port struct {
	*os.File
	raw    syscall.RawConn
	hungUp bool // as far as the reader has seen
}

func openPort(path string) (*port, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open the port of the api: %w", err)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot open the port of the api: %w", err)
	}
	return &port{File: f, raw: raw}, nil
}

// Read implements link.Stream: io.EOF is the host's hang-up, and the Read behind it waits until it is back.
func (p *port) Read(b []byte) (int, error) {
	if p.hungUp {
		if err := p.awaitHost(); err != nil {
			return 0, err
		}
		p.hungUp = false
	}
	n, err := p.File.Read(b)
	p.hungUp = err == io.EOF
	return n, err
}

// awaitHost waits for the wake-up by which the driver tells that the host's end was opened. It counts as a chance to
// write, so that Go's poller, which listens to edges, wakes who waits for one.
func (p *port) awaitHost() error {
	var failed error
	err := p.raw.Write(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		for {
			if _, failed = unix.Poll(fds, 0); failed != unix.EINTR {
				return failed != nil || fds[0].Revents&unix.POLLHUP == 0
			}
		}
	})
	return errors.Join(err, failed)
}
