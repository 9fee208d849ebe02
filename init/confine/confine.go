// Package confine takes from the calling process what a program that speaks with strangers does not need: it must not
// be root, can gain no privileges, can open no files but those of few folders, run no programs, and listen on no
// further ports. See docs/decisions/0009-landlock-not-seccomp.md.
package confine

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Self confines the process to reading the files below folder, and changing those below the data folders, where files
// cannot be renamed from one folder to another; and it makes the garbage collector work harder near memory, in bytes.
// It must be called before anything else is started, by a program that is built without cgo.
func Self(folder string, memory int64, data ...string) error {
	if os.Geteuid() == 0 {
		return errors.New("cannot run as root: this program needs a user of its own")
	}
	debug.SetMemoryLimit(memory)
	debug.SetGCPercent(50)
	// Inherited from the supervisor is a score that would make the kernel kill anything else before.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("0"), 0); err != nil {
		return fmt.Errorf("cannot take my place among those short of memory: %w", err)
	}
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("cannot give up new privileges: %w", errno)
	}
	if err := landlock(folder, data); err != nil {
		return fmt.Errorf("cannot give up the file system: %w", err)
	}
	return nil
}

// What landlock(7) governs: of files everything that its version 1 knows, which every later one does too, and of the
// network the use of further ports.
const (
	allFiles = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | readFiles |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	readFiles = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	dataFiles = readFiles | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_DIR
	bindTCP = unix.LANDLOCK_ACCESS_NET_BIND_TCP // since version 4, Linux 6.7
)

// landlock lets all threads read the folder's files, change those of the data folders, and nothing else.
func landlock(folder string, data []string) error {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: allFiles, Handled_access_net: bindTCP}
	rules, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return fmt.Errorf("cannot make a ruleset: %w", errno)
	}
	defer unix.Close(int(rules))
	if err := allow(rules, folder, readFiles); err != nil {
		return err
	}
	for _, d := range data {
		if err := allow(rules, d, dataFiles); err != nil {
			return err
		}
	}
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, rules, 0, 0); errno != 0 {
		return fmt.Errorf("cannot enforce the rules: %w", errno)
	}
	return nil
}

// allow adds a rule for what is below the folder.
func allow(rules uintptr, folder string, access uint64) error {
	f, err := unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open %q: %w", folder, err)
	}
	defer unix.Close(f)
	beneath := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(f)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, rules, unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&beneath)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("cannot add a rule: %w", errno)
	}
	return nil
}
