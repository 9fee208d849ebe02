package tools

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// host is where the host's root is while the new one is built.
const host = "/.host"

// build makes the calling process's root a new one, put together in a tmpfs from the tool root and the host. The process
// has a mount namespace of its own.
func (e entry) build() error {
	work, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("cannot find the working folder: %w", err)
	}
	if err := leaveHostRoot(); err != nil {
		return err
	}
	binds, err := e.hostPaths(work)
	if err != nil {
		return err
	}
	if e.Root != "" {
		if err := mirror(filepath.Join(host, e.Root), "/", binds); err != nil {
			return err
		}
	}
	if err := e.system(); err != nil {
		return err
	}
	for _, b := range binds {
		if err := bindHost(b); err != nil {
			return err
		}
	}
	if err := unix.Unmount(host, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("cannot let go of the host's root: %w", err)
	}
	if err := os.Chdir(work); err != nil { // as in "/", or in a folder of the system, where nothing of the host is
		return os.Chdir("/")
	}
	return nil
}

// leaveHostRoot makes a new tmpfs the root and keeps the host's below it.
func leaveHostRoot() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot make mounts private: %w", err)
	}
	// Any folder will do: the tmpfs covers it for this process alone, and only until it becomes the root.
	const spot = "/proc"
	if err := unix.Mount("allot-tools", spot, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("cannot mount a tmpfs: %w", err)
	}
	if err := os.Mkdir(spot+host, 0o755); err != nil {
		return err
	}
	if err := unix.PivotRoot(spot, spot+host); err != nil {
		return fmt.Errorf("cannot change the root: %w", err)
	}
	return os.Chdir("/")
}

// hostPaths returns the host paths to show inside: what the caller named and the working folder. Paths that would hide
// the tools are an error, unless it is only the working folder, which is then left out.
func (e entry) hostPaths(work string) ([]string, error) {
	var paths []string
	for _, b := range e.Binds {
		b = filepath.Clean(b)
		if hidesTools(b) {
			return nil, fmt.Errorf("cannot show the host's %q inside: the tools are there", b)
		}
		paths = append(paths, b)
	}
	if !hidesTools(work) {
		paths = append(paths, work)
	}
	slices.Sort(paths) // a folder comes before what is in it, and so does not cover it
	return slices.Compact(paths), nil
}

// hidesTools tells whether a mount over path would cover programs, or make no sense.
func hidesTools(path string) bool {
	if path == "/" || path == "/usr" || path == "/var" {
		return true
	}
	for _, p := range []string{
		"/bin", "/sbin", "/lib", "/lib64", "/etc", "/proc",
		"/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64", "/usr/libexec", "/usr/share",
	} {
		if path == p || strings.HasPrefix(path, p+"/") {
			return true
		}
	}
	return false
}

// mirror shows the tool root's folder from as the folder to. Its members are bound read-only, but for a folder in which
// a mount point for one of the wanted paths is missing: it is made anew and its members bound one by one.
func mirror(from, to string, wanted []string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		src, dst := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			err = copyLink(src, dst)
		case slices.Contains([]string{"/dev", "/proc", "/run", "/sys", "/tmp"}, dst):
			err = os.Mkdir(dst, 0o755)
		case e.IsDir() && missesMountPoint(src, dst, wanted):
			if err = os.Mkdir(dst, 0o755); err == nil {
				err = mirror(src, dst, wanted)
			}
		default:
			err = bindReadOnly(src, dst)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func copyLink(src, dst string) error {
	target, err := os.Readlink(src)
	if err != nil {
		return err
	}
	return os.Symlink(target, dst)
}

// missesMountPoint tells whether one of the wanted paths is below dst and has no counterpart below src.
func missesMountPoint(src, dst string, wanted []string) bool {
	for _, w := range wanted {
		rest, below := strings.CutPrefix(w, dst+"/")
		if !below {
			continue
		}
		if _, err := os.Lstat(filepath.Join(src, rest)); err != nil {
			return true
		}
	}
	return false
}

// system makes the folders that are neither the tool root's nor the host's.
func (e entry) system() error {
	for _, d := range []string{"/dev", "/proc", "/run", "/sys", "/tmp", "/var/tmp"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	for _, d := range []string{"/tmp", "/run"} {
		if err := os.Chmod(d, 0o1777); err != nil {
			return err
		}
	}
	if err := unix.Mount("tmp", "/var/tmp", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
		return fmt.Errorf("cannot mount /var/tmp: %w", err)
	}
	if err := e.mountProc(); err != nil {
		return err
	}
	for _, f := range []string{"/etc/hosts", "/etc/resolv.conf"} {
		if real, err := hostReal(f); err == nil && e.Root != "" {
			if err := bind(filepath.Join(host, real), f); err != nil {
				return err
			}
		}
	}
	return devices()
}

// mountProc mounts a /proc of our process namespace, or shows the host's.
func (e entry) mountProc() error {
	if !e.PID {
		return bind(host+"/proc", "/proc")
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("cannot mount /proc: %w", err)
	}
	return nil
}

// devices fills /dev with the nodes that tools use; a user namespace cannot make nodes, so they are the host's.
func devices() error {
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty", "kvm"} {
		if _, err := os.Stat(host + "/dev/" + name); err != nil {
			continue
		}
		if err := bind(host+"/dev/"+name, "/dev/"+name); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
		"ptmx": "pts/ptmx",
	} {
		if err := os.Symlink(target, "/dev/"+name); err != nil {
			return err
		}
	}
	for _, d := range []string{"/dev/pts", "/dev/shm"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod("/dev/shm", 0o1777); err != nil {
		return err
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NOEXEC)
	if err := unix.Mount("devpts", "/dev/pts", "devpts", flags, "newinstance,ptmxmode=0666,mode=0620"); err != nil {
		return fmt.Errorf("cannot mount /dev/pts: %w", err)
	}
	return nil
}

// bindHost shows the host's path at the same path. Where links are on the way, it is shown where it really is, with a
// link to there.
func bindHost(path string) error {
	real, err := hostReal(path)
	if err != nil {
		return fmt.Errorf("cannot show the host's %q inside: %w", path, err)
	}
	if err := bind(filepath.Join(host, real), real); err != nil {
		return err
	}
	if _, err := os.Lstat(path); real == path || err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.Symlink(real, path)
}

// hostReal resolves the links in a path of the host, whose root is not the root.
func hostReal(path string) (string, error) {
	real := "/"
	rest := strings.Split(strings.Trim(path, "/"), "/")
	for links := 0; len(rest) > 0; {
		next := filepath.Join(real, rest[0])
		rest = rest[1:]
		info, err := os.Lstat(filepath.Join(host, next))
		if err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			real = next
			continue
		}
		if links++; links > 40 {
			return "", unix.ELOOP
		}
		target, err := os.Readlink(filepath.Join(host, next))
		if err != nil {
			return "", err
		}
		if filepath.IsAbs(target) {
			real = "/"
		}
		rest = append(strings.Split(strings.Trim(target, "/"), "/"), rest...)
	}
	return real, nil
}

// bind shows src, with what is mounted below it, at dst, which is made where it is missing.
func bind(src, dst string) error {
	if err := makeMountPoint(src, dst); err != nil {
		return fmt.Errorf("cannot make the mount point %q: %w", dst, err)
	}
	if err := unix.Mount(src, dst, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("cannot show %q at %q: %w", src, dst, err)
	}
	return nil
}

func makeMountPoint(src, dst string) error {
	info, err := os.Stat(src)
	if err != nil {
		return err
	}
	if _, err := os.Stat(dst); err == nil {
		return nil
	}
	if info.IsDir() {
		return os.MkdirAll(dst, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	return os.WriteFile(dst, nil, 0o644)
}

// bindReadOnly is bind for what must not be changed. In a user namespace a remount must keep the flags that the host set.
func bindReadOnly(src, dst string) error {
	if err := bind(src, dst); err != nil {
		return err
	}
	var info unix.Statfs_t
	if err := unix.Statfs(dst, &info); err != nil {
		return fmt.Errorf("cannot read the mount flags of %q: %w", dst, err)
	}
	// These have the same values as flags of statfs and of mount; relatime has not.
	kept := uintptr(info.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME)
	if info.Flags&unix.ST_RELATIME != 0 {
		kept |= unix.MS_RELATIME
	}
	flags := kept | unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY | unix.MS_NOSUID
	if err := unix.Mount("", dst, "", flags, ""); err != nil {
		return fmt.Errorf("cannot make %q read-only: %w", dst, err)
	}
	return nil
}
