package tools

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"allotment/internal/run"
)

// entry is what the caller tells its second self, as JSON in argv[1].
type entry struct {
	Root  string   // the unpacked tool root
	Binds []string // absolute host paths
	PID   bool     // whether there is a process namespace
}

// Run implements run.Runner: it runs a program of the tool root to its end.
func (r *Root) Run(ctx context.Context, c run.Command) error {
	cmd := r.Command(ctx, c.Name, c.Args...)
	return run.Wait(ctx, cmd, c)
}

// Command prepares a program of the tool root, found on the root's own PATH, for callers that steer it while it runs. The
// caller may set its folder, files and Cancel, and add to its environment; ExtraFiles arrive as usual. It is the leader of a process
// group, killed when the context or the caller ends, with everything that it started.
func (r *Root) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = environment()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	binds := make([]string, 0, len(r.binds))
	for _, b := range r.binds {
		abs, err := filepath.Abs(b)
		if err != nil {
			cmd.Err = fmt.Errorf("cannot find the folder of %q: %w", b, err)
			return cmd
		}
		binds = append(binds, abs)
	}
	spec, err := json.Marshal(entry{Root: r.dir, Binds: binds, PID: r.spaces.pid})
	if err != nil {
		cmd.Err = err
		return cmd
	}
	cmd.Args = append([]string{marker, string(spec), name}, args...)
	cmd.SysProcAttr = r.spaces.attributes()
	return cmd
}

// namespaces says which namespaces the host lets us have beside a mount namespace.
type namespaces struct {
	user bool // needed for the right to mount
	pid  bool // not where /proc is partly hidden, as in some containers
}

// attributes makes a child start in these namespaces.
func (n namespaces) attributes() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC,
		Setpgid:    true,
		Pdeathsig:  syscall.SIGKILL,
	}
	if n.pid {
		a.Cloneflags |= syscall.CLONE_NEWPID
	}
	if n.user {
		a.Cloneflags |= syscall.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return a
}
