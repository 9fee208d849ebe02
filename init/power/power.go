// Package power tells when somebody pushes the power button, on any input device that has one, also those that appear
// later. Virtual machines are switched off the same way.
package power

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/input.h and linux/input-event-codes.h.
const (
	eventKey  = 1
	keyPower  = 116
	eventSize = int(unsafe.Sizeof(unix.Timeval{})) + 8 // struct input_event: time, type, code, value
)

// Watch sends on pushed for each push of a power button until ctx ends. The folder is /dev/input.
func Watch(ctx context.Context, folder string, pushed chan<- struct{}) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("cannot watch for power buttons: %w", err)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("cannot watch for power buttons: %w", err)
	}
	notify := os.NewFile(uintptr(fd), "inotify")
	defer notify.Close()
	if _, err := unix.InotifyAddWatch(fd, folder, unix.IN_CREATE); err != nil {
		return fmt.Errorf("cannot watch for power buttons in %q: %w", folder, err)
	}
	stop := context.AfterFunc(ctx, func() { notify.Close() })
	defer stop()
	present, err := filepath.Glob(filepath.Join(folder, "event*"))
	if err != nil {
		return err
	}
	for _, path := range present {
		go watchDevice(ctx, path, pushed)
	}
	buf := make([]byte, 4096)
	for {
		n, err := notify.Read(buf)
		if err != nil {
			return nil // closed because ctx ended
		}
		for _, name := range names(buf[:n]) {
			if strings.HasPrefix(name, "event") {
				go watchDevice(ctx, filepath.Join(folder, name), pushed)
			}
		}
	}
}

// names are the file names in what inotify tells; see inotify(7).
func names(b []byte) []string {
	var out []string
	for len(b) >= unix.SizeofInotifyEvent {
		size := int(binary.NativeEndian.Uint32(b[12:16]))
		b = b[unix.SizeofInotifyEvent:]
		if size > len(b) {
			break
		}
		out = append(out, strings.TrimRight(string(b[:size]), "\x00"))
		b = b[size:]
	}
	return out
}

// watchDevice reads one device until it goes away, or not at all if it has no power button.
func watchDevice(ctx context.Context, path string, pushed chan<- struct{}) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if !hasPowerKey(f) {
		return
	}
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	buf := make([]byte, 64*eventSize)
	for {
		n, err := f.Read(buf)
		if err != nil {
			return
		}
		if pushes(buf[:n]) {
			select {
			case pushed <- struct{}{}:
			case <-ctx.Done():
			}
		}
	}
}

// hasPowerKey asks which keys the device has: EVIOCGBIT(EV_KEY) fills a bit map.
func hasPowerKey(f *os.File) bool {
	var bits [(keyPower + 8) / 8]byte
	request := uintptr(2<<30 | len(bits)<<16 | 'E'<<8 | 0x20 + eventKey)
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	var errno unix.Errno
	raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(unsafe.Pointer(&bits)))
	})
	return errno == 0 && bits[keyPower/8]&(1<<(keyPower%8)) != 0
}

// pushes tells whether one of the events is the power key going down.
func pushes(b []byte) bool {
	for ; len(b) >= eventSize; b = b[eventSize:] {
		e := b[eventSize-8:]
		if binary.NativeEndian.Uint16(e) == eventKey && binary.NativeEndian.Uint16(e[2:]) == keyPower &&
			binary.NativeEndian.Uint32(e[4:]) == 1 {
			return true
		}
	}
	return false
}
