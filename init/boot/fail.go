package boot

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// failDelay is how long a person can read the reason before the reset, as panic=5 does for the kernel's own failures.
const failDelay = 5 * time.Second

// syncWait is how much longer disks may take to write what they were given; one that does not answer never ends.
const syncWait = 20 * time.Second

// stageError says in which step of the boot an error happened.
type stageError struct {
	stage string
	err   error
}

func (e *stageError) Error() string { return e.err.Error() }
func (e *stageError) Unwrap() error { return e.err }

// at names the step of an error; nil stays nil.
func at(stage string, err error) error {
	if err == nil {
		return nil
	}
	return &stageError{stage, err}
}

// failLine is the line of docs/formats/console.md. The reason is the rest of the line, whatever it holds.
func failLine(err error) string {
	stage := "unknown"
	var s *stageError
	if errors.As(err, &s) {
		stage = s.stage
	}
	reason := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, err.Error())
	return fmt.Sprintf("BOOT-FAIL stage=%s reason=%s", stage, reason)
}

// reset says on every console why and resets the machine, whatever state the disks are in.
func reset(err error) {
	line := failLine(err)
	say(line)
	logf("%s", line)
	synced := make(chan struct{})
	go func() { unix.Sync(); close(synced) }()
	time.Sleep(failDelay)
	select {
	case <-synced:
	case <-time.After(syncWait):
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	os.Exit(1) // PID 1 must not end: the kernel panics, and panic=5 resets
}

// resetOnPanic is deferred in every goroutine of PID 1.
func resetOnPanic(stage string) {
	if r := recover(); r != nil {
		logf("%s", debug.Stack())
		reset(at(stage, fmt.Errorf("panic: %v", r)))
	}
}

// say writes a line to every active console: /dev/console alone is only the last one of the command line. A console that
// does not take it, such as a serial line whose other end has stopped it, must not stop the boot.
func say(line string) {
	b, _ := os.ReadFile("/sys/class/tty/console/active")
	names := strings.Fields(string(b))
	if len(names) == 0 { // before /sys is there: what the kernel opened for init
		fmt.Fprintf(os.Stdout, "\r\n%s\r\n", line)
	}
	written := make(chan struct{}, len(names))
	for _, name := range names {
		go func() {
			writeConsole("/dev/"+name, line)
			written <- struct{}{}
		}()
	}
	limit := time.After(2 * time.Second)
	for range names {
		select {
		case <-written:
		case <-limit:
			return
		}
	}
}

func writeConsole(path, line string) {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	// A line of its own, also where a message of the kernel has left the cursor in the middle.
	if _, err := f.WriteString("\r\n" + line + "\r\n"); err == nil {
		_ = unix.IoctlSetInt(int(f.Fd()), unix.TCSBRK, 1) // wait until it is sent
	}
}

// logf writes to the kernel's log, at a level that the default console does not show.
func logf(format string, args ...any) {
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		fmt.Fprintf(f, "<7>allot-init: %s", strings.TrimRight(line, "\n"))
	}
}
