package usage

import (
	"os"
	"path/filepath"
	"testing"

	"allotment/api"
)

// folder makes a folder of files by their paths.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestGroup(t *testing.T) {
	dir := folder(t, map[string]string{
		"memory.current": "300\n", "memory.peak": "500\n", "memory.max": "max\n", "pids.current": "7\n",
		"memory.stat": "anon 100\nfile 200\nkernel 3\n", "cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
	})
	want := api.Usage{Memory: 300, Anonymous: 100, File: 200, MemoryPeak: 500, CPU: 2.5, Processes: 7}
	if got := Group(dir); got != want {
		t.Errorf("got %+v", got)
	}
	if got := Group(filepath.Join(dir, "gone")); got != (api.Usage{}) {
		t.Errorf("of no group: %+v", got)
	}
	want = api.Usage{Memory: 600, Anonymous: 200, File: 400, MemoryPeak: 500, CPU: 5, Processes: 14}
	if got := Add(Group(dir), Group(dir)); got != want {
		t.Errorf("the sum is %+v", got)
	}
}

func TestMachine(t *testing.T) {
	dir := folder(t, map[string]string{
		"meminfo": "MemTotal:        1000 kB\nMemFree: 1 kB\nMemAvailable:    400 kB\n",
		"stat":    "cpu  100 1 50 9000 800 3 6 40 9 9\ncpu0 1 1 1 1\n",
	})
	var r api.Resources
	if Machine(dir, &r); r.Memory != 1000<<10 || r.Available != 400<<10 || r.CPU != 2 || r.CPUs == 0 {
		t.Errorf("got %+v", r)
	}
}

func TestProcesses(t *testing.T) {
	dir := folder(t, map[string]string{
		"7/status":  "Name:\tkthreadd\nPPid:\t0\n",
		"9/status":  "Name:\tnginx\nPPid:\t1\nVmRSS:\t    12 kB\n",
		"9/cmdline": "nginx: worker\x00-g\x00",
		"9/cgroup":  "0::/allotment/web/nginx/check\n",
		"10/status": "Name:\tallot-gateway\nPPid:\t1\nVmRSS:\t    8 kB\n",
		"10/cgroup": "0::/allotment-gateway\n",
		"self/x":    "",
	})
	all, err := Processes(dir)
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	want := api.Process{PID: 9, Parent: 1, Module: "web", Service: "nginx", Command: "nginx: worker -g", Memory: 12 << 10}
	if all[0] != want {
		t.Errorf("got %+v", all[0])
	}
	if all[1].Module != "" || all[1].Command != "allot-gateway" {
		t.Errorf("got %+v", all[1])
	}
}
