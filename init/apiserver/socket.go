package apiserver

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
)

// ListenUnix makes the API's socket at path, which only root can connect to, in place of one that an earlier supervisor
// left.
func ListenUnix(path string) (net.Listener, error) { return listen(path, 0, 0o600) }

// ListenUnixFor is ListenUnix for a group of the host, too: whose user may ask what, Config.Access says.
func ListenUnixFor(path string, group int) (net.Listener, error) { return listen(path, group, 0o660) }

func listen(path string, group int, mode fs.FileMode) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot make the api's socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot make the api's socket: %w", err)
	}
	err = os.Chmod(path, mode)
	if err == nil && group != 0 {
		err = os.Chown(path, 0, group)
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("cannot make the api's socket: %w", err)
	}
	return l, nil
}
