package network

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// inside tells a copy of the test that it has namespaces of its own.
const inside = "ALLOTMENT_TEST_NAMESPACE"

// TestMain runs the tests again in a network of their own, as root of a user namespace, so that they can do what the
// device does without touching the machine. Where that is not allowed, isolated skips the tests that need it.
func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Env = append(os.Environ(), inside+"=yes")
	again.Stdout, again.Stderr = os.Stdout, os.Stderr
	flags := uintptr(syscall.CLONE_NEWNET | syscall.CLONE_NEWNS)
	if os.Getuid() != 0 {
		flags |= syscall.CLONE_NEWUSER
	}
	again.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: flags, Unshareflags: syscall.CLONE_NEWNS, // makes mounts private
	}
	if os.Getuid() != 0 {
		again.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		again.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	if err := again.Start(); err != nil {
		os.Exit(m.Run())
	}
	err := again.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		os.Exit(1)
	}
}

// isolated skips a test that needs a network of its own.
func isolated(t *testing.T) {
	t.Helper()
	if os.Getenv(inside) == "" {
		t.Skip("this machine does not allow namespaces")
	}
}
