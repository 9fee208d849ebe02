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
	l := newLoader(filepath.Join(filepath.Dir(path), ".."))
	p := l.profile(path)
	if err := l.result(); err != nil {
		return nil, err
	}
	return p, nil
}

// ReadModule reads dir/module.toml, what it is built on and the modules beside it, in the source folder two levels above.
// Its error is as that of Load.
func ReadModule(dir string) (*ModuleSpec, error) {
	l := newLoader(filepath.Join(dir, "..", ".."))
	d, m := l.module(filepath.Join(dir, "module.toml"), map[string]*Tree{})
	if m != nil {
		checkTogether([]declared{{d, m}}, l.beside(m))
	}
	if err := l.result(); err != nil {
		return nil, err
	}
	return m, nil
}

// ReadTrees reads the named trees of a source folder, with the trees that they lie on. Its error is as that of Load.
func ReadTrees(source string, names ...string) (map[string]*Tree, error) {
	l := newLoader(source)
	trees := map[string]*Tree{}
	for _, n := range names {
		l.tree(n, trees)
	}
	if err := l.result(); err != nil {
		return nil, err
	}
	return trees, nil
}

// loader reads files of one source folder and gathers what is wrong with them.
type loader struct {
	source  string
	reading map[string]bool // trees under way, to find those that lie on themselves
	docs    []*document
	err     error // the first file that could not be read
}

func newLoader(source string) *loader { return &loader{source: source, reading: map[string]bool{}} }

// decode is as the function of this name; the document's faults are part of the result.
func (l *loader) decode(path string, text []byte, v any) (*document, bool) {
	d, ok := decode(path, text, v)
	l.docs = append(l.docs, d)
	return d, ok
}

// result is all that is wrong, in the order in which the files were read.
func (l *loader) result() error {
	var all Faults
	for _, d := range l.docs {
		all = append(all, d.sorted()...)
	}
	if len(all) > 0 {
		return all
	}
	return l.err
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
	return l.profileOf(path, text)
}

// profileOf reads the text of a profile that would lie at path.
func (l *loader) profileOf(path string, text []byte) *Profile {
	p := &Profile{File: path, Trees: map[string]*Tree{}}
	d, ok := l.decode(path, text, p)
	if !ok {
		return nil
	}
	p.defaults()
	checkProfile(d, p)
	n := &neighbours{profile: path, modules: map[string]*ModuleSpec{}, there: l.modules()}
	for i, name := range p.ModuleNames {
		if !slices.Contains(n.there, name) {
			d.fault(item("modules", i), oneOf(name, n.there), "no module %q", name)
		}
	}
	for _, name := range []string{"boot", "root", "debian-base"} {
		l.tree(name, p.Trees)
	}
	var all []declared
	for _, name := range p.ModuleNames {
		if _, ok := n.modules[name]; ok || !slices.Contains(n.there, name) {
			continue // told already
		}
		d, m := l.module(filepath.Join(l.source, "modules", name, "module.toml"), p.Trees)
		n.modules[name] = m
		if m != nil {
			all = append(all, declared{d, m})
			p.Modules = append(p.Modules, m)
			p.Trees[name] = &m.Tree
		}
	}
	checkTogether(all, n)
	checkSettings(d, p, n)
	return p
}

// modules are the names of all modules of the source folder.
func (l *loader) modules() []string {
	return slices.DeleteFunc(l.names("modules", ""), func(name string) bool {
		_, err := os.Stat(filepath.Join(l.source, "modules", name, "module.toml"))
		return err != nil
	})
}

// beside reads the modules beside one that is checked by itself, without a word of what is wrong with them.
func (l *loader) beside(m *ModuleSpec) *neighbours {
	n := &neighbours{modules: map[string]*ModuleSpec{}, there: l.modules()}
	for _, name := range n.there {
		path := filepath.Join(l.source, "modules", name, "module.toml")
		text, err := os.ReadFile(path)
		other := &ModuleSpec{}
		if _, ok := decode(path, text, other); err != nil || !ok {
			other = nil
		}
		n.modules[name] = other
	}
	n.modules[m.Name] = m
	return n
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
	d, ok := l.decode(path, text, t)
	if ok {
		accounts, known := l.base(d, "", t, trees)
		checkTree(d, "", t, accounts, known)
	}
	if len(d.faults) > 0 {
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

// module reads a module.toml, and the trees below its own into trees. The module is nil if it could not be read at all.
func (l *loader) module(path string, trees map[string]*Tree) (*document, *ModuleSpec) {
	text, ok := l.read(path)
	if !ok {
		return nil, nil
	}
	m := &ModuleSpec{File: path}
	d, ok := l.decode(path, text, m)
	if !ok {
		return d, nil
	}
	name := folderOf(path)
	m.Tree.Name, m.Tree.Dir = name, filepath.Dir(path)
	accounts, known := l.base(d, "tree", &m.Tree, trees)
	checkTree(d, "tree", &m.Tree, accounts, known)
	checkModule(d, m, name, accounts, known)
	if slices.Contains(l.names("trees", ".toml"), name) {
		d.fault("name", "call the module something else", "a tree is called %q too", name)
	}
	m.Users = accounts.ImageUsers()
	m.Importance = orDefault(m.Importance, "normal")
	return d, m
}

// folderOf is the name of the folder that a file is in, also where the path is only the file's name.
func folderOf(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return filepath.Base(filepath.Dir(path))
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// archs are the architectures that a profile can name.
var archs = []string{string(image.AMD64), string(image.ARM64)}
