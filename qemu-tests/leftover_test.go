package qemutests

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"allotment/qemu-tests/vm"
)

// childDisk asks the test program to start a machine on that disk and to wait for its own death.
const childDisk = "ALLOT_TEST_CHILD_DISK"

func TestMachineDiesWithItsStarter(t *testing.T) {
	if disk := os.Getenv(childDisk); disk != "" {
		m := start(t, vm.Options{Dir: filepath.Dir(disk), Firmware: vm.BIOS, Memory: 64, Disk: disk})
		if _, err := m.WaitLine(t.Context(), started); err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("started\n")
		select {}
	}
	needMachines(t)
	disk := bootDisk(t)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestMachineDiesWithItsStarter$")
	cmd.Env = append(os.Environ(), childDisk+"="+disk, "TMPDIR="+t.TempDir()) // it cannot tidy up
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "started" {
	}
	if n := machinesOn(t, filepath.Dir(disk)); n == 0 {
		t.Error("no machine runs before its starter is killed")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	for end := time.Now().Add(vm.Patience(10 * time.Second)); machinesOn(t, filepath.Dir(disk)) > 0; {
		if time.Now().After(end) {
			t.Fatal("the machine outlives its starter")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	m := start(t, vm.Options{Dir: dir, Firmware: vm.BIOS, Memory: 64, Disk: bootDisk(t)})
	if machinesOn(t, dir) == 0 {
		t.Error("no machine runs")
	}
	m.Close()
	m.Close() // twice does no harm
	if n := machinesOn(t, dir); n > 0 {
		t.Errorf("%d processes are left", n)
	}
}

// machinesOn counts the processes with a folder in their command line.
func machinesOn(t *testing.T, dir string) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, file := range files {
		line, err := os.ReadFile(file) // may have gone meanwhile
		if err == nil && bytes.Contains(line, []byte("qemu-system")) && strings.Contains(string(line), dir) {
			n++
		}
	}
	return n
}
