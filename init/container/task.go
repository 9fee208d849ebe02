package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"allotment/init/plan"
	"allotment/init/reaper"
)

// Run runs a task's container to its end, which comes by force after the task's Timeout or when ctx ends. The error wraps
// a *reaper.ExitError if the task ended with another status than 0. This process must be a subreaper (see prctl(2)), or
// no status would be known.
func (r *Runtime) Run(ctx context.Context, s *plan.Service, network string, output *os.File) error {
	if s.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.Timeout, fmt.Errorf("it did not end within %v", s.Timeout))
		defer cancel()
	}
	p, err := r.Start(ctx, s, network, output)
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		r.Kill(s)
		r.Remove(context.WithoutCancel(ctx), s)
		return fmt.Errorf("cannot run task %q to its end: %w", s.ID, context.Cause(ctx))
	}
	outOfMemory := r.Remove(context.WithoutCancel(ctx), s)
	switch {
	case outOfMemory != "":
		return fmt.Errorf("task %q failed: %s", s.ID, outOfMemory)
	case p.Err() != nil:
		return fmt.Errorf("task %q failed: %w", s.ID, p.Err())
	case !p.Child():
		return fmt.Errorf("task %q ended, and it cannot be known how", s.ID)
	}
	return nil
}

const (
	mostOutput = 4 << 10         // bytes of a command's output that Exec keeps
	execGiveUp = 5 * time.Second // for what a command has started to end by force
)

// endTasks ends the tasks of a module whose supervisor is gone: nobody waits for them, and services that stood still for
// them are started again.
func (r *Runtime) endTasks(m *plan.Module) error {
	groups, err := os.ReadDir(filepath.Join(r.config.Cgroup, m.Cgroup))
	if err != nil {
		return err
	}
	for _, g := range groups {
		s, ok := plan.Leftover(m, g.Name())
		if !ok || !g.IsDir() {
			continue
		}
		if err := r.Kill(s); err != nil {
			return err
		}
		r.Remove(context.Background(), s)
	}
	return nil
}

// Exec runs a command in the service's running container, with the service's user and rights and no more, until it ends or
// ctx does. It returns nil if the command ended with status 0, and otherwise an error with the last line that it wrote.
func (r *Runtime) Exec(ctx context.Context, s *plan.Service, command []string) error {
	var last tail
	err := r.ExecTo(ctx, s, command, &last)
	if line := last.line(); err != nil && line != "" {
		return fmt.Errorf("%w: %s", err, line)
	}
	return err
}

// ExecTo is as Exec, but what the command prints goes to output. The error wraps a *reaper.ExitError if the command ended
// with another status than 0. Whatever the command has started ends with it.
func (r *Runtime) ExecTo(ctx context.Context, s *plan.Service, command []string, output io.Writer) error {
	file, err := r.writeProcess(s, command)
	if err != nil {
		return fmt.Errorf("cannot run a command in %q: %w", s.ID, err)
	}
	defer os.Remove(file)
	out, outW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("cannot run a command in %q: %w", s.ID, err)
	}
	defer out.Close()
	defer outW.Close()
	group, err := os.MkdirTemp(r.cgroupDir(s), "exec-")
	if err != nil {
		return fmt.Errorf("cannot run a command in %q: %w", s.ID, err)
	}
	copied := make(chan struct{})
	go func() {
		io.Copy(output, out)
		close(copied)
	}()
	defer func() {
		outW.Close()
		endGroup(group)                                 // which closes the pipe
		out.SetReadDeadline(time.Now().Add(execGiveUp)) // or not, if a process hangs in the kernel
		<-copied
	}()
	p, err := r.reaper.Start(reaper.Spec{
		Path: r.config.Crun,
		Args: append(r.crunArgs("/dev/null"), "exec", "--cgroup", filepath.Base(group), "--process", file, s.ID),
		Env:  []string{defaultPath}, Stdout: outW, Stderr: outW,
	})
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.Signal(unix.SIGKILL)
		return fmt.Errorf("the command %q does not end: %w", command[0], ctx.Err())
	}
	if err := p.Err(); err != nil {
		return fmt.Errorf("the command %q failed: %w", command[0], err)
	}
	return nil
}

// writeProcess writes a process of the service with another command in the form that crun takes.
func (r *Runtime) writeProcess(s *plan.Service, command []string) (string, error) {
	process := newProcess(s)
	process.Args = command
	b, err := json.Marshal(process)
	if err != nil {
		return "", err
	}
	f, err := os.CreateTemp(r.serviceDir(s), "exec-*.json")
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	return f.Name(), errors.Join(err, f.Close())
}

// endGroup ends all that a command has started.
func endGroup(dir string) {
	ctx, cancel := context.WithTimeout(context.Background(), execGiveUp)
	defer cancel()
	_ = removeCgroup(ctx, dir) // or the service's end takes it away
}

// tail is a writer that keeps the last few KiB.
type tail struct{ kept []byte }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p[max(0, len(p)-mostOutput):]...)
	t.kept = t.kept[max(0, len(t.kept)-mostOutput):]
	return len(p), nil
}

// line is the last line that is not empty.
func (t *tail) line() string {
	text := bytes.TrimSpace(t.kept)
	return strings.ToValidUTF8(string(text[bytes.LastIndexByte(text, '\n')+1:]), "?")
}
