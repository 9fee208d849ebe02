package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"allotment/init/plan"
)

// limitModule makes the module's cgroup with its limits, which hold for all its services together.
func limitModule(root string, m *plan.Module) error {
	if err := Limit(root, m.Cgroup, m.MemoryMax, m.PIDsMax, m.CPUWeight); err != nil {
		return err
	}
	dir := filepath.Join(root, m.Cgroup)
	// The file is there only while the kernel has the BFQ scheduler; without it the disk is not shared out.
	err := writeControl(dir, ioWeight, strconv.Itoa(m.IOWeight))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return writeControl(dir, "cgroup.subtree_control", controllers)
}

// controllers are those that limit modules, as cgroup.subtree_control takes them.
const controllers = "+cpu +io +memory +pids"

// ioWeight is BFQ's. The kernel's own io.weight belongs to the controller iocost, which needs a model of every disk.
const ioWeight = "io.bfq.weight"

// ShareDisks has the disks in the folder sys, such as /sys/block, shared out among modules by their weights. Disks are
// those with a device of their own.
func ShareDisks(sys string) error {
	schedulers, err := filepath.Glob(filepath.Join(sys, "*", "queue", "scheduler"))
	if err != nil {
		return err
	}
	var errs []error
	for _, file := range schedulers {
		if _, err := os.Stat(filepath.Join(filepath.Dir(file), "..", "device")); err != nil {
			continue // such as a device-mapper target
		}
		if err := os.WriteFile(file, []byte("bfq"), 0); err != nil {
			errs = append(errs, fmt.Errorf("cannot share out a disk: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Limit makes the cgroup of that path below root, with at most memory bytes and pids processes in it and all below it, and
// with that weight where CPU time is short.
func Limit(root, path string, memory, pids int64, weight int) error {
	dir := root
	for _, element := range strings.Split(strings.Trim(path, "/"), "/") {
		if err := writeControl(dir, "cgroup.subtree_control", controllers); err != nil {
			return err
		}
		dir = filepath.Join(dir, element)
		if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
			return fmt.Errorf("cannot make a cgroup: %w", err)
		}
	}
	for _, c := range [][2]string{
		{"memory.max", strconv.FormatInt(memory, 10)},
		{"memory.swap.max", "0"},
		{"pids.max", strconv.FormatInt(pids, 10)},
		{"cpu.weight", strconv.Itoa(weight)},
	} {
		if err := writeControl(dir, c[0], c[1]); err != nil {
			return err
		}
	}
	return nil
}

func writeControl(dir, name, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("cannot set a limit: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteString(value); err != nil {
		return fmt.Errorf("cannot set limit %q: %w", value, err)
	}
	return nil
}

// outOfMemory says whose limit it was if the kernel killed processes of the service for want of memory.
func (r *Runtime) outOfMemory(s *plan.Service) string {
	own := r.cgroupDir(s)
	switch {
	case countOf(own, "memory.events", "oom_kill") == 0:
		return ""
	case countOf(own, "memory.events.local", "oom") > 0:
		return fmt.Sprintf("%s needed more than its %d MiB of memory", s.ID, s.MemoryMax>>20)
	case countOf(filepath.Dir(own), "memory.events.local", "oom") > 0:
		return fmt.Sprintf("the services of %s needed more than its %d MiB of memory together",
			s.Module.Name, s.Module.MemoryMax>>20)
	}
	return "the box ran out of memory"
}

// countOf reads one number of a cgroup's file of lines such as "oom_kill 1"; 0 if there is none.
func countOf(dir, file, name string) int64 {
	b, _ := os.ReadFile(filepath.Join(dir, file))
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, name+" "); ok {
			count, _ := strconv.ParseInt(strings.TrimSpace(n), 10, 64)
			return count
		}
	}
	return 0
}

// removeCgroup ends what still runs in the cgroup, and takes it away with those below it if that works before ctx ends.
func removeCgroup(ctx context.Context, dir string) error {
	for {
		if err := rmdirAll(dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err := writeControl(dir, "cgroup.kill", "1"); err != nil {
			return err
		}
		if err := awaitEmpty(ctx, dir); err != nil {
			return fmt.Errorf("cannot empty cgroup %q: %w", dir, err)
		}
	}
}

// rmdirAll removes folders only: the files of a cgroup go with it.
func rmdirAll(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := rmdirAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return unix.Rmdir(dir)
}

// emptyPoll is how often awaitEmpty looks at ctx while the kernel has no news.
const emptyPoll = 100 // milliseconds

// awaitEmpty waits until no process is left in the cgroup; the kernel tells so by an exceptional condition of the file.
func awaitEmpty(ctx context.Context, dir string) error {
	f, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		return err
	}
	defer f.Close()
	for ctx.Err() == nil {
		if countOf(dir, "cgroup.events", "populated") == 0 {
			return nil
		}
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}, emptyPoll)
		if err != nil && err != unix.EINTR {
			return err
		}
	}
	return ctx.Err()
}
