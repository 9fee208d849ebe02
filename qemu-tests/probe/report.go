package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Report is what a service can see of its own cage.
type Report struct {
	Status     map[string]string // of /proc/self/status: ids, capabilities, seccomp, ...
	UIDMap     string
	Namespaces map[string]string
	Mounts     []string // "POINT TYPE OPTIONS"
	Devices    []string
	Limits     string
	CGroup     string
	Refused    []string          // system calls that end with EPERM or ENOSYS whatever their arguments
	Allowed    []string          // those that do not
	Sysctls    map[string]string // by name; those that can be read
}

func report(args []string) (string, error) {
	r := Report{Status: map[string]string{}, Namespaces: map[string]string{}, Sysctls: map[string]string{}}
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		k, v, _ := strings.Cut(s.Text(), ":")
		r.Status[k] = strings.TrimSpace(v)
	}
	r.UIDMap = oneLine("/proc/self/uid_map")
	r.CGroup = oneLine("/proc/self/cgroup")
	spaces, _ := filepath.Glob("/proc/self/ns/*")
	for _, s := range spaces {
		r.Namespaces[filepath.Base(s)], _ = os.Readlink(s)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 3 {
			r.Mounts = append(r.Mounts, f[1]+" "+f[2]+" "+f[3])
		}
	}
	devices, _ := os.ReadDir("/dev")
	for _, d := range devices {
		r.Devices = append(r.Devices, d.Name())
	}
	r.Refused, r.Allowed = tryCalls()
	for _, name := range args {
		if b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/")); err == nil {
			r.Sysctls[name] = strings.TrimSpace(string(b))
		}
	}
	b, err := json.Marshal(r)
	return string(b), err
}

func oneLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(string(b)), " ")
}

// tryCalls makes system calls with arguments that mean nothing. A call that the filter lets through fails otherwise than
// with EPERM, or is refused for want of a capability; both are no use to a service, so they are not told apart.
func tryCalls() (refused, allowed []string) {
	const bad = ^uintptr(0) // an address that nothing can be at, and a file descriptor that nothing is
	for _, c := range calls() {
		_, _, errno := unix.Syscall6(c.number, bad, bad, bad, bad, bad, bad)
		if errno == unix.EPERM || errno == unix.ENOSYS {
			refused = append(refused, c.name)
		} else {
			allowed = append(allowed, fmt.Sprintf("%s (%s)", c.name, unix.ErrnoName(errno)))
		}
	}
	return refused, allowed
}

type namedCall struct {
	name   string
	number uintptr
}

// calls are those that containers are commonly broken out of with.
func calls() []namedCall {
	return []namedCall{
		{"acct", unix.SYS_ACCT}, {"add_key", unix.SYS_ADD_KEY}, {"bpf", unix.SYS_BPF},
		{"chroot", unix.SYS_CHROOT}, {"clock_settime", unix.SYS_CLOCK_SETTIME},
		{"delete_module", unix.SYS_DELETE_MODULE}, {"fanotify_init", unix.SYS_FANOTIFY_INIT},
		{"finit_module", unix.SYS_FINIT_MODULE}, {"fsconfig", unix.SYS_FSCONFIG}, {"fsmount", unix.SYS_FSMOUNT},
		{"fsopen", unix.SYS_FSOPEN}, {"fspick", unix.SYS_FSPICK}, {"get_mempolicy", unix.SYS_GET_MEMPOLICY},
		{"init_module", unix.SYS_INIT_MODULE}, {"io_uring_enter", unix.SYS_IO_URING_ENTER},
		{"io_uring_register", unix.SYS_IO_URING_REGISTER}, {"io_uring_setup", unix.SYS_IO_URING_SETUP},
		{"kcmp", unix.SYS_KCMP}, {"kexec_load", unix.SYS_KEXEC_LOAD}, {"keyctl", unix.SYS_KEYCTL},
		{"lookup_dcookie", unix.SYS_LOOKUP_DCOOKIE}, {"mbind", unix.SYS_MBIND}, {"mount", unix.SYS_MOUNT},
		{"mount_setattr", unix.SYS_MOUNT_SETATTR}, {"move_mount", unix.SYS_MOVE_MOUNT}, {"move_pages", unix.SYS_MOVE_PAGES},
		{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT}, {"open_tree", unix.SYS_OPEN_TREE},
		{"perf_event_open", unix.SYS_PERF_EVENT_OPEN}, {"pivot_root", unix.SYS_PIVOT_ROOT},
		{"quotactl", unix.SYS_QUOTACTL}, {"quotactl_fd", unix.SYS_QUOTACTL_FD}, {"reboot", unix.SYS_REBOOT},
		{"request_key", unix.SYS_REQUEST_KEY}, {"set_mempolicy", unix.SYS_SET_MEMPOLICY}, {"setns", unix.SYS_SETNS},
		{"settimeofday", unix.SYS_SETTIMEOFDAY}, {"swapoff", unix.SYS_SWAPOFF}, {"swapon", unix.SYS_SWAPON},
		{"syslog", unix.SYS_SYSLOG}, {"umount2", unix.SYS_UMOUNT2}, {"unshare", unix.SYS_UNSHARE},
		{"userfaultfd", unix.SYS_USERFAULTFD}, {"vhangup", unix.SYS_VHANGUP},
		{"read", unix.SYS_READ}, // lets through: shows that the list does not refuse everything
	}
}
