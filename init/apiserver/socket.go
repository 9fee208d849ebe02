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
func ListenUnix(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot make the api's socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot make the api's socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("cannot make the api's socket: %w", err)
	}
	return l, nil
}
