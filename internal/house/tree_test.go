package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"sort"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// modulePath is ours, as go.mod has it.
const modulePath = "allotment"

// tree is every file of the repository that the rules look at.
type tree struct {
	files   fs.FS
	fset    *token.FileSet
	sources []source
	docs    []string // names of the Markdown files
}

// source is one Go file.
type source struct {
	name string // slash-separated, relative to the repository
	pkg  string // import path of its folder
	test bool
	text []byte
	ast  *ast.File
}

// readTree reads the repository in files. What git ignores is passed over by name.
func readTree(t *testing.T, files fs.FS) *tree {
	t.Helper()
	tr := &tree{files: files, fset: token.NewFileSet()}
	err := fs.WalkDir(files, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch base := path.Base(name); {
		case e.IsDir() && skipped(name, base):
			return fs.SkipDir
		case strings.HasSuffix(name, ".go"):
			return tr.readSource(name)
		case strings.HasSuffix(name, ".md"):
			tr.docs = append(tr.docs, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// skipped tells which folders go itself passes over, and which git ignores.
func skipped(name, base string) bool {
	switch name {
	case ".":
		return false
	case "out", "keys", "bin":
		return true
	}
	return base == "testdata" || base[0] == '.' || base[0] == '_'
}

func (tr *tree) readSource(name string) error {
	text, err := fs.ReadFile(tr.files, name)
	if err != nil {
		return err
	}
	file, err := parser.ParseFile(tr.fset, name, text, parser.ParseComments)
	if err != nil {
		return err
	}
	tr.sources = append(tr.sources, source{
		name: name,
		pkg:  path.Join(modulePath, path.Dir(name)),
		test: strings.HasSuffix(name, "_test.go"),
		text: text,
		ast:  file,
	})
	return nil
}

// imports maps the name by which a file calls each import to its path.
func (s source) imports() map[string]string {
	names := map[string]string{}
	for _, spec := range s.ast.Imports {
		p := importPath(spec)
		name := path.Base(p)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = p
	}
	return names
}

func importPath(spec *ast.ImportSpec) string {
	p, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		panic("house: parser let through the import path " + spec.Path.Value)
	}
	return p
}

// ours reads this repository.
func ours(t *testing.T) *tree { return readTree(t, os.DirFS("../..")) }

// planted reads a repository made of the given files.
func planted(t *testing.T, files map[string]string) *tree {
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return readTree(t, m)
}

// wantNone fails the test with each finding.
func wantNone(t *testing.T, findings []string) {
	t.Helper()
	sort.Strings(findings)
	for _, f := range findings {
		t.Error(f)
	}
}

// wantOne fails the test unless there is just one finding and it contains every part.
func wantOne(t *testing.T, findings []string, parts ...string) {
	t.Helper()
	if len(findings) != 1 {
		t.Fatalf("%d findings for one planted breach: %q", len(findings), findings)
	}
	for _, part := range parts {
		if !strings.Contains(findings[0], part) {
			t.Errorf("finding %q does not say %q", findings[0], part)
		}
	}
}

// below tells whether an import path or folder is one of roots or lies below one.
func below(p string, roots ...string) bool {
	for _, root := range roots {
		if p == root || strings.HasPrefix(p, root+"/") {
			return true
		}
	}
	return false
}
