package servicelog

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Pipe makes the named pipe at path, unless it is there, and opens it twice: service is to become a service's standard
// output and error, reader is for Copy. The pipe belongs to the host's ids uid and gid, so that the service can open
// /dev/stderr again. Each end is open for reading and writing: a service whose reader dies neither fails nor loses what
// fits in the pipe, and a reader that comes back goes on there.
func Pipe(path string, uid, gid int) (service, reader *os.File, err error) {
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, nil, fmt.Errorf("cannot make log pipe %q: %w", path, err)
	}
	if err := os.Lchown(path, uid, gid); err != nil {
		return nil, nil, fmt.Errorf("cannot give away log pipe %q: %w", path, err)
	}
	if service, err = openPipe(path, 0); err != nil {
		return nil, nil, err
	}
	if reader, err = openPipe(path, unix.O_NONBLOCK); err != nil {
		service.Close()
		return nil, nil, err
	}
	return service, reader, nil
}

// openPipe opens without os.OpenFile, which would make every pipe non-blocking; a service expects its output to block.
func openPipe(path string, flag int) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC|flag, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open log pipe %q: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}
