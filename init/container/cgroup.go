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
	dir := root
	for _, element := range strings.Split(strings.Trim(m.Cgroup, "/"), "/") {
		if err := writeControl(dir, "cgroup.subtree_control", "+cpu +memory +pids"); err != nil {
			return err
		}
		dir = filepath.Join(dir, element)
		if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
			return fmt.Errorf("cannot make a cgroup: %w", err)
		}
	}
	for _, c := range [][2]string{
		{"cgroup.subtree_control", "+cpu +memory +pids"},
		{"memory.max", strconv.FormatInt(m.MemoryMax, 10)},
		{"memory.swap.max", "0"},
		{"pids.max", strconv.FormatInt(m.PIDsMax, 10)},
		{"cpu.weight", strconv.Itoa(cpuWeight[m.Importance])},
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
