package rootfs

import (
	"archive/tar"
	"fmt"
	"path"
)

// Subtract returns the part of t that base does not have, as a layer to lay over base: every path that is new or
// differs, with the folders that lead to it. A layer cannot take a path away from the layers below it without whiteouts,
// which we do without: that is an error.
func (t *Tree) Subtract(base *Tree) (*Tree, error) {
	out := &Tree{Accounts: t.Accounts, Warnings: t.Warnings, nodes: map[string]*Node{}}
	for p, n := range t.nodes {
		if old := base.nodes[p]; old != nil && p != "/" {
			same, err := equal(old, n)
			if err != nil {
				return nil, fmt.Errorf("cannot compare %q with the base: %w", p, err)
			}
			if same {
				continue
			}
			if n.Type == tar.TypeDir && old.Type != tar.TypeDir {
				return nil, fmt.Errorf("cannot lay folder %q over what the base has there", p)
			}
		}
		out.nodes[p] = n
	}
	for p := range out.nodes {
		for a := path.Dir(p); out.nodes[a] == nil; a = path.Dir(a) {
			out.nodes[a] = t.nodes[a]
		}
	}
	for p := range base.nodes {
		if t.nodes[p] == nil && !t.hidden(p) {
			return nil, fmt.Errorf("cannot take %q of the base away in a layer above it", p)
		}
	}
	return out, nil
}

// hidden tells whether something above p is not a folder any more, so that p cannot be seen.
func (t *Tree) hidden(p string) bool {
	for p != "/" {
		p = path.Dir(p)
		if n := t.nodes[p]; n != nil {
			return n.Type != tar.TypeDir
		}
	}
	return false
}
