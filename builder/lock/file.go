package lock

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"allotment/image"
)

// Format is the version of the file format that this package reads and writes.
const Format = 1

var treePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)

// Read reads the lock file at path. The error is the bare one of os when there is no file.
func Read(path string) (*Lock, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, b)
}

// Parse reads a lock file's content; name is what errors call it.
func Parse(name string, b []byte) (*Lock, error) {
	l := &Lock{}
	if err := toml.NewDecoder(bytes.NewReader(b)).DisallowUnknownFields().Decode(l); err != nil {
		return nil, fmt.Errorf("cannot read lock %q: %w", name, explain(err))
	}
	if l.Format != Format {
		return nil, fmt.Errorf("cannot read lock %q: format is %d, want %d; make it anew with allot lock", name, l.Format, Format)
	}
	if l.Epoch <= 0 {
		return nil, fmt.Errorf("cannot read lock %q: epoch is %d, want the seconds of a time after 1970", name, l.Epoch)
	}
	if _, err := image.ParseDigest(string(l.Inputs)); err != nil {
		return nil, fmt.Errorf("cannot read lock %q: inputs: %w", name, err)
	}
	if len(l.Trees) == 0 {
		return nil, fmt.Errorf("cannot read lock %q: it has no trees; make it anew with allot lock", name)
	}
	for _, tree := range slices.Sorted(maps.Keys(l.Trees)) {
		for _, arch := range slices.Sorted(maps.Keys(l.Trees[tree])) {
			if i, err := check(tree, arch, l.Trees[tree][arch]); err != nil {
				return nil, fmt.Errorf("cannot read lock %q: %stree %s, %s: %w", name, lineOf(b, tree, arch, i), tree, arch, err)
			}
		}
	}
	return l, nil
}

// lineOf says on which line package i of a list is, as long as the file looks as we write it.
func lineOf(b []byte, tree string, arch image.Arch, i int) string {
	inTree, inList := false, false
	n := 0
	for line := range bytes.Lines(b) {
		n++
		text := string(bytes.TrimSpace(line))
		switch {
		case strings.HasPrefix(text, "["):
			inTree, inList = text == "[trees."+tree+"]", false
		case text == string(arch)+" = [":
			inList = inTree
		case text == "]":
			inList = false
		case inList && i == 0:
			return fmt.Sprintf("line %d: ", n)
		case inList:
			i--
		}
	}
	return ""
}

// explain shows the place of a fault in TOML with the lines around it.
func explain(err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) {
		return fmt.Errorf("unknown key\n%s", strict.String())
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		row, column := decode.Position()
		return fmt.Errorf("line %d, column %d: %w\n%s", row, column, err, decode.String())
	}
	return err
}

// check tells what in one list cannot be, and at which package.
func check(tree string, arch image.Arch, packages []Package) (int, error) {
	if !treePattern.MatchString(tree) {
		return 0, fmt.Errorf("tree name %q is not one", tree)
	}
	if _, err := image.ParseArch(string(arch)); err != nil {
		return 0, err
	}
	for i, p := range packages {
		err := p.Check()
		switch {
		case err != nil:
		case p.Arch != "all" && p.Arch != string(arch):
			err = fmt.Errorf("package %s is for %s", p.Name, p.Arch)
		case i > 0 && packages[i-1].Name == p.Name:
			err = fmt.Errorf("package %s is there twice", p.Name)
		case i > 0 && packages[i-1].Name > p.Name:
			err = fmt.Errorf("package %s comes after %s; the list must be sorted by name", p.Name, packages[i-1].Name)
		}
		if err != nil {
			return i, err
		}
	}
	return 0, nil
}

// Write writes the lock to path, which has the old content or all of the new one whatever happens.
func (l *Lock) Write(path string) error {
	if err := replace(path, l.Encode()); err != nil {
		return fmt.Errorf("cannot write lock: %w", err)
	}
	return nil
}

// replace puts content at path by rename.
func replace(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Encode returns the content of the lock's file: the same lock gives the same bytes, and one package is one line, so that
// a change of it reads well as a diff.
func (l *Lock) Encode() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Made by allot lock; see docs/formats/lock.md. Do not edit.\nformat = %d\nepoch = %d\ninputs = %q\n",
		l.Format, l.Epoch, l.Inputs)
	for _, tree := range slices.Sorted(maps.Keys(l.Trees)) {
		fmt.Fprintf(&b, "\n[trees.%s]\n", tree)
		for _, arch := range slices.Sorted(maps.Keys(l.Trees[tree])) {
			fmt.Fprintf(&b, "%s = [\n", arch)
			for _, p := range slices.SortedFunc(slices.Values(l.Trees[tree][arch]), compare) {
				fmt.Fprintf(&b, "  { name = %q, version = %q, arch = %q, source = %q, archive = %q, path = %q, size = %d, sha256 = %q },\n",
					p.Name, p.Version, p.Arch, p.Source, p.Archive, p.Path, p.Size, p.SHA256)
			}
			b.WriteString("]\n")
		}
	}
	return b.Bytes()
}

// compare orders packages by name, and by version where two locks are looked at.
func compare(a, b Package) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version), strings.Compare(a.Arch, b.Arch))
}
