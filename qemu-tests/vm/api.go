package vm

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"allotment/api"
)

// API is a client of the system's API, through the machine's virtio port. Its requests wait until the system answers.
func (v *VM) API() *api.Client { return v.api }

// APISocket is the host's end of that port, for clients of their own; it has one at a time.
func (v *VM) APISocket() string { return apiFile(v.opts.Dir) }

// Share offers the machine's API to other programs of this user, under a name that Find knows, until stop. Where the
// name is taken, a number is added.
func (v *VM) Share(name string) (shared string, stop func(), err error) {
	dir, err := sharedFolder()
	if err != nil {
		return "", nil, err
	}
	l, shared, err := listenFree(dir, name)
	if err != nil {
		return "", nil, fmt.Errorf("cannot offer the api of machine %q: %w", name, err)
	}
	s := api.ProxyServer(v.api)
	go s.Serve(l)
	return shared, func() { s.Close() }, nil
}

const sharedSuffix = ".sock"

// sharedFolder is where the sockets of running machines lie. Nobody else may write there.
func sharedFolder() (string, error) {
	base := os.Getenv("XDG_RUNTIME_DIR")
	if base == "" {
		base = os.TempDir()
	}
	dir := filepath.Join(base, fmt.Sprintf("allotment-machines-%d", os.Getuid()))
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("cannot keep the sockets of machines: %w", err)
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("cannot keep the sockets of machines: %w", err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !ok || !st.IsDir() || int(sys.Uid) != os.Getuid() || st.Mode().Perm() != 0o700 {
		return "", fmt.Errorf("cannot keep the sockets of machines in %q: others can write there", dir)
	}
	return dir, nil
}

// listenFree listens on the first name that no running machine has.
func listenFree(dir, name string) (net.Listener, string, error) {
	for i := 1; ; i++ {
		free := name
		if i > 1 {
			free = fmt.Sprintf("%s-%d", name, i)
		}
		path := filepath.Join(dir, free+sharedSuffix)
		if answers(path) {
			continue
		}
		os.Remove(path) // of a machine that ended without having its say
		l, err := net.Listen("unix", path)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		return l, free, err
	}
}

func answers(path string) bool {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Find returns the socket by which a running machine of this user shares its API: that of the name, or of the newest if
// name is empty.
func Find(name string) (string, error) {
	dir, err := sharedFolder()
	if err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("cannot look for machines: %w", err)
	}
	var newest string
	var since time.Time
	var names []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		st, err := e.Info()
		if err != nil || !answers(path) {
			continue
		}
		this := strings.TrimSuffix(e.Name(), sharedSuffix)
		names = append(names, this)
		if this == name || name == "" && st.ModTime().After(since) {
			newest, since = path, st.ModTime()
		}
	}
	switch {
	case newest != "":
		return newest, nil
	case len(names) == 0:
		return "", errors.New("no machine runs; start one with allot run")
	}
	return "", fmt.Errorf("no machine %q runs, but: %s", name, strings.Join(names, ", "))
}
