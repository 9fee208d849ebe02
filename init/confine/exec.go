package confine

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Paths are what a program may open: files and folders with all that is in them. Exec leaves out those that are not there.
type Paths struct {
	Read  []string // and with Exec run
	Write []string // and read
}

// Exec replaces this program by another one that can gain no privileges, opens no files but those of the paths, and is the
// first to be ended when memory runs out. It returns only if it cannot.
func Exec(program string, args, env []string, p Paths) error {
	runtime.LockOSThread() // which becomes the other program
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("900"), 0); err != nil {
		return fmt.Errorf("cannot take my place among those short of memory: %w", err)
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 19); err != nil {
		return fmt.Errorf("cannot step back behind others: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot give up new privileges: %w", err)
	}
	if err := p.enforce(); err != nil {
		return fmt.Errorf("cannot give up the file system: %w", err)
	}
	return unix.Exec(program, append([]string{program}, args...), env)
}

// enforce holds the thread to the paths; see landlock(7).
func (p Paths) enforce() error {
	rules, err := p.rules(unix.LandlockRulesetAttr{Handled_access_fs: allFiles}, readFiles|unix.LANDLOCK_ACCESS_FS_EXECUTE,
		allFiles&^unix.LANDLOCK_ACCESS_FS_EXECUTE)
	if err != nil {
		return err
	}
	defer unix.Close(rules)
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(rules), 0, 0); errno != 0 {
		return fmt.Errorf("cannot enforce the rules: %w", errno)
	}
	return nil
}

// rules is the file descriptor of a ruleset that gives the rights read and write below the paths.
func (p Paths) rules(attr unix.LandlockRulesetAttr, read, write uint64) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return 0, fmt.Errorf("cannot make a ruleset: %w", errno)
	}
	var err error
	for _, path := range p.Read {
		err = errors.Join(err, permit(int(fd), path, read))
	}
	for _, path := range p.Write {
		err = errors.Join(err, permit(int(fd), path, write))
	}
	if err != nil {
		return 0, errors.Join(err, unix.Close(int(fd)))
	}
	return int(fd), nil
}

// ofFiles are the rights that a file can have, which are fewer than those of a folder.
const ofFiles = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE |
	unix.LANDLOCK_ACCESS_FS_TRUNCATE

func permit(rules int, path string, access uint64) error {
	f, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot open %q: %w", path, err)
	}
	defer unix.Close(f)
	var st unix.Stat_t
	if err := unix.Fstat(f, &st); err != nil {
		return fmt.Errorf("cannot look at %q: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= ofFiles
	}
	beneath := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(f)}
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&beneath)), 0, 0, 0); errno != 0 {
		return fmt.Errorf("cannot add a rule for %q: %w", path, errno)
	}
	return nil
}
