// Package ldif reads and writes entries in the LDAP Data Interchange Format (RFC 2849): content records, no changes.
package ldif

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Record is an entry.
type Record struct {
	Line       int // where it begins, from 1
	DN         string
	Attributes []Attribute
	Err        error // why it cannot be read
}

// Attribute is one value of an attribute.
type Attribute struct {
	Name, Value string
}

// Values are those of the attribute with the name, in whatever case.
func (r *Record) Values(name string) []string {
	var all []string
	for _, a := range r.Attributes {
		if strings.EqualFold(a.Name, name) {
			all = append(all, a.Value)
		}
	}
	return all
}

// First is the first of Values, or "".
func (r *Record) First(name string) string {
	if v := r.Values(name); len(v) > 0 {
		return v[0]
	}
	return ""
}

// Why a record cannot be read.
var (
	ErrLine   = errors.New("a line is neither NAME: VALUE nor the rest of one")
	ErrNoDN   = errors.New("it does not begin with dn")
	ErrChange = errors.New("it is a change, not an entry")
	ErrURL    = errors.New("a value is in another file")
)

// Parse splits a text into records. One that cannot be read is there with its error.
func Parse(text string) []Record {
	var all []Record
	var lines []string
	start := 0
	end := func() {
		if r, ok := parseRecord(unfold(lines)); ok {
			r.Line = start
			all = append(all, r)
		}
		lines = nil
	}
	for i, line := range strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n") {
		if line == "" {
			end()
			continue
		}
		if len(lines) == 0 {
			start = i + 1
		}
		lines = append(lines, line)
	}
	end()
	return all
}

// unfold joins lines with those that go on with a space, and leaves comments out.
func unfold(lines []string) []string {
	var whole []string
	for _, line := range lines {
		if rest, ok := strings.CutPrefix(line, " "); ok && len(whole) > 0 {
			whole[len(whole)-1] += rest
			continue
		}
		whole = append(whole, line)
	}
	kept := whole[:0]
	for _, line := range whole {
		if !strings.HasPrefix(line, "#") {
			kept = append(kept, line)
		}
	}
	return kept
}

// parseRecord reads one record; there is none in comments and the version alone.
func parseRecord(lines []string) (r Record, ok bool) {
	if len(lines) > 0 && strings.HasPrefix(lines[0], "version:") {
		lines = lines[1:]
	}
	for i, line := range lines {
		name, value, err := parseLine(line)
		switch {
		case err != nil:
		case i == 0 && strings.EqualFold(name, "dn"):
			r.DN = value
		case i == 0:
			err = ErrNoDN
		case strings.EqualFold(name, "changetype"), strings.EqualFold(name, "control"):
			err = ErrChange
		default:
			r.Attributes = append(r.Attributes, Attribute{name, value})
		}
		if err != nil {
			r.Err = err
			break
		}
	}
	return r, len(lines) > 0
}

// parseLine splits a line into name, without options such as a language, and value.
func parseLine(line string) (name, value string, err error) {
	name, value, ok := strings.Cut(line, ":")
	name, _, _ = strings.Cut(name, ";")
	switch {
	case !ok || name == "":
		return "", "", ErrLine
	case strings.HasPrefix(value, "<"):
		return "", "", ErrURL
	case strings.HasPrefix(value, ":"):
		b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(value[1:]))
		return name, string(b), err
	}
	return name, strings.TrimLeft(value, " "), nil
}

// Write writes records.
func Write(w io.Writer, records ...Record) error {
	b := bufio.NewWriter(w)
	for _, r := range records {
		writeLine(b, "dn", r.DN)
		for _, a := range r.Attributes {
			writeLine(b, a.Name, a.Value)
		}
		b.WriteByte('\n')
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("cannot write entries: %w", err)
	}
	return nil
}

// width is the most bytes of a line that programs such as slapcat write.
const width = 76

func writeLine(w *bufio.Writer, name, value string) {
	line := name + ": " + value
	if !safe(value) {
		line = name + ":: " + base64.StdEncoding.EncodeToString([]byte(value))
	}
	for len(line) > width {
		w.WriteString(line[:width] + "\n")
		line = " " + line[width:]
	}
	w.WriteString(line + "\n")
}

// safe says whether a value is a SAFE-STRING that does not end with a space (RFC 2849, note 8).
func safe(value string) bool {
	if value == "" {
		return true
	}
	return !strings.ContainsAny(value[:1], " :<") && value[len(value)-1] != ' ' &&
		!strings.ContainsFunc(value, func(r rune) bool { return r == 0 || r == '\n' || r == '\r' || r > 126 })
}
