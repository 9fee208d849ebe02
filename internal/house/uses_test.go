package house

import (
	"fmt"
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

// useRule keeps the use of some names of other packages to a few of our folders.
type useRule struct {
	names []string // import paths, or import path, point and name
	in    []string // folders that the rule binds; none: all
	only  []string // folders that may
	tests bool     // whether the rule binds tests too
	why   string
}

var useRules = []useRule{
	{names: []string{"os/exec"},
		only: []string{"internal/run", "builder/tools", "qemu-tests/vm", "qemu-tests/browser", "init/reaper", "qemu-tests/probe"},
		why:  "one package on each side starts processes, so that none is forgotten, waited for twice or left behind"},
	{names: []string{"syscall.ForkExec", "syscall.StartProcess", "os.StartProcess",
		"syscall.Wait4", "golang.org/x/sys/unix.Wait4", "golang.org/x/sys/unix.Waitid"},
		only: []string{"internal/run", "builder/tools", "qemu-tests/vm", "init/reaper", "qemu-tests/probe"},
		why:  "one package on each side starts processes and waits for them: two that wait steal each other's children"},
	{names: []string{"log", "math/rand"},
		why: "libraries do not log, log/slog is injected where it is needed; randomness that matters is crypto/rand"},
	{names: []string{"time.Now", "crypto/rand.Read", "crypto/rand.Text"},
		in: []string{"image", "builder/rootfs", "builder/oci", "builder/initrd", "builder/deb"}, only: []string{"image/layer"},
		why: "the same inputs must give the same bytes: time and randomness are passed in"},
}

// checkUses returns every use of a name where no rule allows it.
func checkUses(tr *tree, rules []useRule) []string {
	var findings []string
	for _, s := range tr.sources {
		folder := strings.TrimPrefix(s.pkg, modulePath+"/")
		for _, rule := range rules {
			if rule.binds(s, folder) {
				findings = append(findings, rule.breaches(tr.fset, s)...)
			}
		}
	}
	return findings
}

func (r useRule) binds(s source, folder string) bool {
	return (len(r.in) == 0 || below(folder, r.in...)) && !below(folder, r.only...) && (r.tests || !s.test)
}

func (r useRule) breaches(fset *token.FileSet, s source) []string {
	var findings []string
	found := func(n ast.Node, name string) {
		findings = append(findings, fmt.Sprintf("%s: use of %s: %s", fset.Position(n.Pos()), name, r.why))
	}
	imports := s.imports()
	ast.Inspect(s.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			if p := importPath(n); r.has(p) {
				found(n, p)
			}
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && imports[x.Name] != "" && r.has(imports[x.Name]+"."+n.Sel.Name) {
				found(n, imports[x.Name]+"."+n.Sel.Name)
			}
		}
		return true
	})
	return findings
}

func (r useRule) has(name string) bool {
	for _, n := range r.names {
		if n == name {
			return true
		}
	}
	return false
}

// checkPackages returns packages without a package comment, and init functions.
func checkPackages(tr *tree) []string {
	var findings []string
	documented := map[string]bool{}
	folder := map[string]string{}
	for _, s := range tr.sources {
		if s.test {
			continue
		}
		folder[s.pkg] = s.name
		documented[s.pkg] = documented[s.pkg] || s.ast.Doc.Text() != ""
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == "init" && f.Recv == nil {
				findings = append(findings, fmt.Sprintf("%s: func init: what a program does is to be read from its main",
					tr.fset.Position(f.Pos())))
			}
		}
	}
	for pkg, file := range folder {
		if !documented[pkg] {
			findings = append(findings, fmt.Sprintf("%s:1: package %s has no package comment", file, pkg))
		}
	}
	return findings
}

func TestUses(t *testing.T) { wantNone(t, checkUses(ours(t), useRules)) }

func TestPackages(t *testing.T) { wantNone(t, checkPackages(ours(t))) }

func TestUsesTwin(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"os/exec": {
			"image/disk/a.go":   "package disk\n\nimport \"os/exec\"\n\nvar _ = exec.Command",
			"internal/run/a.go": "package run\nimport \"os/exec\"\nvar _ = exec.Command",
			"gateway/a_test.go": "package gateway\nimport \"os/exec\"\nvar _ = exec.Command",
		},
		"os.StartProcess":             {"gateway/a.go": "package gateway\n\nimport \"os\"\nvar _ = os.StartProcess"},
		"golang.org/x/sys/unix.Wait4": {"init/boot/a.go": "package boot\n\nimport u \"golang.org/x/sys/unix\"\nvar _ = u.Wait4"},
		"time.Now":                    {"image/uki/a.go": "package uki\n\nimport \"time\"\nvar _ = time.Now()"},
	} {
		t.Run(name, func(t *testing.T) {
			wantOne(t, checkUses(planted(t, files), useRules), ".go:", "use of "+name+": ")
		})
	}
}

func TestPackagesTwin(t *testing.T) {
	wantOne(t, checkPackages(planted(t, map[string]string{"x/a.go": "package x", "x/a_test.go": "// Package x is.\npackage x"})),
		"x/a.go:1", "package allotment/x has no package comment")
	wantOne(t, checkPackages(planted(t, map[string]string{"x/a.go": "// Package x is.\npackage x\nfunc init() {}"})),
		"x/a.go:3:1", "func init")
}
