package boot

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	termWait = 10 * time.Second // for processes to end by themselves
	killWait = 5 * time.Second  // for the kernel to end them
)

// shutdown ends all processes, unmounts what can be unmounted and gives command to the kernel. Whatever hangs in it is
// ended by the watchdog.
func shutdown(command int, w watchdog) error {
	w.feed()
	endProcesses(unix.SIGTERM, termWait)
	endProcesses(unix.SIGKILL, killWait)
	unix.Sync()
	unmountAll()
	unix.Sync()
	return unix.Reboot(command)
}

// endProcesses sends a signal to every process but this one and waits until none is left, for a limited time.
func endProcesses(sig unix.Signal, limit time.Duration) {
	_ = unix.Kill(-1, sig)
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if !othersRun("/proc") {
			return
		}
	}
	logf("processes remain %v after %v", limit, sig)
}

// othersRun tells whether there is a process that is neither this one, nor the kernel's, nor a zombie. The kernel's
// threads have no memory map, and neither have zombies.
func othersRun(proc string) bool {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return false
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if maps, err := os.ReadFile(filepath.Join(proc, e.Name(), "maps")); err == nil && len(maps) > 0 {
			return true
		}
	}
	return false
}

// unmountAll unmounts everything that is not the kernel's own, last mount first, and makes read-only what is still used.
func unmountAll() {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		logf("%v", err)
		return
	}
	points := mountPoints(f)
	f.Close()
	for _, path := range slices.Backward(points) {
		err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
		if err != nil && err != unix.EINVAL {
			logf("cannot unmount %q: %v", path, err)
			_ = unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}
	}
}

// mountPoints lists the mount points of a mountinfo file (proc_pid_mountinfo(5)) that hold files of ours, in order.
func mountPoints(mountinfo io.Reader) []string {
	var points []string
	for lines := bufio.NewScanner(mountinfo); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 5 {
			continue
		}
		path := unescape(f[4])
		top, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
		switch top {
		case "", "dev", "proc", "sys":
		default:
			points = append(points, path)
		}
	}
	return points
}

// unescape undoes the kernel's \ooo for characters that would split a field.
func unescape(s string) string {
	for i := 0; i+3 < len(s); i++ {
		if s[i] != '\\' {
			continue
		}
		if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
			s = s[:i] + string([]byte{byte(n)}) + s[i+4:]
		}
	}
	return s
}
