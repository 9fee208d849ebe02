package modulecheck

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"allotment/builder/profile"
)

// ErrForgotten is what Report.Err wraps.
var ErrForgotten = errors.New("paths that scripts make are not declared")

// Finding is one thing that the module's tree lacks.
type Finding struct {
	Path string
	What string // for people; what a normal installation has there
	More int    // number of further findings in the folder Path, which is missing as a whole
}

// Ignored is a rule of the declaration and what it ignored.
type Ignored struct {
	profile.Ignore
	Tree  string
	Paths int
}

// Report is the result of a check.
type Report struct {
	Module   string
	Findings []Finding // sorted by path
	Ignored  []Ignored // in the order of the declarations
}

func newReport(decls []*profile.Tree) *Report {
	r := &Report{Module: decls[len(decls)-1].Name}
	for _, d := range decls {
		for _, i := range d.Ignore {
			r.Ignored = append(r.Ignored, Ignored{Ignore: i, Tree: d.Name})
		}
	}
	return r
}

// add adds a finding, unless the declaration ignores it or the folder that it is in is missing.
func (r *Report) add(path, what string) {
	for i := range r.Ignored {
		if fits(r.Ignored[i].Path, path) {
			r.Ignored[i].Paths++
			return
		}
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		if strings.HasPrefix(path, f.Path+"/") && strings.HasPrefix(f.What, "missing folder") {
			f.More++
			return
		}
	}
	r.Findings = append(r.Findings, Finding{Path: path, What: what})
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return strings.Compare(a.Path, b.Path) })
}

// Err is nil when nothing was forgotten.
func (r *Report) Err() error {
	if len(r.Findings) == 0 {
		return nil
	}
	return fmt.Errorf("cannot vouch for module %q: %w: %d; declare them, or say in an ignore entry why not",
		r.Module, ErrForgotten, len(r.Findings))
}

// Write writes the report for people.
func (r *Report) Write(to io.Writer) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	for _, f := range r.Findings {
		more := ""
		if f.More > 0 {
			more = fmt.Sprintf(", and %d more in it", f.More)
		}
		fmt.Fprintf(w, "%s\t%s%s\n", f.Path, f.What, more)
	}
	for _, i := range r.Ignored {
		if i.Paths > 0 {
			fmt.Fprintf(w, "ignored: %s\t%d, by %s: %s\n", i.Path, i.Paths, i.Tree, i.Why)
		}
	}
	return w.Flush()
}
