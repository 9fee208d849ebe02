package tools

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// marker is the argv[0] that asks this program to enter a tool root in place of its own work.
const marker = "allot-enter-tool-root"

// exitNotEntered is the exit status when the root cannot be entered or the program not started, as with env(1).
const exitNotEntered = 125

// EnterIfAsked must be the first call of main, and of TestMain in tests that use the tool root: Root's methods start the
// calling program again with arguments that make this function run a tool. Otherwise it does nothing.
func EnterIfAsked() {
	if os.Args[0] != marker {
		return
	}
	status, err := enter(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = exitNotEntered
	}
	os.Exit(status)
}

// enter builds the root, enters it and runs the program there. Without a program it only tries whether that works.
func enter(args []string) (int, error) {
	var e entry
	if err := json.Unmarshal([]byte(args[0]), &e); err != nil {
		return 0, fmt.Errorf("cannot enter the tool root: %w", err)
	}
	if err := e.build(); err != nil {
		return 0, fmt.Errorf("cannot enter the tool root: %w", err)
	}
	if len(args) == 1 {
		return 0, nil
	}
	unix.Umask(0o022) // the caller's would be seen in what maintainer scripts make
	path, err := exec.LookPath(args[1])
	if err != nil {
		return 0, fmt.Errorf("cannot find %q in the tool root: %w", args[1], errors.Unwrap(err))
	}
	if !e.PID {
		runtime.LockOSThread() // whose signal it is, and which becomes the program
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
			return 0, err
		}
		return 0, syscall.Exec(path, args[1:], os.Environ())
	}
	return supervise(path, args[1:])
}

// supervise runs a program as the process 1 of a process namespace: it hands signals on, reaps orphans, and ends with the
// program, upon which the kernel kills what is left in the namespace.
func supervise(path string, args []string) (int, error) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2)
	// Descriptors above 2 that the caller passed have no close-on-exec flag and so are inherited.
	child, err := syscall.ForkExec(path, args, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		return 0, fmt.Errorf("cannot start %q: %w", path, err)
	}
	go func() {
		for s := range signals {
			syscall.Kill(child, s.(syscall.Signal))
		}
	}()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR || pid != child && err == nil:
		case err != nil:
			return 0, fmt.Errorf("cannot wait for %q: %w", path, err)
		case status.Exited():
			return status.ExitStatus(), nil
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		}
	}
}

// environment is what tools get of variables: the same on every host, for what they make depends on many of them, as that
// of mkfs.erofs does on SOURCE_DATE_EPOCH. Of the host's own there is only the folder for temporary files.
func environment() []string {
	return []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "TZ=UTC", "PYTHONDONTWRITEBYTECODE=1",
		"TMPDIR=" + os.TempDir(),
	}
}
