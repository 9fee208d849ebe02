// Package kmod loads kernel modules by name or alias, with what they depend on. It reads the indexes that the builder
// writes beside the modules: modules.dep, modules.alias and modules.softdep, in depmod's text forms.
package kmod

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Index tells which modules there are, what they need and which aliases they have.
type Index struct {
	modules map[string]*module // by name
	aliases []alias
}

type module struct {
	file    string   // below the folder of the indexes
	depends []string // files, in the order of loading
	pre     []string // names or aliases that are wanted before, but not needed
	post    []string // and after
}

// alias is one line of modules.alias. Most patterns begin with some letters that decide already.
type alias struct {
	prefix  string // of the pattern, up to the first wildcard
	pattern string // for path.Match, with slashes replaced
	module  string
}

// ReadIndex reads the indexes of the folder that fsys is, /usr/lib/modules/RELEASE.
func ReadIndex(fsys fs.FS) (*Index, error) {
	x := &Index{modules: map[string]*module{}}
	for _, part := range []struct {
		name string
		line func(string) error
	}{{"modules.dep", x.addDep}, {"modules.alias", x.addAlias}, {"modules.softdep", x.addSoftdep}} {
		f, err := fsys.Open(part.name)
		if err != nil {
			return nil, fmt.Errorf("cannot read the index of kernel modules: %w", err)
		}
		err = eachLine(f, part.line)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("cannot read the index of kernel modules %q: %w", part.name, err)
		}
	}
	return x, nil
}

func eachLine(r io.Reader, use func(string) error) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if err := use(lines.Text()); err != nil {
			return err
		}
	}
	return lines.Err()
}

// addDep reads "FILE: FILE...", to be loaded from right to left.
func (x *Index) addDep(line string) error {
	file, depends, ok := strings.Cut(line, ":")
	if !ok {
		return fmt.Errorf("line %q has no colon", line)
	}
	m := &module{file: file, depends: strings.Fields(depends)}
	slices.Reverse(m.depends)
	x.modules[Name(file)] = m
	return nil
}

// addAlias reads "alias PATTERN MODULE".
func (x *Index) addAlias(line string) error {
	f := strings.Fields(line)
	if len(f) != 3 || f[0] != "alias" {
		return fmt.Errorf("line %q is no alias", line)
	}
	pattern := noSlash(f[1])
	if _, err := path.Match(pattern, ""); err != nil {
		return fmt.Errorf("line %q: %w", line, err)
	}
	prefix := pattern
	if i := strings.IndexAny(pattern, `*?[\`); i >= 0 {
		prefix = pattern[:i]
	}
	x.aliases = append(x.aliases, alias{prefix, pattern, f[2]})
	return nil
}

// addSoftdep reads "softdep MODULE pre: NAME... post: NAME...".
func (x *Index) addSoftdep(line string) error {
	f := strings.Fields(line)
	if len(f) < 3 || f[0] != "softdep" || x.modules[f[1]] == nil {
		return fmt.Errorf("line %q is no soft dependency of a known module", line)
	}
	m := x.modules[f[1]]
	var list *[]string
	for _, word := range f[2:] {
		switch {
		case word == "pre:":
			list = &m.pre
		case word == "post:":
			list = &m.post
		case list == nil:
			return fmt.Errorf("line %q names a module before pre: or post: says when to load it", line)
		default:
			*list = append(*list, word)
		}
	}
	return nil
}

// Find returns the names of the modules that a name or alias stands for; none is no error.
func (x *Index) Find(nameOrAlias string) []string {
	if name := Name(nameOrAlias); x.modules[name] != nil {
		return []string{name}
	}
	wanted := noSlash(nameOrAlias)
	var names []string
	for _, a := range x.aliases {
		if !strings.HasPrefix(wanted, a.prefix) || slices.Contains(names, a.module) {
			continue
		}
		if ok, _ := path.Match(a.pattern, wanted); ok {
			names = append(names, a.module)
		}
	}
	return names
}

// Name is a module's name by its file or by a spelling with hyphens.
func Name(file string) string {
	return strings.ReplaceAll(strings.TrimSuffix(path.Base(file), ".ko"), "-", "_")
}

// noSlash makes path.Match treat a slash as any other character.
func noSlash(s string) string { return strings.ReplaceAll(s, "/", "\x01") }
