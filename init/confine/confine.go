// Package confine takes from the calling process what a program that speaks with strangers does not need: it must not
// be root, can gain no privileges, can open no files but those of few folders, run no programs, and listen on no
// further ports. See docs/decisions/0009-landlock-not-seccomp.md.
package confine

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// version is that of landlock(7) which Self and To need: Linux 6.10.
const version = 5

// Supported returns an error if Self and To cannot work with the kernel that runs: the device's own can.
func Supported() error {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return fmt.Errorf("this kernel has no Landlock: %w", errno)
	}
	if v < version {
		return fmt.Errorf("this kernel has version %d of Landlock, which programs of the device need in version %d", v, version)
	}
	return nil
}

// Self confines the process to reading the files below folder, and changing those below the data folders, where files
// cannot be renamed from one folder to another; and it makes the garbage collector work harder near memory, in bytes.
// It must be called before anything else is started, by a program that is built without cgo.
func Self(folder string, memory int64, data ...string) error {
	return To(Paths{Read: []string{folder}, Write: data}, memory)
}

// To is Self for a program whose files lie in more places than one: it may read some, and change others, among which may be
// block devices. It cannot make links and devices, nor control a device otherwise than by reading and writing. All paths must be
// there, as what is not cannot be opened later either.
func To(p Paths, memory int64) error {
	if os.Geteuid() == 0 {
		return errors.New("cannot run as root: this program needs a user of its own")
	}
	if err := Supported(); err != nil {
		return err
	}
	for _, path := range slices.Concat(p.Read, p.Write) {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("cannot keep to what may be opened: %w", err)
		}
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
	if err := landlock(p); err != nil {
		return fmt.Errorf("cannot give up the file system: %w", err)
	}
	return nil
}

// What landlock(7) governs: of files everything that its version 1 knows, which every later one does too, and of the
// network the use of further ports. To governs what later versions know of files as well.
const (
	allFiles = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | readFiles |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	laterFiles = unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV // since version
	readFiles  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	dataFiles  = readFiles | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_DIR
	bindTCP = unix.LANDLOCK_ACCESS_NET_BIND_TCP // since version 4, Linux 6.7
)

// landlock lets all threads read and change the files of the paths, and no others.
func landlock(p Paths) error {
	rules, err := p.rules(unix.LandlockRulesetAttr{Handled_access_fs: allFiles | laterFiles, Handled_access_net: bindTCP},
		readFiles, dataFiles)
	if err != nil {
		return err
	}
	defer unix.Close(rules)
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(rules), 0, 0); errno != 0 {
		return fmt.Errorf("cannot enforce the rules: %w", errno)
	}
	return nil
}
