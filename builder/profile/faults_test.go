package profile

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// wanted are the golden messages of all bad files.
func wanted(t *testing.T) string {
	t.Helper()
	cases, err := filepath.Glob("testdata/bad/*.txtar")
	if err != nil || len(cases) < 60 {
		t.Fatalf("%d bad files: %v", len(cases), err)
	}
	var all strings.Builder
	for _, path := range cases {
		c, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(c.Files[len(c.Files)-1].Data)
	}
	return all.String()
}

// TestEveryMessageHasABadFile looks for every text that the code can say of a file among the golden messages.
func TestEveryMessageHasABadFile(t *testing.T) {
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	all, found := wanted(t), 0
	for _, path := range sources {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if format, ok := messageOf(n); ok {
				found++
				if !pattern(format).MatchString(all) {
					t.Errorf("%s: no bad file is told %q", fset.Position(n.Pos()), format)
				}
			}
			return true
		})
	}
	if found < 80 {
		t.Errorf("only %d messages in the code: the test does not see them", found)
	}
}

// messageOf is the format of a message that a call of fault or at tells.
func messageOf(n ast.Node) (string, bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) < 3 {
		return "", false
	}
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || f.Sel.Name != "fault" && f.Sel.Name != "at" {
		return "", false
	}
	text, ok := call.Args[2].(*ast.BasicLit)
	if !ok {
		return "", false
	}
	s, err := strconv.Unquote(text.Value)
	return s, err == nil
}

var verb = regexp.MustCompile(`%[a-z]`)

// pattern fits what a format can become at the end of a message's first line.
func pattern(format string) *regexp.Regexp {
	parts := verb.Split(format, -1)
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(`(?m):\d+:\d+: ` + strings.Join(parts, ".*") + `$`)
}

// TestEveryKeyHasABadFile wants at least one bad file for every key that can have a wrong value of the right type.
func TestEveryKeyHasABadFile(t *testing.T) {
	faulty := map[string]bool{}
	for _, path := range badFiles(t) {
		_, faults := runBad(t, path)
		for _, f := range faults {
			key := index.ReplaceAllString(f.key, "")
			faulty[key] = true
			faulty["tree."+key] = true // as tree files have it
		}
	}
	// Any value will do: switches, free texts, and numbers that others bound. The keys of settings are the modules' own.
	free := regexp.MustCompile(`^(http\.strip|ldap\.probe|volume\.no-cow|setting\.help|setting\.min|journey\.step\.http\.(body|contains)|` +
		`tree\.ca-bundle|tree\.file\.content|debian\.pool|settings|tree\.user\.(shell|home))$`)
	for _, v := range []any{Profile{}, ModuleSpec{}} {
		for _, key := range leaves(reflect.TypeOf(v), "") {
			if !faulty[key] && !free.MatchString(key) {
				t.Errorf("no bad file has a wrong value of %s", key)
			}
		}
	}
}

// leaves lists the keys of a struct and of those in it, but not the tables themselves.
func leaves(t reflect.Type, prefix string) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return []string{prefix}
	}
	var out []string
	for f := range fields(t) {
		if n := tagName(f); n != "-" && n != "" {
			out = append(out, leaves(f.Type, join(prefix, n))...)
		}
	}
	return out
}
