package rootfs

import (
	"archive/tar"
	"fmt"
	"io"
	"strings"
	"time"
)

// WriteTar writes the tree as an uncompressed tar file in PAX format: sorted by path, numeric owners only, every time
// epoch, hard links to the first of their paths. The same tree gives the same bytes. The root folder is "./".
func (t *Tree) WriteTar(w io.Writer, epoch time.Time) error {
	tw := tar.NewWriter(w)
	first := map[*Node]string{}
	for p, n := range t.All() {
		name := strings.TrimPrefix(p, "/")
		h := header(name, n, epoch)
		if f, ok := first[n]; ok {
			h = &tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: f, Mode: n.Mode, Uid: n.UID, Gid: n.GID,
				ModTime: epoch, Format: tar.FormatPAX}
		}
		first[n] = name
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("cannot write %q as tar: %w", p, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := copyContent(tw, n.Content); err != nil {
			return fmt.Errorf("cannot write %q as tar: %w", p, err)
		}
	}
	return tw.Close()
}

func header(name string, n *Node, epoch time.Time) *tar.Header {
	h := &tar.Header{
		Typeflag: n.Type, Name: name, Linkname: n.Target, Mode: n.Mode, Uid: n.UID, Gid: n.GID,
		Devmajor: n.Major, Devminor: n.Minor, ModTime: time.Unix(epoch.Unix(), 0), Format: tar.FormatPAX,
	}
	if n.Type == tar.TypeDir {
		h.Name += "/"
		if name == "" {
			h.Name = "./"
		}
	}
	if n.Type == tar.TypeReg {
		h.Size = n.Content.Len()
	}
	for k, v := range n.Xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxXattr+k] = v
	}
	return h
}

func copyContent(w io.Writer, c Content) error {
	r, err := c.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.Copy(w, r)
	if err == nil && n != c.Len() {
		err = io.ErrUnexpectedEOF
	}
	return err
}
