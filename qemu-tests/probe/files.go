package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func fileAttempts() []attempt {
	return []attempt{
		{"read", func(args []string) (string, error) {
			b, err := os.ReadFile(args[0])
			return string(b[:min(len(b), 4096)]), err
		}},
		{"write", func(args []string) (string, error) { return "written", writeInto(args[0], args[1]) }},
		{"create", func(args []string) (string, error) { return "made", os.WriteFile(args[0], []byte("probe"), 0o644) }},
		{"link", func(args []string) (string, error) { return "made", os.Symlink(args[0], args[1]) }},
		{"list", list},
		{"device", makeDevice},
		{"run", func(args []string) (string, error) {
			b, err := exec.Command(args[0], args[1:]...).CombinedOutput()
			return string(b), err
		}},
		{"ids", func([]string) (string, error) { return fmt.Sprintf("%d %d", os.Getuid(), os.Geteuid()), nil }},
		{"setuid-copy", setuidCopy},
		{"xattr", func(args []string) (string, error) {
			return "set", unix.Setxattr(args[0], args[1], []byte("1"), 0)
		}},
		{"get-xattr", func(args []string) (string, error) {
			b := make([]byte, 256)
			n, err := unix.Getxattr(args[0], args[1], b)
			return string(b[:max(n, 0)]), err
		}},
		{"find", find},
		{"remove", func(args []string) (string, error) { return "removed", os.Remove(args[0]) }},
		{"subvolume", makeSubvolume},
	}
}

// writeInto writes to a file that must exist, as one does with those below /proc.
func writeInto(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}

func list(args []string) (string, error) {
	entries, err := os.ReadDir(args[0])
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " "), err
}

// makeDevice makes the device node PATH of the disk MAJOR MINOR and reads from it.
func makeDevice(args []string) (string, error) {
	major, _ := strconv.Atoi(args[1])
	minor, _ := strconv.Atoi(args[2])
	if err := unix.Mknod(args[0], unix.S_IFBLK|0o600, int(unix.Mkdev(uint32(major), uint32(minor)))); err != nil {
		return "", err
	}
	defer os.Remove(args[0])
	f, err := os.Open(args[0])
	if err != nil {
		return "made, but not opened", err
	}
	defer f.Close()
	_, err = f.Read(make([]byte, 512))
	return "read", err
}

// makeSubvolume makes a subvolume of btrfs in the folder (BTRFS_IOC_SUBVOL_CREATE), which no quota would hold for.
func makeSubvolume(args []string) (string, error) {
	folder, err := os.Open(args[0])
	if err != nil {
		return "", err
	}
	defer folder.Close()
	var request [4096]byte // struct btrfs_ioctl_vol_args: a file descriptor, and from byte 8 on the name
	copy(request[8:], "probe")
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, folder.Fd(), 0x5000940e, uintptr(unsafe.Pointer(&request)))
	return "made", failed(errno)
}

// setuidCopy makes a copy of this program in the folder that sets its owner's id, and runs it.
func setuidCopy(args []string) (string, error) {
	at := filepath.Join(args[0], "setuid")
	os.Remove(at)
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := os.Create(at)
	if err != nil {
		return "", err
	}
	defer os.Remove(at)
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return "", err
	}
	if err := os.Chmod(at, 0o755|fs.ModeSetuid); err != nil {
		return "", err
	}
	b, err := exec.Command(at, "try", "ids").CombinedOutput()
	return string(b), err
}

// find looks for files that contain the text, in all that can be read.
func find(args []string) (string, error) {
	var found []string
	filepath.WalkDir("/", func(path string, e fs.DirEntry, err error) error {
		switch {
		case path == "/proc" || path == "/usr" || path == "/dev":
			return fs.SkipDir
		case err != nil || !e.Type().IsRegular():
			return nil
		}
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), args[0]) {
			found = append(found, path)
		}
		return nil
	})
	if found == nil {
		return "", unix.ENOENT
	}
	return strings.Join(found, " "), nil
}

// openFiles lists the files that this process has open.
func openFiles() []string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return []string{err.Error()}
	}
	var all []string
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil {
			continue // that of ReadDir itself
		}
		all = append(all, e.Name()+" "+to)
	}
	return all
}
