// Package run starts programs of the host on behalf of the builder and turns their failure into one readable error.
package run

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Command is a program to run to its end.
type Command struct {
	Name   string   // path or name
	Args   []string // without the name
	Dir    string
	Env    []string // nil: the caller's environment
	Stdin  io.Reader
	Stdout io.Writer // nil: kept for the error message
}

// Runner runs a program by its name in an environment that has it, such as the tool root. Paths in the arguments are the
// host's.
type Runner interface {
	Run(ctx context.Context, c Command) error
}

// Host runs programs as they are found on the host's PATH.
type Host struct{}

// Run implements Runner.
func (Host) Run(ctx context.Context, c Command) error {
	cmd := exec.CommandContext(ctx, c.Name, c.Args...)
	cmd.Dir, cmd.Env, cmd.Stdin = c.Dir, c.Env, c.Stdin
	return Wait(cmd, c)
}

// Wait runs a prepared cmd; the error carries the last lines that it printed. Cancelling its context sends SIGTERM to the
// whole process group, and SIGKILL after five seconds.
func Wait(cmd *exec.Cmd, c Command) error {
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.Stdout = c.Stdout
	if c.Stdout == nil {
		cmd.Stdout = &said
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("cannot run %s: %w%s", c.Name, err, tail(said.String()))
	}
	return nil
}

// tail is the last lines of s, indented below the message that it explains.
func tail(s string) string {
	s = strings.TrimSpace(s)
	if s == "" {
		return ""
	}
	lines := strings.Split(s, "\n")
	if len(lines) > 15 {
		lines = lines[len(lines)-15:]
	}
	return "\n  " + strings.Join(lines, "\n  ")
}
