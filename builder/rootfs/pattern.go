package rootfs

import (
	"path"
	"strings"
)

// split cuts a path into its elements.
func split(p string) []string {
	return strings.FieldsFunc(p, func(r rune) bool { return r == '/' })
}

// Match tells whether the absolute path p fits pattern: elements are as in path.Match, and ** stands for any number of
// elements. A malformed pattern fits nothing; profile.Load refuses it.
func Match(pattern, p string) bool { return matchElements(split(pattern), split(p)) }

func matchElements(pattern, p []string) bool {
	if len(pattern) == 0 {
		return len(p) == 0
	}
	if pattern[0] == "**" {
		return matchElements(pattern[1:], p) || len(p) > 0 && matchElements(pattern, p[1:])
	}
	if len(p) == 0 {
		return false
	}
	ok, err := path.Match(pattern[0], p[0])
	return ok && err == nil && matchElements(pattern[1:], p[1:])
}

// matcher finds the paths that fit patterns. A pattern that fits a folder fits all that is in it.
type matcher struct {
	patterns [][]string
	used     []bool
	fits     map[string]bool // folders that fit
}

func newMatcher(patterns []string) *matcher {
	m := &matcher{used: make([]bool, len(patterns)), fits: map[string]bool{}}
	for _, p := range patterns {
		m.patterns = append(m.patterns, split(p))
	}
	return m
}

// match must be asked for a folder before it is asked for what is in it.
func (m *matcher) match(p string) bool {
	fits, elements := m.fits[path.Dir(p)], split(p)
	for i, pattern := range m.patterns {
		if matchElements(pattern, elements) {
			fits, m.used[i] = true, true
		}
	}
	if fits {
		m.fits[p] = true
	}
	return fits
}

// unused returns the patterns that fitted nothing.
func (m *matcher) unused(patterns []string) []string {
	var out []string
	for i, p := range patterns {
		if !m.used[i] {
			out = append(out, p)
		}
	}
	return out
}
