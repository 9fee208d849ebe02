package deb

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"
)

// Field is one field of a stanza. The lines of a multi-line value are joined by newlines, each without its leading
// blank; a first line that is empty stays, as in "\nline\nline".
type Field struct{ Name, Value string }

// Stanza is one paragraph of a control file, its fields in the order of the file (deb822(5)).
type Stanza []Field

// Get returns the value of a field, or "" if there is none. Names are compared without regard to case (Debian policy
// 5.1).
func (s Stanza) Get(name string) string {
	for _, f := range s {
		if strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

// StanzaReader reads the stanzas of a control file one after the other.
type StanzaReader struct {
	name string
	in   *bufio.Reader
	line int
}

// maxLine bounds a line of a control file; the longest ones in Debian's indexes have some 30 KiB.
const maxLine = 1 << 20

// NewStanzaReader reads from r; name is what errors call it.
func NewStanzaReader(r io.Reader, name string) *StanzaReader {
	return &StanzaReader{name: name, in: bufio.NewReaderSize(r, maxLine)}
}

// Next returns the next stanza, or io.EOF when there is none.
func (r *StanzaReader) Next() (Stanza, error) {
	var s Stanza
	var value []byte // of the last field, which may go on
	end := func() Stanza {
		if len(s) > 0 {
			s[len(s)-1].Value = string(value)
		}
		return s
	}
	for {
		line, err := r.readLine()
		switch {
		case err == io.EOF && len(s) == 0:
			return nil, io.EOF
		case err == io.EOF:
			return end(), nil
		case err != nil:
			return nil, err
		case len(line) == 0 && len(s) > 0:
			return end(), nil
		case len(line) == 0 || line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if len(s) == 0 {
				return nil, r.fault("a continuation line that continues no field")
			}
			value = append(append(value, '\n'), bytes.TrimRight(line[1:], " \t")...)
		default:
			end()
			name, rest, ok := bytes.Cut(line, []byte(":"))
			if !ok || !validName(name) {
				return nil, r.fault("%.40q is not a field", line)
			}
			if s == nil {
				s = make(Stanza, 0, 24) // of an index; more is rare
			}
			s = append(s, Field{Name: string(name)})
			value = append(value[:0], bytes.TrimSpace(rest)...)
		}
	}
}

// readLine returns the next line without its end. It is valid until the next call.
func (r *StanzaReader) readLine() ([]byte, error) {
	line, err := r.in.ReadSlice('\n')
	r.line++
	switch {
	case err == bufio.ErrBufferFull:
		return nil, r.fault("a line of more than %d bytes", maxLine)
	case err == io.EOF && len(line) == 0:
		return nil, io.EOF
	case err != nil && err != io.EOF:
		return nil, fmt.Errorf("cannot read %s: %w", r.name, err)
	}
	if bytes.IndexByte(line, 0) >= 0 {
		return nil, r.fault("a zero byte")
	}
	line = bytes.TrimRight(line, "\r\n")
	if len(bytes.TrimLeft(line, " \t")) == 0 {
		line = line[:0]
	}
	return line, nil
}

// fault is an error at the line last read.
func (r *StanzaReader) fault(format string, args ...any) error {
	return fmt.Errorf("cannot read %s: line %d: %s", r.name, r.line, fmt.Sprintf(format, args...))
}

// validName tells whether name can be the name of a field: printable ASCII but space and colon, not beginning with #
// or - (Debian policy 5.1).
func validName(name []byte) bool {
	for _, c := range name {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(name) > 0 && name[0] != '-'
}
