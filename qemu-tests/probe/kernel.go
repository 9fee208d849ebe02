package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func kernelAttempts() []attempt {
	return []attempt{
		{"mount", func([]string) (string, error) { return "mounted", unix.Mount("none", "/tmp", "tmpfs", 0, "") }},
		{"mount-proc", func([]string) (string, error) { return "mounted", unix.Mount("none", "/tmp", "proc", 0, "") }},
		{"mount-cgroup", func([]string) (string, error) { return "mounted", unix.Mount("none", "/tmp", "cgroup2", 0, "") }},
		{"remount-root", func([]string) (string, error) {
			return "writable", unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND, "")
		}},
		{"umount", func(args []string) (string, error) { return "unmounted", unix.Unmount(args[0], unix.MNT_DETACH) }},
		{"fsopen", func([]string) (string, error) { return opened(unix.Fsopen("tmpfs", 0)) }},
		{"open-tree", func([]string) (string, error) {
			return opened(unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE))
		}},
		{"chroot", func([]string) (string, error) { return "changed", unix.Chroot("/tmp") }},
		{"pivot-root", func([]string) (string, error) { return "changed", unix.PivotRoot("/tmp", "/tmp") }},
		{"handle", openByHandle},
		{"unshare-user", func([]string) (string, error) { return "made", unix.Unshare(unix.CLONE_NEWUSER) }},
		{"unshare-net", func([]string) (string, error) { return "made", unix.Unshare(unix.CLONE_NEWNET) }},
		{"unshare-mount", func([]string) (string, error) { return "made", unix.Unshare(unix.CLONE_NEWNS) }},
		{"setns", setns},
		{"trace-child", traceChild},
		{"trace", func(args []string) (string, error) { return withNumber(args, unix.PtraceSeize) }},
		{"read-memory", func(args []string) (string, error) {
			return withNumber(args, func(pid int) error { return readMemory(pid) })
		}},
		{"signal", func(args []string) (string, error) {
			return withNumber(args, func(pid int) error { return unix.Kill(pid, unix.SIGCONT) })
		}},
		{"processes", func([]string) (string, error) { return processes(), nil }},
		{"init-module", func([]string) (string, error) { return "loaded", unix.InitModule([]byte("x"), "") }},
		{"finit-module", finitModule},
		{"delete-module", func([]string) (string, error) { return "removed", unix.DeleteModule("nothing", unix.O_NONBLOCK) }},
		{"bpf-map", bpfMap},
		{"bpf-socket-filter", bpfProgram},
		{"keyctl", func([]string) (string, error) {
			id, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, true)
			return fmt.Sprint(id), err
		}},
		{"add-key", func([]string) (string, error) {
			id, err := unix.AddKey("user", "probe", []byte("x"), unix.KEY_SPEC_PROCESS_KEYRING)
			return fmt.Sprint(id), err
		}},
		{"userfaultfd", call(unix.SYS_USERFAULTFD, unix.O_CLOEXEC)},
		{"io-uring", ioURing},
		{"perf", perf},
		{"clock", setClock},
		{"hostname", func([]string) (string, error) { return "set", unix.Sethostname([]byte("probe")) }},
		{"reboot", func([]string) (string, error) { return "asked", unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_ON) }},
		{"swapoff", call(unix.SYS_SWAPOFF)},
		{"kernel-log", func([]string) (string, error) {
			n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, make([]byte, 64))
			return fmt.Sprint(n), err
		}},
		{"kexec", call(unix.SYS_KEXEC_LOAD)},
		{"acct", call(unix.SYS_ACCT)},
		{"quotactl", call(unix.SYS_QUOTACTL, 0x80000100)},
		{"fanotify", call(unix.SYS_FANOTIFY_INIT)},
		{"priority", func([]string) (string, error) { return "raised", unix.Setpriority(unix.PRIO_PROCESS, 0, -10) }},
		{"setuid", func(args []string) (string, error) { return withNumber(args, unix.Setuid) }},
		{"more-files", func([]string) (string, error) {
			return "raised", unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20})
		}},
		{"privileges-back", func([]string) (string, error) {
			return "back", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0)
		}},
		{"tty-input", func([]string) (string, error) {
			x := byte('x')
			_, _, errno := unix.Syscall(unix.SYS_IOCTL, 0, unix.TIOCSTI, uintptr(unsafe.Pointer(&x)))
			return "typed", failed(errno)
		}},
	}
}

func failed(errno unix.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

func opened(fd int, err error) (string, error) {
	if err != nil {
		return "", err
	}
	return "opened", unix.Close(fd)
}

// call makes a system call with up to three arguments. One that gets as far as looking at them has worked for us.
func call(number uintptr, args ...uintptr) func([]string) (string, error) {
	args = append(args, 0, 0, 0)
	return func([]string) (string, error) {
		_, _, errno := unix.Syscall6(number, args[0], args[1], args[2], 0, 0, 0)
		return "called", failed(errno)
	}
}

func withNumber(args []string, do func(int) error) (string, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	return "done", do(n)
}

func readMemory(pid int) error {
	b := make([]byte, 8)
	_, err := unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &b[0], Len: 8}}, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}, 0)
	return err
}

// processes lists every process number below 70000 that a signal would reach.
func processes() string {
	var all []string
	for pid := 1; pid < 70000; pid++ {
		if err := unix.Kill(pid, 0); err != unix.ESRCH {
			name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			all = append(all, strings.TrimSpace(string(name)))
		}
	}
	return strings.Join(all, " ")
}

func openByHandle([]string) (string, error) {
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, "/data", 0)
	if err != nil {
		h = unix.NewFileHandle(0x4d, make([]byte, 20))
	}
	root, err := os.Open("/")
	if err != nil {
		return "", err
	}
	defer root.Close()
	return opened(unix.OpenByHandleAt(int(root.Fd()), h, unix.O_RDONLY))
}

// traceChild begins to trace a process of its own.
func traceChild([]string) (string, error) {
	child, err := os.StartProcess("/proc/self/exe", []string{"probe", "sleep"}, &os.ProcAttr{})
	if err != nil {
		return "", err
	}
	err = unix.PtraceSeize(child.Pid)
	child.Kill()
	child.Wait()
	return "traced", err
}

func setns([]string) (string, error) {
	f, err := os.Open("/proc/1/ns/mnt")
	if err != nil {
		return "", err
	}
	defer f.Close()
	return "joined", unix.Setns(int(f.Fd()), 0)
}

func finitModule([]string) (string, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer f.Close()
	return "loaded", unix.FinitModule(int(f.Fd()), "", 0)
}

// bpfMap makes an array map (bpf(2), BPF_MAP_CREATE).
func bpfMap([]string) (string, error) {
	attr := struct{ kind, key, value, entries, flags uint32 }{2, 4, 4, 1, 0}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return "", errno
	}
	return "made", unix.Close(int(fd))
}

// bpfProgram loads a socket filter that returns 0 (bpf(2), BPF_PROG_LOAD).
func bpfProgram([]string) (string, error) {
	code := []uint64{0xb7, 0x95} // r0 = 0; exit
	licence := []byte("GPL\x00")
	attr := struct {
		kind, count uint32
		code, lic   uint64
		rest        [12]uint64
	}{kind: 1, count: 2, code: uint64(uintptr(unsafe.Pointer(&code[0]))), lic: uint64(uintptr(unsafe.Pointer(&licence[0])))}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, 5, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return "", errno
	}
	return "loaded", unix.Close(int(fd))
}

func ioURing([]string) (string, error) {
	var params [120]byte
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return "", errno
	}
	return "made", unix.Close(int(fd))
}

func perf([]string) (string, error) {
	attr := &unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK,
		Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
	return opened(unix.PerfEventOpen(attr, 0, -1, -1, 0))
}

func setClock([]string) (string, error) {
	now := time.Now()
	ts := unix.NsecToTimespec(now.UnixNano())
	return "set", unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
}
