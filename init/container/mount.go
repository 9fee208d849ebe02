package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// attached tells whether something of ours is mounted at dir already.
func attached(dir string) bool {
	var here, above unix.Stat_t
	if unix.Lstat(dir, &here) != nil || unix.Lstat(filepath.Dir(dir), &above) != nil {
		return false
	}
	return here.Dev != above.Dev
}

// rootAttrs are those of everything that a container's root is made of.
const rootAttrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID

// mountLayer mounts the EROFS file at dir, read-only, with the ids of the user namespace.
func mountLayer(file, dir string, userns *os.File) error {
	fd, err := newMount("erofs", [][2]string{{"source", file}}, rootAttrs)
	if err != nil {
		return fmt.Errorf("cannot mount layer %q: %w", file, err)
	}
	defer unix.Close(fd)
	if err := mapIDs(fd, userns); err != nil {
		return fmt.Errorf("cannot map the ids of layer %q: %w", file, err)
	}
	return attach(fd, dir)
}

// mountOverlay mounts the union of the folders, lowest first, at dir.
func mountOverlay(lowers []string, dir string) error {
	var options [][2]string
	for i := range lowers {
		options = append(options, [2]string{"lowerdir+", lowers[len(lowers)-1-i]}) // the kernel wants the highest first
	}
	fd, err := newMount("overlay", options, rootAttrs)
	if err != nil {
		return fmt.Errorf("cannot lay layers over each other at %q: %w", dir, err)
	}
	defer unix.Close(fd)
	return attach(fd, dir)
}

// mountVolume shows the folder at dir with the ids of the user namespace.
func mountVolume(folder, dir string, userns *os.File) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, folder, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("cannot open volume %q: %w", folder, err)
	}
	defer unix.Close(fd)
	if err := mapIDs(fd, userns); err != nil {
		return fmt.Errorf("cannot map the ids of volume %q: %w", folder, err)
	}
	return attach(fd, dir)
}

// newMount makes a mount that is not attached anywhere yet; see fsopen(2).
func newMount(kind string, options [][2]string, attrs int) (int, error) {
	ctx, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(ctx)
	for _, o := range options {
		if err := unix.FsconfigSetString(ctx, o[0], o[1]); err != nil {
			return -1, explain(ctx, fmt.Errorf("option %s=%s: %w", o[0], o[1], err))
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, explain(ctx, err)
	}
	return unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, attrs)
}

// explain adds what the kernel left in the message queue of a file system context.
func explain(ctx int, err error) error {
	buf := make([]byte, 512)
	if n, _ := unix.Read(ctx, buf); n > 0 {
		return fmt.Errorf("%w (%s)", err, strings.TrimSpace(string(buf[:n])))
	}
	return err
}

func mapIDs(mount int, userns *os.File) error {
	return unix.MountSetattr(mount, "", unix.AT_EMPTY_PATH, &unix.MountAttr{
		Attr_set:    unix.MOUNT_ATTR_IDMAP,
		Propagation: unix.MS_PRIVATE,
		Userns_fd:   uint64(userns.Fd()),
	})
}

func attach(mount int, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.MoveMount(mount, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("cannot attach a mount to %q: %w", dir, err)
	}
	return nil
}

// missing are the mount points, with a slash at the end if they are folders, that none of the layers has.
func missing(lowers, points []string) ([]string, error) {
	var out []string
	for _, p := range points {
		found := false
		for _, l := range lowers {
			ok, err := has(l, p)
			if err != nil {
				return nil, err
			}
			found = found || ok
		}
		if !found {
			out = append(out, p)
		}
	}
	return out, nil
}

// has tells whether the tree has the path. One that leads through an absolute link counts: the runtime resolves it.
func has(tree, path string) (bool, error) {
	r, err := os.OpenRoot(tree)
	if err != nil {
		return false, fmt.Errorf("cannot look into layer %q: %w", tree, err)
	}
	defer r.Close()
	_, err = r.Stat(strings.Trim(path, "/"))
	return !errors.Is(err, fs.ErrNotExist), nil
}

// addPoint makes an empty file or folder in the skeleton, a layer of its own above the others, since a read-only root
// cannot be given mount points later. Folders on the way look as in the layers, or else belong to owner.
func addPoint(skeleton string, lowers []string, point string, owner int) error {
	elements := strings.Split(strings.Trim(point, "/"), "/")
	for i := range elements {
		rel := filepath.Join(elements[:i+1]...)
		at := filepath.Join(skeleton, rel)
		if _, err := os.Lstat(at); err == nil {
			continue
		}
		if i == len(elements)-1 && !strings.HasSuffix(point, "/") {
			if err := os.WriteFile(at, nil, 0o644); err != nil {
				return err
			}
			return os.Lchown(at, owner, owner)
		}
		if err := copyFolder(at, lowers, rel, owner); err != nil {
			return err
		}
	}
	return nil
}

func copyFolder(at string, lowers []string, rel string, owner int) error {
	mode, uid, gid := fs.FileMode(0o755), owner, owner
	for i := len(lowers) - 1; i >= 0; i-- {
		if st, err := os.Lstat(filepath.Join(lowers[i], rel)); err == nil && st.IsDir() {
			sys := st.Sys().(*syscall.Stat_t)
			mode, uid, gid = st.Mode().Perm(), int(sys.Uid), int(sys.Gid)
			break
		}
	}
	if err := os.Mkdir(at, mode); err != nil {
		return err
	}
	if err := os.Chmod(at, mode); err != nil {
		return err
	}
	return os.Lchown(at, uid, gid)
}
