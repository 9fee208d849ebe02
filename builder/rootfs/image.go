package rootfs

import (
	"archive/tar"
	"context"
	"fmt"
	"path"
	"strings"
)

// Names of whiteouts in a layer's tar file (OCI image specification 1.1, layer.md).
const (
	whiteout       = ".wh."
	opaqueWhiteout = ".wh..wh..opq"
)

// ReadImage returns the tree that the layers of an OCI image make, lowest first. Layers are uncompressed tar files, whose
// contents the tree then refers to. Device nodes are left out: a container's are the runtime's.
func ReadImage(ctx context.Context, layers ...string) (*Tree, error) {
	t := New()
	for _, name := range layers {
		if err := t.addLayer(ctx, name); err != nil {
			return nil, fmt.Errorf("cannot apply layer %q: %w", name, err)
		}
	}
	return t, nil
}

// addLayer lays one layer over the tree. Whiteouts come first wherever they stand in the file, as they concern only the
// layers below.
func (t *Tree) addLayer(ctx context.Context, name string) error {
	err := eachMember(ctx, name, func(h *tar.Header, _ Content) error { return t.applyWhiteout(h) })
	if err != nil {
		return err
	}
	return eachMember(ctx, name, func(h *tar.Header, c Content) error { return t.overlay(h, c, name) })
}

// applyWhiteout takes away what the member of a layer hides; members that are no whiteouts hide nothing.
func (t *Tree) applyWhiteout(h *tar.Header) error {
	base := path.Base(h.Name)
	if !strings.HasPrefix(base, whiteout) {
		return nil
	}
	p, err := t.memberPath(h.Name)
	if err != nil {
		return err
	}
	dir := path.Dir(p)
	if base == opaqueWhiteout {
		t.removeBelow(dir)
		return nil
	}
	hidden := strings.TrimPrefix(base, whiteout)
	if hidden == "" || strings.HasPrefix(hidden, whiteout) { // aufs' own bookkeeping
		return fmt.Errorf("cannot use whiteout %q", h.Name)
	}
	hidden = path.Join(dir, hidden)
	t.removeBelow(hidden)
	delete(t.nodes, hidden)
	return nil
}

// overlay adds one member of a layer over what the layers below have there.
func (t *Tree) overlay(h *tar.Header, c Content, from string) error {
	switch {
	case strings.HasPrefix(path.Base(h.Name), whiteout), h.Typeflag == tar.TypeChar, h.Typeflag == tar.TypeBlock:
		return nil
	}
	p, n, err := t.member(h, c, from)
	if err != nil {
		return err
	}
	old := t.nodes[p]
	switch {
	case n.Type != tar.TypeDir && p == "/":
		return fmt.Errorf("cannot use member %q: the root is a folder", h.Name)
	case n.Type != tar.TypeDir && old != nil && old.Type == tar.TypeDir:
		t.removeBelow(p)
	}
	t.nodes[p] = n
	return t.makeParents(p, from)
}

// removeBelow takes away all that is in the folder p.
func (t *Tree) removeBelow(p string) {
	if p != "/" {
		p += "/"
	}
	for q := range t.nodes {
		if q != "/" && strings.HasPrefix(q, p) {
			delete(t.nodes, q)
		}
	}
}
