package vm

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"allotment/internal/run"
)

// Tools is where QEMU 10, its firmware and its disk tools come from: the builder's tool root.
type Tools interface {
	run.Runner
	// Command prepares a program that is started and watched here. Paths in its arguments are the host's.
	Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error)
	// Path is where a file of the tool root, named as in the root, lies on the host.
	Path(inRoot string) string
}

// Unpacked is an unpacked Debian tree whose programs are run where they lie, by the tree's own dynamic loader.
type Unpacked string

// Path implements Tools.
func (u Unpacked) Path(inRoot string) string { return filepath.Join(string(u), inRoot) }

// Command implements Tools.
func (u Unpacked) Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	lib := u.Path("/usr/lib/x86_64-linux-gnu")
	own := []string{"--library-path", lib, u.Path("/usr/bin/" + name)}
	if strings.HasPrefix(name, "qemu-system-") {
		own = append(own, "-L", u.Path("/usr/share/qemu"), "-L", u.Path("/usr/share/seabios"))
	}
	cmd := exec.CommandContext(ctx, filepath.Join(lib, "ld-linux-x86-64.so.2"), append(own, args...)...)
	cmd.Env = append(os.Environ(), "QEMU_MODULE_DIR="+filepath.Join(lib, "qemu"))
	return cmd, nil
}

// Run implements Tools.
func (u Unpacked) Run(ctx context.Context, c run.Command) error {
	cmd, err := u.Command(ctx, c.Name, c.Args...)
	if err != nil {
		return err
	}
	cmd.Dir, cmd.Stdin = c.Dir, c.Stdin
	return run.Wait(cmd, c)
}
