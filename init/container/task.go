package container

import (
	"bytes"
	"context"
	"encoding/json"
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
	checkGroup = "check"         // cgroup below the service's in which commands of Exec run
	mostOutput = 4 << 10         // bytes of a command's output that Exec keeps
	execGiveUp = 5 * time.Second // until Exec no longer waits for a command that it killed
)

// Exec runs a command in the service's running container, with the service's user and rights and no more, until it ends or
// ctx does. It returns nil if the command ended with status 0, and otherwise an error with the last line that it wrote.
// One command of a service can run at a time.
func (r *Runtime) Exec(ctx context.Context, s *plan.Service, command []string) error {
	process := newProcess(s)
	process.Args = command
	b, err := json.Marshal(process)
	if err != nil {
		return err
	}
	file := filepath.Join(r.serviceDir(s), "exec.json")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		return fmt.Errorf("cannot run a command in %q: %w", s.ID, err)
	}
	group := filepath.Join(r.cgroupDir(s), checkGroup)
	if err := os.Mkdir(group, 0o755); err != nil && !os.IsExist(err) {
		return fmt.Errorf("cannot run a command in %q: %w", s.ID, err)
	}
	defer endGroup(group)
	out, outW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("cannot run a command in %q: %w", s.ID, err)
	}
	defer out.Close()
	p, err := r.reaper.Start(reaper.Spec{
		Path: r.config.Crun,
		Args: append(r.crunArgs("/dev/null"), "exec", "--cgroup", checkGroup, "--process", file, s.ID),
		Env:  []string{defaultPath}, Stdout: outW, Stderr: outW,
	})
	outW.Close()
	if err != nil {
		return err
	}
	said := make(chan string, 1)
	go func() { said <- lastLine(out) }()
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.Signal(unix.SIGKILL)
		return fmt.Errorf("the command %q does not end: %w", command[0], ctx.Err())
	}
	if p.Err() == nil {
		return nil
	}
	out.SetReadDeadline(time.Now().Add(execGiveUp)) // something that the command has started may hold the pipe
	return fmt.Errorf("the command %q failed: %w: %s", command[0], p.Err(), <-said)
}

// endGroup ends all that a command has started.
func endGroup(dir string) {
	ctx, cancel := context.WithTimeout(context.Background(), execGiveUp)
	defer cancel()
	_ = removeCgroup(ctx, dir) // or the next command finds it, and the service's end takes it away
}

// lastLine reads to the end, keeps the last few KiB, and returns the last line that is not empty.
func lastLine(from io.Reader) string {
	var kept []byte
	buf := make([]byte, mostOutput)
	for {
		n, err := from.Read(buf)
		kept = append(kept, buf[:n]...)
		kept = kept[max(0, len(kept)-mostOutput):]
		if err != nil {
			break
		}
	}
	kept = bytes.TrimSpace(kept)
	return strings.ToValidUTF8(string(kept[bytes.LastIndexByte(kept, '\n')+1:]), "?")
}
