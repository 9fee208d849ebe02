package deb

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// readStanzas reads all stanzas of s.
func readStanzas(s string) ([]Stanza, error) {
	var all []Stanza
	r := NewStanzaReader(strings.NewReader(s), "test")
	for {
		next, err := r.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, next)
	}
}

func TestStanzaReader(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []Stanza
	}{
		{"empty", "", nil},
		{"only blank lines", "\n \n\t\n", nil},
		{"one", "A: b\n", []Stanza{{{"A", "b"}}}},
		{"no last newline", "A: b", []Stanza{{{"A", "b"}}}},
		{"two", "A: b\nC:d\n\n\nE: f\n", []Stanza{{{"A", "b"}, {"C", "d"}}, {{"E", "f"}}}},
		{"line of blanks ends a stanza", "A: b\n \nC: d\n", []Stanza{{{"A", "b"}}, {{"C", "d"}}}},
		{"lines", "A: b\n c\n\td\nE:\n f\n", []Stanza{{{"A", "b\nc\nd"}, {"E", "\nf"}}}},
		{"deeper lines keep their blanks", "A:\n  b\n .\n", []Stanza{{{"A", "\n b\n."}}}},
		{"comments", "# x\nA: b\n# y\n c\n", []Stanza{{{"A", "b\nc"}}}},
		{"colons", "A: b:c\n", []Stanza{{{"A", "b:c"}}}},
		{"carriage returns", "A: b\r\n c\r\n\r\nD: e\r\n", []Stanza{{{"A", "b\nc"}}, {{"D", "e"}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := readStanzas(c.text)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestStanzaReaderRefuses(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"continuation first", " a\n", "line 1: a continuation line"},
		{"no colon", "A: b\nnonsense\n", "line 2"},
		{"no name", ": b\n", "line 1"},
		{"blank in name", "A b: c\n", "line 1"},
		{"dash first", "-----BEGIN: x\n", "line 1"},
		{"zero byte", "A: b\nC: \x00\n", "line 2: a zero byte"},
		{"endless line", "A: " + strings.Repeat("x", maxLine), "line 1: a line of more than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := readStanzas(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want it to say %q", err, c.want)
			}
		})
	}
}

// FuzzStanzas checks that what was read can be written and read again.
func FuzzStanzas(f *testing.F) {
	f.Add("A: b\n c\n\nD:\n e\n")
	f.Add("# c\nA:b\r\n\td\n .\n")
	f.Add(controlText)
	f.Fuzz(func(t *testing.T, text string) {
		first, err := readStanzas(text)
		if err != nil {
			return
		}
		var b strings.Builder
		for _, s := range first {
			for _, field := range s {
				fmt.Fprintf(&b, "%s: %s\n", field.Name, strings.ReplaceAll(field.Value, "\n", "\n "))
			}
			b.WriteString("\n")
		}
		second, err := readStanzas(b.String())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(first, second); d != "" {
			t.Error(d)
		}
	})
}
