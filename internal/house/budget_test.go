package house

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/format"
	"slices"
	"strings"
	"testing"
)

// budget is what a kind of thing may measure in lines: nine tenths of them P90, every one Max.
type budget struct{ p90, max int }

var (
	functionBudget = budget{p90: 45, max: 120}
	fileBudget     = budget{p90: 500, max: 800}
)

// length is one measured thing.
type length struct {
	where string
	lines int
}

// measure returns the functions and files of the tree, of its tests or of the rest, longest last.
func measure(tr *tree, tests bool) (functions, files []length) {
	for _, s := range tr.sources {
		if s.test != tests || ast.IsGenerated(s.ast) {
			continue
		}
		files = append(files, length{s.name, bytes.Count(s.text, []byte("\n"))})
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				first, last := tr.fset.Position(f.Pos()), tr.fset.Position(f.End())
				functions = append(functions, length{fmt.Sprintf("%s: func %s", first, f.Name.Name), last.Line - first.Line + 1})
			}
		}
	}
	longest := func(a, b length) int { return cmp.Compare(a.lines, b.lines) }
	slices.SortStableFunc(functions, longest)
	slices.SortStableFunc(files, longest)
	return functions, files
}

// quantile is the length that a share of all, in per cent, does not exceed.
func quantile(sorted []length, percent int) int {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)-1)*percent/100].lines
}

// breaches returns what exceeds the budget. P90 binds only where there are enough for it to mean something.
func (b budget) breaches(what string, sorted []length, p90 bool) []string {
	var findings []string
	for _, l := range sorted {
		if l.lines > b.max {
			findings = append(findings, fmt.Sprintf("%s has %d lines, more than %d", l.where, l.lines, b.max))
		}
	}
	if got := quantile(sorted, 90); p90 && len(sorted) >= 10 && got > b.p90 {
		findings = append(findings, fmt.Sprintf("one in ten %s has more than %d lines, the budget is %d", what, got, b.p90))
	}
	return findings
}

// checkBudgets returns the breaches and a table of all that was measured.
func checkBudgets(tr *tree) (findings []string, table string) {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%-16s %6s %7s %5s %5s   budget of p90, max\n", "lines of", "number", "median", "p90", "max")
	row := func(name string, l []length, limit budget, p90 bool) {
		fmt.Fprintf(&b, "%-16s %6d %7d %5d %5d   ", name, len(l), quantile(l, 50), quantile(l, 90), quantile(l, 100))
		if p90 {
			fmt.Fprintf(&b, "%d, ", limit.p90)
		}
		fmt.Fprintf(&b, "%d\n", limit.max)
		findings = append(findings, limit.breaches(name, l, p90)...)
	}
	functions, files := measure(tr, false)
	row("functions", functions, functionBudget, true)
	row("files", files, fileBudget, true)
	functions, files = measure(tr, true)
	row("test functions", functions, functionBudget, false)
	row("test files", files, fileBudget, false)
	return findings, b.String()
}

// checkFormat returns the files that gofmt would change.
func checkFormat(tr *tree) []string {
	var findings []string
	for _, s := range tr.sources {
		if want, err := format.Source(s.text); err != nil || !bytes.Equal(want, s.text) {
			findings = append(findings, s.name+": not as gofmt writes it")
		}
	}
	return findings
}

func TestBudgets(t *testing.T) {
	findings, table := checkBudgets(ours(t))
	t.Log(table)
	wantNone(t, findings)
}

func TestFormat(t *testing.T) { wantNone(t, checkFormat(ours(t))) }

func TestBudgetsTwin(t *testing.T) {
	function := func(lines int) string { return "func f() {" + strings.Repeat("\n", lines-1) + "}\n" }
	for name, c := range map[string]struct{ text, want string }{
		"long function": {"package a\n\n" + function(121), "a.go:3:1: func f has 121 lines, more than 120"},
		"long file":     {"package a\n" + strings.Repeat("\n", 800), "a.go has 801 lines, more than 800"},
		"p90 of functions": {"package a\n" + strings.Repeat(function(2), 8) + strings.Repeat(function(46), 3),
			"one in ten functions has more than 46 lines, the budget is 45"},
	} {
		t.Run(name, func(t *testing.T) {
			findings, _ := checkBudgets(planted(t, map[string]string{"a.go": c.text}))
			wantOne(t, findings, c.want)
		})
	}
	findings, _ := checkBudgets(planted(t, map[string]string{"a.go": "package a\n" + function(120)}))
	wantNone(t, findings)
}

func TestFormatTwin(t *testing.T) {
	wantOne(t, checkFormat(planted(t, map[string]string{"a.go": "package a\nvar  x = 1\n"})), "a.go: not as gofmt")
}
