package rootfs

import (
	"archive/tar"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"allotment/builder/profile"
)

// node returns a node of ours with the mode and owner that a declaration gives.
func (d *declaration) node(kind byte, mode, owner string) (*Node, error) {
	n := &Node{Type: kind, From: declared}
	return n, d.setMode(n, mode, owner)
}

// setMode gives n an octal mode and an owner by name; empty ones are left as they are.
func (d *declaration) setMode(n *Node, mode, owner string) error {
	if mode != "" {
		m, err := strconv.ParseUint(mode, 8, 12)
		if err != nil {
			return fmt.Errorf("cannot use mode %q: want octal digits", mode)
		}
		n.Mode = int64(m)
	}
	if owner != "" {
		uid, gid, ok := d.t.Accounts.Owner(owner)
		if !ok {
			return fmt.Errorf("cannot use owner %q: no such user or group", owner)
		}
		n.UID, n.GID = uid, gid
	}
	return nil
}

func (d *declaration) dirs() error {
	for _, dir := range d.Dirs {
		n, err := d.node(tar.TypeDir, cmp.Or(dir.Mode, "0755"), dir.Owner)
		if err == nil {
			err = d.t.Put(dir.Path, n)
		}
		if err != nil {
			return fmt.Errorf("cannot make folder %q: %w", dir.Path, err)
		}
	}
	return nil
}

// links makes symbolic links. A folder in the way must be empty: one with files in it would vanish silently.
func (d *declaration) links() error {
	for _, l := range d.Links {
		real, err := d.t.locate(l.Path)
		if err != nil {
			return fmt.Errorf("cannot make link %q: %w", l.Path, err)
		}
		if old := d.t.nodes[real]; old != nil && old.Type == tar.TypeDir {
			for p := range d.t.nodes {
				if strings.HasPrefix(p, real+"/") {
					return fmt.Errorf("cannot replace folder %q by a link: %q is in it; remove that first", l.Path, p)
				}
			}
			delete(d.t.nodes, real)
		}
		n := &Node{Type: tar.TypeSymlink, Mode: 0o777, Target: l.Target, From: declared}
		if err := d.t.Put(l.Path, n); err != nil {
			return fmt.Errorf("cannot make link %q: %w", l.Path, err)
		}
	}
	return nil
}

func (d *declaration) files() error {
	for _, f := range d.Files {
		if err := d.file(f); err != nil {
			return fmt.Errorf("cannot make file %q: %w", f.Path, err)
		}
	}
	return nil
}

func (d *declaration) file(f profile.File) error {
	n, err := d.node(tar.TypeReg, cmp.Or(f.Mode, "0644"), f.Owner)
	if err != nil {
		return err
	}
	switch {
	case f.Copy != "":
		real, err := d.unpacked.Resolve(f.Copy)
		if err != nil {
			return err
		}
		from := d.unpacked.nodes[real]
		if from == nil || from.Type != tar.TypeReg {
			return fmt.Errorf("cannot copy %q: no such file in the packages", f.Copy)
		}
		n.Content = from.Content
	case f.Source != "":
		b, err := os.ReadFile(filepath.Join(d.Dir, filepath.FromSlash(f.Source)))
		if err != nil {
			return err
		}
		n.Content = Content{Bytes: b}
	default:
		n.Content = Content{Bytes: []byte(f.Content)}
	}
	return d.t.Put(f.Path, n)
}

func (d *declaration) modes() error {
	for _, m := range d.Modes {
		n := d.t.Lookup(m.Path)
		if n == nil {
			return fmt.Errorf("cannot change the mode of %q: no such path", m.Path)
		}
		if err := d.setMode(n, m.Mode, m.Owner); err != nil {
			return fmt.Errorf("cannot change the mode of %q: %w", m.Path, err)
		}
	}
	return nil
}
