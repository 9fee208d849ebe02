package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// Deb is an unpacked package.
type Deb struct {
	Name    string
	Version string
	DataTar string // the host's path of its uncompressed data.tar
}

// paxXattr is the prefix of PAX records that hold extended attributes; the de facto standard of star, GNU tar and Go.
const paxXattr = "SCHILY.xattr."

// AddPackage adds the package's files as dpkg would unpack them: a folder keeps the mode that it has, and a link to a
// folder stays a link. A file that another package has already put there is an error, unless both are the same.
func (t *Tree) AddPackage(ctx context.Context, d Deb) error {
	if err := t.addTar(ctx, d.DataTar, "package "+d.Name); err != nil {
		return fmt.Errorf("cannot unpack package %q: %w", d.Name, err)
	}
	return nil
}

// ReadTar reads a tree from an uncompressed tar file, whose contents it then refers to.
func ReadTar(ctx context.Context, name string) (*Tree, error) {
	t := New()
	if err := t.addTar(ctx, name, name); err != nil {
		return nil, fmt.Errorf("cannot read a tree from %q: %w", name, err)
	}
	return t, nil
}

func (t *Tree) addTar(ctx context.Context, name, from string) error {
	return eachMember(ctx, name, func(h *tar.Header, c Content) error { return t.addHeader(h, c, from) })
}

// eachMember calls do for each member of an uncompressed tar file, with its content by reference.
func eachMember(ctx context.Context, name string, do func(*tar.Header, Content) error) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	for r := tar.NewReader(f); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		offset, err := f.Seek(0, io.SeekCurrent) // tar.Reader does not read ahead
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeReg && h.Size > st.Size()-offset {
			return fmt.Errorf("cannot read %q: %w", h.Name, io.ErrUnexpectedEOF)
		}
		if err := do(h, Content{File: name, Offset: offset, Size: h.Size}); err != nil {
			return err
		}
	}
}

// addHeader adds one member of a tar file.
func (t *Tree) addHeader(h *tar.Header, c Content, from string) error {
	p, n, err := t.member(h, c, from)
	if err != nil {
		return err
	}
	if n.Type == tar.TypeDir {
		return t.addDir(p, n)
	}
	return t.addNode(p, n)
}

// member returns the path that a member of a tar file has in the tree, and its node: that of another path for a hard link.
func (t *Tree) member(h *tar.Header, c Content, from string) (string, *Node, error) {
	p, err := t.memberPath(h.Name)
	if err != nil {
		return "", nil, err
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") { // what lies in the archive is not what the file holds
			return "", nil, fmt.Errorf("cannot use member %q: it is stored as a sparse file", h.Name)
		}
	}
	n := &Node{Type: h.Typeflag, Mode: h.Mode & 0o7777, UID: h.Uid, GID: h.Gid, Xattrs: xattrs(h), From: from}
	switch h.Typeflag {
	case tar.TypeReg:
		n.Content = c
	case tar.TypeSymlink:
		n.Target, n.Mode = h.Linkname, 0o777
	case tar.TypeLink:
		target, err := t.memberPath(h.Linkname)
		if err != nil {
			return "", nil, err
		}
		if n = t.nodes[target]; n == nil || n.Type == tar.TypeDir {
			return "", nil, fmt.Errorf("cannot link %q to %q: no such file", h.Name, h.Linkname)
		}
	case tar.TypeChar, tar.TypeBlock:
		n.Major, n.Minor = h.Devmajor, h.Devminor
	case tar.TypeDir, tar.TypeFifo:
	default:
		return "", nil, fmt.Errorf("cannot use member %q of type %q", h.Name, h.Typeflag)
	}
	return p, n, nil
}

// memberPath is where a member of a tar file lies in the tree; links in the folders above it are followed.
func (t *Tree) memberPath(name string) (string, error) {
	if slices.Contains(split(name), "..") || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("cannot use member %q: it leaves the tree", name)
	}
	return t.locate(path.Clean("/" + name))
}

// addDir adds a folder where there is none, nor a link to one.
func (t *Tree) addDir(p string, n *Node) error {
	real, err := t.Resolve(p)
	if err != nil {
		return err
	}
	old := t.nodes[real]
	switch {
	case old == nil && real == p, p == "/" && old.From == "":
		t.nodes[p] = n
		return t.makeParents(p, n.From)
	case old != nil && old.Type == tar.TypeDir:
		return nil
	}
	return fmt.Errorf("cannot make folder %q: %s has put something else there", p, t.nodes[p].From)
}

// addNode adds what is not a folder.
func (t *Tree) addNode(p string, n *Node) error {
	if old := t.nodes[p]; old != nil && old != n {
		same, err := equal(old, n)
		if err != nil {
			return err
		}
		if !same {
			return fmt.Errorf("cannot replace %q, which is from %s", p, old.From)
		}
		return nil
	}
	t.nodes[p] = n
	return t.makeParents(p, n.From)
}

// xattrs returns the extended attributes that a tar header carries.
func xattrs(h *tar.Header) map[string]string {
	var out map[string]string
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, paxXattr); ok {
			if out == nil {
				out = map[string]string{}
			}
			out[name] = v
		}
	}
	return out
}

// equal tells whether two nodes are the same to a program that looks at them.
func equal(a, b *Node) (bool, error) {
	if a.Type != b.Type || a.Mode != b.Mode || a.UID != b.UID || a.GID != b.GID || a.Target != b.Target ||
		a.Major != b.Major || a.Minor != b.Minor || !maps.Equal(a.Xattrs, b.Xattrs) {
		return false, nil
	}
	return sameContent(a.Content, b.Content)
}

// sameContent compares two contents, without reading them where that is not needed.
func sameContent(a, b Content) (bool, error) {
	if a.Len() != b.Len() {
		return false, nil
	}
	if a.File == b.File && a.Offset == b.Offset && bytes.Equal(a.Bytes, b.Bytes) {
		return true, nil
	}
	x, err := a.Open()
	if err != nil {
		return false, err
	}
	defer x.Close()
	y, err := b.Open()
	if err != nil {
		return false, err
	}
	defer y.Close()
	bx, by := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		nx, errx := io.ReadFull(x, bx)
		ny, erry := io.ReadFull(y, by)
		if !bytes.Equal(bx[:nx], by[:ny]) {
			return false, nil
		}
		if errx != nil || erry != nil {
			return endOfBoth(errx, erry)
		}
	}
}

// endOfBoth judges the errors that two readers of equal length ended with.
func endOfBoth(errs ...error) (bool, error) {
	for _, err := range errs {
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return false, err
		}
	}
	return true, nil
}
