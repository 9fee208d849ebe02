// Package sentence says in a visitor's language what the box says in English: events, lamps, why an update waits, letters.
// The box has one language, so that what it keeps and prints is the same for everybody who helps; a catalogue has its
// sentences as patterns, and what they are in another language. What is in no catalogue stays English and is marked as such,
// so that programs that read aloud know it.
package sentence

import (
	"cmp"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/pelletier/go-toml/v2"
)

// Files are the catalogues, LANGUAGE.toml: English patterns as keys, and what they are in the language. {name} stands for a
// value, such as a version or a module's title: a name of one letter for a number, one that begins with date for a moment, and
// {error} for what may have sentences in it. [name] stands for a sentence of its own.
//
//go:embed *.toml
var Files embed.FS

// Part is a piece of what is said.
type Part struct {
	Text    string
	English bool // nobody has translated it
}

// Text puts parts together.
func Text(parts []Part) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(p.Text)
	}
	return b.String()
}

// Catalogue is the sentences of one language. It may be used by several goroutines.
type Catalogue struct {
	patterns []pattern         // the most exact first
	terms    map[string]string // texts without holes, among them the words of modules
	moment   func(time.Time, bool) string
}

// pattern is a sentence with holes.
type pattern struct {
	form  *regexp.Regexp
	fixed string // its longest part between holes, to look for first
	exact int    // letters outside of holes
	names []string
	out   []string // texts and holes by turns, beginning with a text
}

// Read reads a language's catalogue. Words are terms of the modules, by their English; moment says a moment, or where clock
// is false a day, in the language.
func Read(files fs.FS, tag string, words map[string]string, moment func(t time.Time, clock bool) string) (*Catalogue, error) {
	b, err := fs.ReadFile(files, tag+".toml")
	var sentences map[string]string
	if err == nil {
		err = toml.Unmarshal(b, &sentences)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the sentences of language %q: %w", tag, err)
	}
	c := &Catalogue{terms: map[string]string{}, moment: moment}
	for english, other := range words {
		c.terms[english] = other
	}
	for english, other := range sentences {
		p, err := newPattern(english, other)
		if err != nil {
			return nil, fmt.Errorf("cannot read the sentences of language %q: %w", tag, err)
		}
		if len(p.names) == 0 {
			c.terms[english] = other
			continue
		}
		c.patterns = append(c.patterns, p)
	}
	slices.SortFunc(c.patterns, func(a, b pattern) int {
		return cmp.Or(cmp.Compare(b.exact, a.exact), cmp.Compare(a.form.String(), b.form.String()))
	})
	return c, nil
}

// Languages are those of the catalogues.
func Languages(files fs.FS) ([]string, error) {
	names, err := fs.Glob(files, "*.toml")
	for i, name := range names {
		names[i] = strings.TrimSuffix(path.Base(name), ".toml")
	}
	return names, err
}

var holeForm = regexp.MustCompile(`\{[a-z][a-z0-9]*\}|\[[a-z][a-z0-9]*\]`)

func newPattern(english, other string) (pattern, error) {
	p := pattern{}
	form := strings.Builder{}
	form.WriteString(`(?s)^`)
	texts, holes := split(english)
	for i, text := range texts {
		if len(text) > len(p.fixed) {
			p.fixed = text
		}
		p.exact += len(text)
		form.WriteString(regexp.QuoteMeta(text))
		if i < len(holes) {
			form.WriteString(valueForm(holes[i]))
		}
	}
	p.form, p.names = regexp.MustCompile(form.String()+"$"), holes
	more, filled := split(other)
	for i, text := range more {
		if p.out = append(p.out, text); i < len(filled) {
			p.out = append(p.out, filled[i])
		}
	}
	want, got := slices.Sorted(slices.Values(holes)), slices.Sorted(slices.Values(filled))
	if len(slices.Compact(slices.Clone(want))) != len(want) || !slices.Equal(want, slices.Compact(got)) {
		return p, fmt.Errorf("%q has the parts %v and %q has %v", english, holes, other, filled)
	}
	if len(holes) > 0 && !strings.ContainsFunc(p.fixed, func(r rune) bool { return unicode.IsLetter(r) || r == '“' }) {
		return p, fmt.Errorf("%q says nothing by itself", english)
	}
	return p, nil
}

// split takes a pattern apart: there is one text more than holes.
func split(s string) (texts, holes []string) {
	at := 0
	for _, x := range holeForm.FindAllStringIndex(s, -1) {
		texts, holes = append(texts, s[at:x[0]]), append(holes, s[x[0]:x[1]])
		at = x[1]
	}
	return append(texts, s[at:]), holes
}

// valueForm is what can stand in a hole. Values are on one line, and as short as can be.
func valueForm(hole string) string {
	switch {
	case len(hole) == 3 && hole[0] == '{':
		return `([0-9]+)`
	case hole[0] == '{':
		return `([^\n]+?)`
	}
	return `(.+)`
}

// Say is the text in the language. Lines are said one by one.
func (c *Catalogue) Say(text string) []Part {
	if trimmed := strings.TrimLeft(text, " -("); trimmed != text && trimmed != "" {
		return merge(append([]Part{{Text: text[:len(text)-len(trimmed)]}}, c.Say(trimmed)...))
	}
	if parts, ok := c.whole(text); ok {
		return parts
	}
	if head, tail, ok := strings.Cut(text, "\n"); ok {
		return merge(append(append(c.Say(head), Part{Text: "\n"}), c.Say(tail)...))
	}
	if parts, ok := c.apart(text); ok {
		return parts
	}
	return []Part{{text, speaks(text)}}
}

// whole says a text that is a term, a list of terms or a pattern; ok is false for others.
func (c *Catalogue) whole(text string) (parts []Part, ok bool) {
	if other, ok := c.terms[text]; ok {
		return []Part{{Text: other}}, true
	}
	if list := strings.Split(text, ", "); !slices.ContainsFunc(list, func(x string) bool { return c.terms[x] == "" }) {
		return []Part{{Text: c.value("", text)}}, true
	}
	for _, p := range c.patterns {
		if !strings.Contains(text, p.fixed) {
			continue
		}
		if m := p.form.FindStringSubmatch(text); m != nil && p.fits(m[1:]) {
			return c.fill(p, m[1:]), true
		}
	}
	return nil, false
}

// fits tells whether all values can be such: only an error has sentences in it.
func (p pattern) fits(values []string) bool {
	for i, v := range values {
		if p.names[i][0] == '{' && p.names[i] != "{error}" && strings.Contains(v, ": ") {
			return false
		}
	}
	return true
}

func (c *Catalogue) fill(p pattern, values []string) []Part {
	var parts []Part
	for i, text := range p.out {
		if i%2 == 0 {
			parts = append(parts, Part{Text: text})
			continue
		}
		value := values[slices.Index(p.names, text)]
		if text[0] == '[' {
			parts = append(parts, c.Say(value)...)
			continue
		}
		parts = append(parts, Part{Text: c.value(text, value)})
	}
	return merge(parts)
}

// moments are the forms in which the box writes moments, and whether they have the time of day.
var moments = []struct {
	form  string
	clock bool
}{
	{"Monday 2 January 2006 at 15:04", true}, {"Monday 2 January at 15:04", true},
	{time.DateTime, true}, {"2 January 2006", false},
}

// value says a value: what the modules or the catalogue have a word for, lists of such words, moments.
func (c *Catalogue) value(hole, text string) string {
	if strings.HasPrefix(hole, "{date") {
		for _, m := range moments {
			if t, err := time.Parse(m.form, strings.TrimPrefix(text, "on ")); err == nil {
				return c.moment(t, m.clock)
			}
		}
	}
	items := strings.Split(text, ", ")
	for i, x := range items {
		items[i] = cmp.Or(c.terms[x], x)
	}
	return strings.Join(items, ", ")
}

// apart says what is put together: sentences with semicolons between them, and a sentence with a name before it.
func (c *Catalogue) apart(text string) ([]Part, bool) {
	if head, tail, ok := strings.Cut(text, "; "); ok {
		a, b := c.Say(head), c.Say(tail)
		return merge(append(append(a, Part{Text: "; "}), b...)), true
	}
	if head, tail, ok := strings.Cut(text, ": "); ok && isName(head) {
		return merge(append([]Part{{Text: c.value("", head) + ": "}}, c.Say(tail)...)), true
	}
	return nil, false
}

// isName tells whether a text is a name, such as that of an organisation or a service, and no sentence: those begin small.
func isName(text string) bool {
	first := []rune(text)[:1]
	return len(first) == 1 && (unicode.IsUpper(first[0]) || !strings.Contains(text, " "))
}

// speaks tells whether a text is more than a name or a number.
func speaks(text string) bool {
	return strings.ContainsFunc(text, unicode.IsLetter) && strings.Contains(strings.TrimSpace(text), " ")
}

// merge joins neighbours of the same language.
func merge(parts []Part) []Part {
	var all []Part
	for _, p := range parts {
		switch n := len(all); {
		case p.Text == "":
		case n > 0 && all[n-1].English == p.English:
			all[n-1].Text += p.Text
		default:
			all = append(all, p)
		}
	}
	return all
}
