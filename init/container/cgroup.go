package container

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"allotment/init/plan"
)

// cpuWeight shares out CPU time when it is short; 100 is the kernel's default.
var cpuWeight = map[plan.Importance]int{plan.Core: 200, plan.Normal: 100, plan.Optional: 50}

// limitModule makes the module's cgroup with its limits, which hold for all its services together.
func limitModule(root string, m *plan.Module) error {
	if err := Limit(root, m.Cgroup, m.MemoryMax, m.PIDsMax, cpuWeight[m.Importance]); err != nil {
		return err
	}
	return writeControl(filepath.Join(root, m.Cgroup), "cgroup.subtree_control", controllers)
}

// controllers are those that limit modules, as cgroup.subtree_control takes them.
const controllers = "+cpu +memory +pids"

// Limit makes the cgroup of that path below root, with at most memory bytes and pids processes in it and all below it.
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

// outOfMemory tells whether the kernel killed processes of the cgroup for want of memory.
func outOfMemory(dir string) bool {
	b, _ := os.ReadFile(filepath.Join(dir, "memory.events"))
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strings.TrimSpace(n) != "0"
		}
	}
	return false
}
