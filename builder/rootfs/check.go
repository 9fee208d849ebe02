package rootfs

import (
	"archive/tar"
	"debug/elf"
	"fmt"
	"path"
	"slices"
	"strings"
)

// MissingLibraries lists every ELF program and library of the tree with what the dynamic loader would not find for it:
// the loader itself, or a shared library.
func (t *Tree) MissingLibraries() ([]string, error) {
	var missing []string
	for p, n := range t.All() {
		if n.Type != tar.TypeReg || n.Mode&0o111 == 0 && !strings.Contains(path.Base(p), ".so") {
			continue
		}
		lost, err := t.lostBy(p, n)
		if err != nil {
			return nil, fmt.Errorf("cannot read %q: %w", p, err)
		}
		missing = append(missing, lost...)
	}
	return missing, nil
}

// lostBy lists what the file at p needs and the tree has not.
func (t *Tree) lostBy(p string, n *Node) ([]string, error) {
	r, err := n.Content.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	magic := make([]byte, len(elf.ELFMAG))
	if _, err := r.ReadAt(magic, 0); err != nil || string(magic) != elf.ELFMAG {
		return nil, nil // shorter, or something else
	}
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, err
	}
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return nil, nil // an object file or a kernel module
	}
	var lost []string
	if loader, err := interpreter(f); err != nil {
		return nil, err
	} else if loader != "" && !t.hasFile(loader) {
		lost = append(lost, fmt.Sprintf("%s needs %s", p, loader))
	}
	needed, err := f.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	folders := libraryFolders(f, p)
	for _, lib := range needed {
		if !slices.ContainsFunc(folders, func(dir string) bool { return t.hasFile(path.Join(dir, lib)) }) {
			lost = append(lost, fmt.Sprintf("%s needs %s", p, lib))
		}
	}
	return lost, nil
}

// hasFile tells whether p leads to a regular file.
func (t *Tree) hasFile(p string) bool {
	real, err := t.Resolve(p)
	return err == nil && t.nodes[real] != nil && t.nodes[real].Type == tar.TypeReg
}

// interpreter is the path of the dynamic loader that a program names.
func interpreter(f *elf.File) (string, error) {
	for _, s := range f.Progs {
		if s.Type == elf.PT_INTERP {
			b := make([]byte, min(s.Filesz, 4096))
			_, err := s.ReadAt(b, 0)
			return strings.TrimRight(string(b), "\x00"), err
		}
	}
	return "", nil
}

// libraryFolders are the folders that Debian's loader looks in for the libraries of the file at p (ld.so(8)).
func libraryFolders(f *elf.File, p string) []string {
	var folders []string
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		lists, _ := f.DynString(tag) // no such entry is no error worth telling
		for _, list := range lists {
			for _, dir := range strings.Split(list, ":") {
				dir = strings.NewReplacer("$ORIGIN", path.Dir(p), "${ORIGIN}", path.Dir(p)).Replace(dir)
				folders = append(folders, path.Join("/", dir))
			}
		}
	}
	triplet := map[elf.Machine]string{elf.EM_X86_64: "x86_64-linux-gnu", elf.EM_AARCH64: "aarch64-linux-gnu"}[f.Machine]
	return append(folders, "/usr/lib/"+triplet, "/lib/"+triplet, "/usr/lib", "/lib")
}

// brokenLinks lists the links of t that led somewhere before, and lead nowhere since something was taken away.
func (t *Tree) brokenLinks(before *Tree) []string {
	var broken []string
	for p, n := range t.All() {
		if old := before.nodes[p]; n.Type != tar.TypeSymlink || old == nil || old.Type != tar.TypeSymlink {
			continue
		}
		was, err := before.Resolve(p)
		if err != nil || before.nodes[was] == nil {
			continue
		}
		is, err := t.Resolve(p)
		if err != nil || t.nodes[is] == nil {
			broken = append(broken, fmt.Sprintf("%s -> %s", p, n.Target))
		}
	}
	return broken
}
