package profile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"allotment/image"
)

// Load reads the profile at path with every tree and module that it needs, from the source folder that holds the folder
// of the profile: trees/*.toml and modules/NAME/module.toml. Its error is a Faults with all that is wrong.
func Load(path string) (*Profile, error) {
	l := loader{source: filepath.Join(filepath.Dir(path), ".."), reading: map[string]bool{}}
	p := l.profile(path)
	if len(l.faults) > 0 {
		return nil, l.faults
	}
	if l.err != nil {
		return nil, l.err
	}
	return p, nil
}

// ReadModule reads dir/module.toml and what it is built on, in the source folder two levels above. Its error is as that
// of Load.
func ReadModule(dir string) (*ModuleSpec, error) {
	l := loader{source: filepath.Join(dir, "..", ".."), reading: map[string]bool{}}
	m := l.module(filepath.Join(dir, "module.toml"), map[string]*Tree{})
	if len(l.faults) > 0 {
		return nil, l.faults
	}
	if l.err != nil {
		return nil, l.err
	}
	return m, nil
}

// ReadTrees reads the named trees of a source folder, with the trees that they lie on. Its error is as that of Load.
func ReadTrees(source string, names ...string) (map[string]*Tree, error) {
	l := loader{source: source, reading: map[string]bool{}}
	trees := map[string]*Tree{}
	for _, n := range names {
		l.tree(n, trees)
	}
	if len(l.faults) > 0 {
		return nil, l.faults
	}
	if l.err != nil {
		return nil, l.err
	}
	return trees, nil
}

// loader reads files of one source folder and gathers what is wrong with them.
type loader struct {
	source  string
	reading map[string]bool // trees under way, to find those that lie on themselves
	faults  Faults
	err     error // the first file that could not be read
}

// done keeps a document's faults and tells whether there were none.
func (l *loader) done(d *document) bool {
	l.faults = append(l.faults, d.sorted()...)
	return len(d.faults) == 0
}

func (l *loader) read(path string) ([]byte, bool) {
	b, err := os.ReadFile(path)
	if err != nil && l.err == nil {
		l.err = fmt.Errorf("cannot read %q: %w", path, err)
	}
	return b, err == nil
}

func (l *loader) profile(path string) *Profile {
	text, ok := l.read(path)
	if !ok {
		if errors.Is(l.err, os.ErrNotExist) {
			name := strings.TrimSuffix(filepath.Base(path), ".toml")
			l.err = fmt.Errorf("%w\n  profiles: %s", l.err, oneOf(name, l.names("profiles", ".toml")))
		}
		return nil
	}
	p := &Profile{File: path, Trees: map[string]*Tree{}}
	d, ok := decode(path, text, p)
	if ok {
		checkProfile(d, p)
		l.moduleNames(d, p)
	}
	if !l.done(d) && !ok {
		return nil
	}
	for _, name := range []string{"boot", "root", "debian-base"} {
		l.tree(name, p.Trees)
	}
	for _, name := range p.ModuleNames {
		file := filepath.Join(l.source, "modules", name, "module.toml")
		if _, err := os.Stat(file); err != nil {
			continue // moduleNames has said so
		}
		if m := l.module(file, p.Trees); m != nil {
			p.Modules = append(p.Modules, m)
			p.Trees[m.Name] = &m.Tree
		}
	}
	return p
}

// moduleNames checks that every module that a profile names exists.
func (l *loader) moduleNames(d *document, p *Profile) {
	var there []string
	for _, n := range l.names("modules", "") {
		if _, err := os.Stat(filepath.Join(l.source, "modules", n, "module.toml")); err == nil {
			there = append(there, n)
		}
	}
	for i, n := range p.ModuleNames {
		if !slices.Contains(there, n) {
			d.fault(fmt.Sprintf("modules[%d]", i), oneOf(n, there), "no module %q", n)
		}
	}
}

// names lists what a folder of the source holds, without the ending that is asked for.
func (l *loader) names(folder, ending string) []string {
	entries, _ := os.ReadDir(filepath.Join(l.source, folder)) // a missing folder holds nothing
	var out []string
	for _, e := range entries {
		if n, ok := strings.CutSuffix(e.Name(), ending); ok && e.IsDir() == (ending == "") {
			out = append(out, n)
		}
	}
	return out
}

// tree reads trees/name.toml, and the trees below it first, into trees. It returns nil if that failed.
func (l *loader) tree(name string, trees map[string]*Tree) *Tree {
	if t, ok := trees[name]; ok {
		return t
	}
	trees[name] = nil // until it is known to be good
	l.reading[name] = true
	defer delete(l.reading, name)
	path := filepath.Join(l.source, "trees", name+".toml")
	text, ok := l.read(path)
	if !ok {
		return nil
	}
	t := &Tree{Name: name, Dir: filepath.Join(l.source, "trees")}
	d, ok := decode(path, text, t)
	if ok {
		accounts, known := l.base(d, "", t, trees)
		checkTree(d, "", t, accounts, known)
	}
	if !l.done(d) {
		return nil
	}
	trees[name] = t
	return t
}

// base reads the tree that t lies on. It returns the accounts of t with those below it, and whether they are all known.
func (l *loader) base(d *document, prefix string, t *Tree, trees map[string]*Tree) (Accounts, bool) {
	if t.Base == "" {
		return Accounts{}.With(t), true
	}
	key := join(prefix, "base")
	names := l.names("trees", ".toml")
	if !slices.Contains(names, t.Base) {
		d.fault(key, oneOf(t.Base, names), "no tree %q", t.Base)
		return Accounts{}, false
	}
	if l.reading[t.Base] {
		d.fault(key, "", "a tree must not lie on itself, nor on one that lies on it")
		return Accounts{}, false
	}
	if l.tree(t.Base, trees) == nil { // which has faults of its own, and they are told
		return Accounts{}, false
	}
	below, err := accountsOf(t.Base, trees)
	return below.With(t), err == nil
}

// accountsOf gathers the users and groups of the tree called name and of those below it.
func accountsOf(name string, trees map[string]*Tree) (Accounts, error) {
	t := trees[name]
	if t == nil {
		return Accounts{}, fmt.Errorf("cannot find tree %q", name)
	}
	if t.Base == "" {
		return Accounts{}.With(t), nil
	}
	below, err := accountsOf(t.Base, trees)
	return below.With(t), err
}

// module reads a module.toml, and the trees below its own into trees. It returns nil if that failed.
func (l *loader) module(path string, trees map[string]*Tree) *ModuleSpec {
	text, ok := l.read(path)
	if !ok {
		return nil
	}
	m := &ModuleSpec{File: path}
	d, ok := decode(path, text, m)
	if ok {
		name := filepath.Base(filepath.Dir(path))
		m.Tree.Name, m.Tree.Dir = name, filepath.Dir(path)
		accounts, known := l.base(d, "tree", &m.Tree, trees)
		checkTree(d, "tree", &m.Tree, accounts, known)
		checkModule(d, m, name, accounts, known)
		if slices.Contains(l.names("trees", ".toml"), name) {
			d.fault("name", "call the module something else", "a tree is called %q too", name)
		}
		m.Users = accounts.ImageUsers()
		m.Importance = orDefault(m.Importance, "normal")
	}
	if !l.done(d) {
		return nil
	}
	return m
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// archs are the architectures that a profile can name.
var archs = []string{string(image.AMD64), string(image.ARM64)}
