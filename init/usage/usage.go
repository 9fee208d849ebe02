// Package usage reads what the kernel tells of memory, processor time and processes, of the machine and of control groups.
package usage

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"allotment/api"
)

// Group returns what the control group at dir uses. Of a group that is not there it is nothing.
func Group(dir string) api.Usage {
	stat := fields(filepath.Join(dir, "memory.stat"))
	return api.Usage{
		Memory: number(dir, "memory.current"), Anonymous: stat["anon"], File: stat["file"],
		MemoryPeak: number(dir, "memory.peak"), MemoryMax: number(dir, "memory.max"),
		CPU: CPU(dir).Seconds(), Processes: int(number(dir, "pids.current")),
	}
}

// CPU returns the processor time that the control group at dir has used.
func CPU(dir string) time.Duration {
	return time.Duration(fields(filepath.Join(dir, "cpu.stat"))["usage_usec"]) * time.Microsecond
}

// Add is the sum of what groups use; of peaks the greatest.
func Add(a, b api.Usage) api.Usage {
	return api.Usage{
		Memory: a.Memory + b.Memory, Anonymous: a.Anonymous + b.Anonymous, File: a.File + b.File,
		MemoryPeak: max(a.MemoryPeak, b.MemoryPeak), CPU: a.CPU + b.CPU, Processes: a.Processes + b.Processes,
	}
}

// number reads a file with one number; "max" and a file that is not there are 0.
func number(dir, name string) int64 {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n
}

// fields reads a file with a name and a number on each line, such as cpu.stat or meminfo.
func fields(path string) map[string]int64 {
	out := map[string]int64{}
	b, err := os.ReadFile(path)
	if err != nil {
		return out
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		if n, err := strconv.ParseInt(f[1], 10, 64); err == nil {
			out[strings.TrimSuffix(f[0], ":")] = n
		}
	}
	return out
}

// Machine fills in what the machine has and uses; proc is /proc.
func Machine(proc string, r *api.Resources) {
	mem := fields(filepath.Join(proc, "meminfo")) // KiB
	r.Memory, r.Available = mem["MemTotal"]<<10, mem["MemAvailable"]<<10
	r.CPUs = runtime.NumCPU()
	r.CPU = busy(proc)
}

// userHZ is the unit of times in /proc, fixed on both our architectures.
const userHZ = 100

// busy is the time, in seconds, that processors did not idle: fields 1 to 8 of the first line of stat without 4 and 5,
// idle and iowait (proc_stat(5)).
func busy(proc string) float64 {
	b, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	total := 0.0
	for i, f := range strings.Fields(line) {
		if n, err := strconv.ParseFloat(f, 64); err == nil && i >= 1 && i <= 8 && i != 4 && i != 5 {
			total += n
		}
	}
	return total / userHZ
}

// Processes lists all processes but those of the kernel; proc is /proc. A module's are told by their control group, which
// is /allotment/MODULE/SERVICE.
func Processes(proc string) ([]api.Process, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("cannot list the processes: %w", err)
	}
	var out []api.Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, ok := process(filepath.Join(proc, e.Name()), pid); ok {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b api.Process) int { return a.PID - b.PID })
	return out, nil
}

// process reads what the folder of a process tells; false if it is the kernel's or has ended.
func process(dir string, pid int) (api.Process, bool) {
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return api.Process{}, false
	}
	p := api.Process{PID: pid}
	user := false
	for lines := bufio.NewScanner(bytes.NewReader(status)); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Name":
			p.Command = value
		case "PPid":
			p.Parent, _ = strconv.Atoi(value)
		case "VmRSS": // which only processes with memory of their own have
			kib, _ := strconv.ParseInt(strings.TrimSuffix(value, " kB"), 10, 64)
			p.Memory, user = kib<<10, true
		}
	}
	if line, err := os.ReadFile(filepath.Join(dir, "cmdline")); err == nil && len(line) > 0 {
		p.Command = strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
	}
	if group, err := os.ReadFile(filepath.Join(dir, "cgroup")); err == nil {
		p.Module, p.Service = owner(strings.TrimSpace(string(group)))
	}
	return p, user
}

// owner tells whose the control group is, as /proc/PID/cgroup names it.
func owner(group string) (module, service string) {
	rest, ok := strings.CutPrefix(group, "0::/allotment/")
	if !ok {
		return "", ""
	}
	parts := strings.Split(rest, "/")
	if len(parts) < 2 {
		return parts[0], ""
	}
	return parts[0], parts[1]
}
