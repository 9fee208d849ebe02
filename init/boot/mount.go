package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// newRoot is where the first stage mounts the root.
const newRoot = "/sysroot"

// mount is one mount of the plan. Flags are those of mount(2).
type mount struct {
	kind, path string
	flags      uintptr
	options    string
}

// earlyMounts are made in the initramfs and move to the root.
var earlyMounts = []mount{
	{"proc", "/proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"sysfs", "/sys", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"devtmpfs", "/dev", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0755"},
	{"tmpfs", "/run", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755,size=25%"},
}

// lateMounts are made on the root.
var lateMounts = []mount{
	{"devpts", "/dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666"},
	{"tmpfs", "/dev/shm", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "mode=1777,size=25%"},
	{"tmpfs", "/tmp", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "mode=1777,size=25%"},
	{"cgroup2", "/sys/fs/cgroup", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "nsdelegate,memory_recursiveprot"},
}

// optionalMounts are made where the kernel has a mount point for them. The EFI variables are read-only: what must write
// them says so with a remount.
var optionalMounts = []mount{
	{"securityfs", "/sys/kernel/security", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"pstore", "/sys/fs/pstore", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"efivarfs", "/sys/firmware/efi/efivars", unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
}

func mountAll(mounts []mount) error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.path, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.path, m.kind, m.flags, m.options); err != nil {
			return fmt.Errorf("cannot mount %s on %q: %w", m.kind, m.path, err)
		}
	}
	return nil
}

func mountEarly() error {
	if err := mountAll(earlyMounts); err != nil {
		return err
	}
	openConsole()
	return nil
}

func mountLate() error {
	if err := mountAll(lateMounts); err != nil {
		return err
	}
	for _, m := range optionalMounts {
		if _, err := os.Stat(m.path); err != nil {
			continue
		}
		if err := mountAll([]mount{m}); err != nil {
			logf("%v", err)
		}
	}
	return enableControllers("/sys/fs/cgroup")
}

// openConsole connects the standard descriptors to the console, or to nothing on a machine without one. A panic's trace
// goes there.
func openConsole() {
	for _, path := range []string{"/dev/console", "/dev/null"} {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			continue
		}
		for std := range 3 {
			if fd != std {
				_ = unix.Dup3(fd, std, 0)
			}
		}
		if fd > 2 {
			unix.Close(fd)
		}
		return
	}
}

// enableControllers lets groups below root bound what they use, as far as the kernel can.
func enableControllers(root string) error {
	have, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("cannot list the cgroup controllers: %w", err)
	}
	known := " " + strings.Join(strings.Fields(string(have)), " ") + " "
	for _, c := range []string{"cpu", "cpuset", "io", "memory", "pids"} {
		if !strings.Contains(known, " "+c+" ") {
			return fmt.Errorf("the kernel lacks cgroup controller %q", c)
		}
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
			return fmt.Errorf("cannot enable cgroup controller %q: %w", c, err)
		}
	}
	return nil
}

// switchRoot makes newRoot the root of this process and of the kernel's threads, and frees the initramfs's memory.
func switchRoot() error {
	old, err := os.OpenRoot("/")
	if err != nil {
		return err
	}
	defer old.Close()
	for _, m := range earlyMounts {
		if err := unix.Mount(m.path, newRoot+m.path, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("cannot move %q to the root: %w", m.path, err)
		}
	}
	if err := unix.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("cannot move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	if err := empty(old); err != nil {
		return fmt.Errorf("cannot empty the initramfs: %w", err)
	}
	return nil
}

// empty removes all files of a file system in memory. It refuses to work on anything else.
func empty(root *os.Root) error {
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &fs); err != nil {
		return err
	}
	if fs.Type != unix.TMPFS_MAGIC && fs.Type != unix.RAMFS_MAGIC {
		return errors.New("it is not in memory")
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := root.RemoveAll(name); err != nil {
			return err
		}
	}
	return nil
}
