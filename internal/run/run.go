// Package run starts programs of the host on behalf of the builder and turns their failure into one readable error.
package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Command is a program to run to its end.
type Command struct {
	Name   string   // path or name
	Args   []string // without the name
	Dir    string
	Env    []string // variables beside those that programs have there anyway, NAME=value
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
	cmd.Env = os.Environ()
	return Wait(ctx, cmd, c)
}

// Wait runs cmd, which is prepared to run c's program with ctx; the error carries the last lines that it printed, or is
// that of ctx. Cancelling ctx sends SIGTERM to the whole process group, and SIGKILL after five seconds. The program is killed
// when this process ends.
func Wait(ctx context.Context, cmd *exec.Cmd, c Command) error {
	cmd.Dir, cmd.Stdin = c.Dir, c.Stdin
	cmd.Env = append(cmd.Env, c.Env...)
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
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	// The kernel sends Pdeathsig when the thread ends that started the program, so this one must stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Run()
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("cannot run %s: %w", c.Name, ctx.Err())
	}
	if err != nil {
		return fmt.Errorf("cannot run %s: %w%s", c.Name, err, tail(said.String()))
	}
	return nil
}

// EndWithCaller has the kernel end this process when the one ends that started it: go test passes no SIGTERM on to the tests
// that it runs.
func EndWithCaller() error {
	caller := os.Getppid()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		return fmt.Errorf("cannot end with the caller: %w", err)
	}
	if os.Getppid() != caller { // it ended before the kernel was asked
		return errors.New("the caller has ended")
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
