package sentence

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// speakers are the packages of the box whose sentences officers read.
var speakers = []string{"init/supervisor", "init/backup", "init/check", "init/reaper", "updater", "updater/gate",
	"updater/letter", "updater/schedule", "updater/install/check.go", "init/container/cgroup.go", "image/value.go",
	"portal/mail/relay.go"}

// TestBox looks that the catalogues have every sentence of the box's sources, so that a new one cannot be forgotten.
func TestBox(t *testing.T) {
	languages, err := Languages(Files)
	if err != nil || len(languages) == 0 {
		t.Fatal("no languages", err)
	}
	for _, tag := range languages {
		c := read(t, tag)
		for _, dir := range speakers {
			all := sentencesOf(t, filepath.Join("../..", dir))
			if len(all) == 0 {
				t.Errorf("no sentences were found in %s", dir)
			}
			for _, s := range all {
				if !knows(c, s.text) {
					t.Errorf("%s: no %s for %q", s.at, tag, s.text)
				}
			}
		}
	}
}

// knows tells whether the catalogue has the sentence as a whole, without values that have swallowed words of it.
func knows(c *Catalogue, text string) bool {
	if _, ok := c.whole(text); !ok || c.terms[text] != "" {
		return c.terms[text] != ""
	}
	for _, p := range c.patterns {
		m := p.form.FindStringSubmatch(text)
		if m == nil || !p.fits(m[1:]) {
			continue
		}
		for i, v := range m[1:] {
			if p.names[i][0] == '{' && someWord.MatchString(v) && c.terms[v] == "" {
				return false
			}
		}
		return true
	}
	return false
}

type found struct{ at, text string }

// sentencesOf are the sentences that a package tells people, with 7 for what is filled in.
func sentencesOf(t *testing.T, dir string) []found {
	t.Helper()
	files := token.NewFileSet()
	names := []string{dir}
	if filepath.Ext(dir) == "" {
		names, _ = filepath.Glob(filepath.Join(dir, "*.go"))
	}
	l := listener{constants: map[string]string{}}
	var all []*ast.File
	for _, name := range names {
		if base := filepath.Base(name); strings.HasSuffix(base, "_test.go") || base == "developer.go" {
			continue // developers read English
		}
		f, err := parser.ParseFile(files, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, f)
		l.declared(f)
	}
	for _, f := range all {
		l.package_ = f.Name.Name
		for _, d := range f.Decls {
			l.declaration(d)
		}
	}
	var out []found
	for _, s := range l.heard {
		if text := sample(s.text); sentence(text) {
			out = append(out, found{files.Position(s.at).String(), text})
		}
	}
	return out
}

// hole stands for what is filled in while sentences are put together.
const hole = "\x00"

func sample(text string) string { return strings.TrimSpace(strings.ReplaceAll(text, hole, "7")) }

var someWord = regexp.MustCompile(`\p{Ll}{4}`)

// sentence tells whether a text has words of its own.
func sentence(text string) bool {
	return strings.Contains(text, " ") && someWord.MatchString(text)
}

type saying struct {
	at   token.Pos
	text string
}

// listener hears what the sources tell people.
type listener struct {
	package_  string
	constants map[string]string
	locals    map[string][]ast.Expr // what is assigned to the variables of the function
	heard     []saying
}

func (l *listener) declared(f *ast.File) {
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		for i := range v0(v, ok) {
			if text, ok := literal(v.Values[i]); ok {
				l.constants[v.Names[i].Name] = text
			}
		}
		return true
	})
}

func v0(v *ast.ValueSpec, ok bool) []ast.Expr {
	if !ok {
		return nil
	}
	return v.Values
}

func literal(e ast.Expr) (string, bool) {
	b, ok := e.(*ast.BasicLit)
	if !ok || b.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(b.Value)
	return text, err == nil
}

// tellers are functions that return words for people, by package.
var tellers = map[string][]string{
	"supervisor": {"neededBy", "howItEnded", "migrating"},
	"reaper":     {"Error"},
	"mail":       {"Check"},
	"container":  {"outOfMemory"},
	"image":      {"Check", "checkInteger", "checkText", "checkForm", "checkCharacters"},
	"backup":     {"inWords", "days", "text"},
	"check":      {"*"},
	"letter":     {"*"},
	"schedule":   {"Due", "Check"},
	"updater":    {"refusal"},
	"gate":       {"said", "staged", "canGoBack"},
}

// plain are packages whose errors officers read, but for those that begin with "cannot", which say what a program did.
var plain = []string{"backup", "supervisor", "install"}

func (l *listener) declaration(d ast.Decl) {
	f, isFunc := d.(*ast.FuncDecl)
	l.locals = map[string][]ast.Expr{}
	ast.Inspect(d, func(n ast.Node) bool {
		if a, ok := n.(*ast.AssignStmt); ok && len(a.Lhs) == len(a.Rhs) {
			for i, left := range a.Lhs {
				if id, ok := left.(*ast.Ident); ok && a.Tok != token.ADD_ASSIGN {
					l.locals[id.Name] = append(l.locals[id.Name], a.Rhs[i])
				}
			}
		}
		return true
	})
	names := tellers[l.package_]
	tells := isFunc && (slices.Contains(names, "*") || slices.Contains(names, f.Name.Name))
	ast.Inspect(d, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.KeyValueExpr:
			if key, ok := n.Key.(*ast.Ident); ok && slices.Contains([]string{"Text", "Reason", "Problem", "Message"}, key.Name) {
				l.hear(n.Value)
			}
		case *ast.AssignStmt:
			l.assigned(n)
		case *ast.CallExpr:
			l.called(n, tells)
		case *ast.ReturnStmt:
			for _, r := range n.Results {
				if tells {
					l.hear(r)
				}
			}
		}
		return true
	})
}

func (l *listener) assigned(a *ast.AssignStmt) {
	for i, left := range a.Lhs {
		s, ok := left.(*ast.SelectorExpr)
		if ok && len(a.Rhs) == len(a.Lhs) && slices.Contains([]string{"Text", "Reason", "Problem", "problem"}, s.Sel.Name) {
			before := ""
			if a.Tok == token.ADD_ASSIGN {
				before = hole
			}
			for _, text := range l.texts(a.Rhs[i], 3) {
				l.heard = append(l.heard, saying{a.Pos(), before + text})
			}
		}
	}
}

// called hears what is given to functions that tell people.
func (l *listener) called(c *ast.CallExpr, tells bool) {
	name, of := "", ""
	switch f := c.Fun.(type) {
	case *ast.Ident:
		name = f.Name
	case *ast.SelectorExpr:
		name = f.Sel.Name
		if x, ok := f.X.(*ast.Ident); ok {
			of = x.Name
		}
	}
	switch {
	case of == "api" && name == "Errorf":
		l.hearFormat(c.Args[1:])
	case name == "doing":
		l.hearFormat(c.Args)
	case of == "fmt" && name == "Errorf" || of == "errors" && name == "New":
		if text, _ := literal(c.Args[0]); tells || slices.Contains(plain, l.package_) && !strings.HasPrefix(text, "cannot ") {
			l.hearFormat(c.Args)
		}
	case name == "failed" && len(c.Args) == 4: // of the supervisor, which puts the event together
		for _, what := range l.texts(c.Args[1], 3) {
			l.heard = append(l.heard, saying{c.Pos(), hole + " " + what + ": " + hole})
		}
	case name == "Tell", name == "kill":
		for _, a := range c.Args[1:] {
			l.hear(a)
		}
	case name == "reset", name == "stop", name == "letter":
		for _, a := range c.Args {
			l.hear(a)
		}
	}
}

var verb = regexp.MustCompile(`%[-+# 0]*[0-9]*(\.[0-9]+)?[a-zA-Z]`)

func format(text string) string {
	return strings.ReplaceAll(verb.ReplaceAllString(text, hole), "%%", "%")
}

func (l *listener) hearFormat(args []ast.Expr) {
	for _, text := range l.texts(args[0], 3) {
		l.heard = append(l.heard, saying{args[0].Pos(), format(text)})
	}
}

func (l *listener) hear(e ast.Expr) {
	for _, text := range l.texts(e, 3) {
		l.heard = append(l.heard, saying{e.Pos(), text})
	}
}

// texts are what an expression can be, with holes. Variables are followed a few steps back.
func (l *listener) texts(e ast.Expr, depth int) []string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if text, ok := literal(e); ok {
			return []string{text}
		}
	case *ast.ParenExpr:
		return l.texts(e.X, depth)
	case *ast.BinaryExpr:
		if e.Op != token.ADD {
			break
		}
		var all []string
		for _, a := range l.texts(e.X, depth) {
			for _, b := range l.texts(e.Y, depth) {
				all = append(all, a+b)
			}
		}
		return all
	case *ast.Ident:
		if text, ok := l.constants[e.Name]; ok {
			return []string{text}
		}
		if values := l.locals[e.Name]; depth > 0 && len(values) > 0 {
			var all []string
			for _, v := range values {
				all = append(all, l.texts(v, depth-1)...)
			}
			return all
		}
	case *ast.CallExpr:
		if s, ok := e.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Sprintf" {
			var all []string
			for _, text := range l.texts(e.Args[0], depth) {
				all = append(all, l.sprintf(format(text), e.Args[1:], depth)...)
			}
			return all
		}
	}
	return []string{hole}
}

// sprintf fills in what is known of the arguments.
func (l *listener) sprintf(text string, args []ast.Expr, depth int) []string {
	all := []string{""}
	parts := strings.Split(text, hole)
	for i, part := range parts {
		var next []string
		values := []string{""}
		if i > 0 {
			values = []string{hole}
			if i <= len(args) {
				values = l.texts(args[i-1], depth-1)
			}
		}
		for _, before := range all {
			for _, v := range values {
				next = append(next, before+v+part)
			}
		}
		all = next
	}
	return all
}
