// Package uevent tells of the devices that the kernel finds: those that are there, from sysfs, and those that come, from
// the kernel's uevent netlink socket.
package uevent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Event is one message of the kernel.
type Event struct {
	Action string            // add, remove, change, move, bind, unbind...
	Path   string            // of the device, below /sys
	Env    map[string]string // such as SUBSYSTEM, MODALIAS, DEVNAME, PARTNAME
}

// ErrLost means that the kernel sent more than the socket could hold: the caller looks at everything anew.
var ErrLost = errors.New("kernel events were lost")

// Parse reads the kernel's form: "ACTION@PATH" and then KEY=VALUE, each ended by a zero byte.
func Parse(b []byte) (Event, error) {
	head, rest, ok := bytes.Cut(b, []byte{0})
	action, path, at := strings.Cut(string(head), "@")
	if !ok || !at || action == "" || !strings.HasPrefix(path, "/") {
		return Event{}, fmt.Errorf("cannot read kernel event %q", head)
	}
	e := Event{Action: action, Path: path, Env: map[string]string{}}
	for entry := range strings.SplitSeq(string(rest), "\x00") {
		if key, value, ok := strings.Cut(entry, "="); ok {
			e.Env[key] = value
		}
	}
	return e, nil
}

// Socket receives events from the time that it was opened.
type Socket struct{ fd int }

// Listen opens a socket.
func Listen() (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("cannot listen to kernel events: %w", err)
	}
	const kernelGroup = 1
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot listen to kernel events: %w", err)
	}
	// Finding a bus full of devices is a burst of messages. Without the privilege for this, the default has to do.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	return &Socket{fd}, nil
}

// Close ends listening.
func (s *Socket) Close() error { return unix.Close(s.fd) }

// Next waits for an event, at most for the time limit given, then the error is os.ErrDeadlineExceeded. A negative limit
// is none.
func (s *Socket) Next(limit time.Duration) (Event, error) {
	buffer := make([]byte, 16<<10) // the kernel's messages are at most 2 KiB and the path
	end := time.Now().Add(limit)
	for {
		wait := -1
		if limit >= 0 {
			wait = int(max(0, time.Until(end)) / time.Millisecond)
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, wait)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return Event{}, fmt.Errorf("cannot wait for kernel events: %w", err)
		}
		if n == 0 {
			return Event{}, os.ErrDeadlineExceeded
		}
		n, from, err := unix.Recvfrom(s.fd, buffer, unix.MSG_DONTWAIT)
		switch {
		case err == unix.ENOBUFS:
			return Event{}, ErrLost
		case err == unix.EINTR || err == unix.EAGAIN:
			continue
		case err != nil:
			return Event{}, fmt.Errorf("cannot receive kernel events: %w", err)
		}
		if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
			continue // not from the kernel
		}
		if e, err := Parse(buffer[:n]); err == nil {
			return e, nil
		}
	}
}

// Modaliases lists what the devices below root, /sys/devices, say of the modules they want, each once.
func Modaliases(root string) []string {
	var list []string
	seen := map[string]bool{}
	_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Name() != "modalias" {
			return nil // a device may vanish at any time
		}
		b, err := os.ReadFile(path)
		if a := strings.TrimSpace(string(b)); err == nil && a != "" && !seen[a] {
			seen[a] = true
			list = append(list, a)
		}
		return nil
	})
	return list
}
