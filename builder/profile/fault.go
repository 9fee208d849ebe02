package profile

import (
	"fmt"
	"strings"
)

// Fault is one thing that is wrong in a file that a person wrote.
type Fault struct {
	File      string
	Line, Col int // from 1; columns count bytes
	Message   string
	Remedy    string // may be empty
	key       string // whose value is wrong, where that is known
	excerpt   string // the line of text
	width     int    // bytes to underline
}

// Error tells the fault with its place, the line that it is in, and what to do.
func (f *Fault) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: %s", f.File, f.Line, f.Col, f.Message)
	if strings.TrimSpace(f.excerpt) != "" {
		lead := strings.Map(blank, f.excerpt[:min(f.Col-1, len(f.excerpt))])
		width := max(1, min(f.width, len(f.excerpt)-(f.Col-1)))
		fmt.Fprintf(&b, "\n%6d | %s\n       | %s%s", f.Line, f.excerpt, lead, strings.Repeat("^", width))
	}
	if f.Remedy != "" {
		fmt.Fprintf(&b, "\n         %s", f.Remedy)
	}
	return b.String()
}

// blank keeps tabs, so that what stands below them lines up.
func blank(r rune) rune {
	if r == '\t' {
		return r
	}
	return ' '
}

// Faults are all that is wrong, in the order of files and lines.
type Faults []*Fault

// Error tells every fault.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, e := range f {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the single faults.
func (f Faults) Unwrap() []error {
	errs := make([]error, len(f))
	for i, e := range f {
		errs[i] = e
	}
	return errs
}

// suggest returns the candidate that a misspelt word most likely means, or "".
func suggest(word string, candidates []string) string {
	best, least := "", max(2, len(word)/3)+1
	for _, c := range candidates {
		if d := distance(word, c); d < least {
			best, least = c, d
		}
	}
	return best
}

// distance is the number of letters to insert, delete or replace to make b of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// oneOf is the remedy that names what is allowed, with the likeliest first where one is near.
func oneOf(word string, allowed []string) string {
	if s := suggest(word, allowed); s != "" && word != "" {
		return fmt.Sprintf("did you mean %q? Allowed: %s", s, strings.Join(allowed, ", "))
	}
	if len(allowed) == 0 {
		return "there are none"
	}
	return "allowed: " + strings.Join(allowed, ", ")
}
