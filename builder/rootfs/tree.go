// Package rootfs assembles file trees in memory from unpacked Debian packages and what a declaration says about them, and
// writes them as canonical tar files. Contents stay where they are (in the packages' data.tar) until they are read, so a
// tree is cheap, and neither root nor the architecture's emulation is needed to make one.
package rootfs

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path"
	"slices"

	"allotment/builder/profile"
)

// Node is what stands at a path. Paths that share one Node are hard links of each other.
type Node struct {
	Type         byte  // tar.TypeReg, TypeDir, TypeSymlink, TypeChar, TypeBlock or TypeFifo
	Mode         int64 // permission bits with set-uid, set-gid and sticky, at most 07777
	UID, GID     int
	Target       string            // of a symbolic link
	Major, Minor int64             // of a device
	Xattrs       map[string]string // by full name, such as security.capability
	Content      Content           // of a regular file
	From         string            // who put it there, for messages: a package or "the declaration"
}

// Content is a regular file's bytes: Bytes itself, or Size bytes at Offset of the host's file File.
type Content struct {
	Bytes  []byte
	File   string
	Offset int64 // bytes
	Size   int64 // bytes; only with File
}

// HostFile is the content of a whole file of the host.
func HostFile(name string) (Content, error) {
	st, err := os.Stat(name)
	if err != nil {
		return Content{}, err
	}
	if !st.Mode().IsRegular() {
		return Content{}, fmt.Errorf("cannot use %q: not a regular file", name)
	}
	return Content{File: name, Size: st.Size()}, nil
}

// Len is the content's length in bytes.
func (c Content) Len() int64 {
	if c.File == "" {
		return int64(len(c.Bytes))
	}
	return c.Size
}

// Open opens the content for reading. The reader is also an io.ReaderAt and io.Seeker.
func (c Content) Open() (*ContentReader, error) {
	if c.File == "" {
		return &ContentReader{io.NewSectionReader(bytes.NewReader(c.Bytes), 0, c.Len()), nil}, nil
	}
	f, err := os.Open(c.File)
	if err != nil {
		return nil, err
	}
	return &ContentReader{io.NewSectionReader(f, c.Offset, c.Size), f}, nil
}

// ContentReader reads a Content.
type ContentReader struct {
	*io.SectionReader
	file *os.File
}

// Close releases the file below.
func (r *ContentReader) Close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// Tree is a file tree. Its paths are absolute and clean; "/" is always there.
type Tree struct {
	Accounts profile.Accounts // of the tree and those below it
	Warnings []string         // what the declaration asks for in vain, for people

	nodes map[string]*Node
}

// New returns a tree with just a root folder.
func New() *Tree {
	return &Tree{nodes: map[string]*Node{"/": newDir("")}}
}

func newDir(from string) *Node { return &Node{Type: tar.TypeDir, Mode: 0o755, From: from} }

// Clone returns a tree that can be changed without changing t. Contents are shared.
func (t *Tree) Clone() *Tree {
	c := &Tree{Accounts: t.Accounts, nodes: make(map[string]*Node, len(t.nodes))}
	copies := make(map[*Node]*Node, len(t.nodes))
	for p, n := range t.nodes {
		if copies[n] == nil {
			m := *n
			m.Xattrs = maps.Clone(n.Xattrs)
			copies[n] = &m
		}
		c.nodes[p] = copies[n]
	}
	return c
}

// All yields every path with its node, sorted by path, so a folder comes before what is in it.
func (t *Tree) All() iter.Seq2[string, *Node] {
	return func(yield func(string, *Node) bool) {
		for _, p := range t.paths() {
			if !yield(p, t.nodes[p]) {
				return
			}
		}
	}
}

func (t *Tree) paths() []string { return slices.Sorted(maps.Keys(t.nodes)) }

// Lookup returns the node at p itself, without following a link there; links on the way are followed. It is nil if there
// is none.
func (t *Tree) Lookup(p string) *Node {
	real, err := t.locate(p)
	if err != nil {
		return nil
	}
	return t.nodes[real]
}

// Open opens the regular file at p, following links.
func (t *Tree) Open(p string) (*ContentReader, error) {
	real, err := t.Resolve(p)
	if err != nil {
		return nil, err
	}
	n := t.nodes[real]
	if n == nil || n.Type != tar.TypeReg {
		return nil, fmt.Errorf("cannot open %q in the tree: no such file", p)
	}
	return n.Content.Open()
}

// ReadFile returns the bytes of the regular file at p, following links.
func (t *Tree) ReadFile(p string) ([]byte, error) {
	r, err := t.Open(p)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("cannot read %q of the tree: %w", p, err)
	}
	if int64(len(b)) != r.Size() {
		return nil, fmt.Errorf("cannot read %q of the tree: %w", p, io.ErrUnexpectedEOF)
	}
	return b, nil
}

// PutFile puts a file at p, replacing a file there; missing folders on the way are made with mode 0755.
func (t *Tree) PutFile(p string, mode int64, c Content) error {
	return t.Put(p, &Node{Type: tar.TypeReg, Mode: mode, Content: c, From: "the builder"})
}

// PutDir puts a folder at p; one that is there gets the mode.
func (t *Tree) PutDir(p string, mode int64) error {
	return t.Put(p, &Node{Type: tar.TypeDir, Mode: mode, From: "the builder"})
}

// PutLink puts a symbolic link at p, replacing a file there.
func (t *Tree) PutLink(p, target string) error {
	return t.Put(p, &Node{Type: tar.TypeSymlink, Mode: 0o777, Target: target, From: "the builder"})
}

// Put puts n at p. It replaces what is not a folder; a folder is replaced only by a folder.
func (t *Tree) Put(p string, n *Node) error {
	real, err := t.locate(p)
	if err != nil {
		return err
	}
	if old := t.nodes[real]; old != nil && (old.Type == tar.TypeDir) != (n.Type == tar.TypeDir) {
		return fmt.Errorf("cannot put %q into the tree: a folder does not replace a file, nor the other way round", p)
	}
	t.nodes[real] = n
	return t.makeParents(real, n.From)
}

// makeParents makes the folders above p that are missing.
func (t *Tree) makeParents(p, from string) error {
	for p != "/" {
		p = path.Dir(p)
		n := t.nodes[p]
		if n == nil {
			t.nodes[p] = newDir(from)
			continue
		}
		if n.Type != tar.TypeDir {
			return fmt.Errorf("cannot put anything below %q: not a folder", p)
		}
		return nil
	}
	return nil
}

// locate follows the links in the folders above p, not p itself, and returns the path that p really has.
func (t *Tree) locate(p string) (string, error) {
	if !path.IsAbs(p) || path.Clean(p) != p {
		return "", fmt.Errorf("cannot use path %q: want an absolute path without . or .. or double slashes", p)
	}
	if p == "/" {
		return p, nil
	}
	dir, err := t.Resolve(path.Dir(p))
	if err != nil {
		return "", err
	}
	return path.Join(dir, path.Base(p)), nil
}

// maxLinks is how many links one path may lead through, as in Linux.
const maxLinks = 40

// Resolve follows every link in p and returns the path that it leads to; the last elements need not exist.
func (t *Tree) Resolve(p string) (string, error) {
	todo, done, links := split(p), "/", 0
	for len(todo) > 0 {
		done, todo = path.Join(done, todo[0]), todo[1:] // Join also goes up for ".."
		n := t.nodes[done]
		if n == nil || n.Type != tar.TypeSymlink {
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("cannot follow %q in the tree: too many links", p)
		}
		todo = append(split(n.Target), todo...)
		if path.IsAbs(n.Target) {
			done = "/"
		} else {
			done = path.Dir(done)
		}
	}
	return done, nil
}
