// Package sheet reads tables as people have them: CSV in whatever encoding and with whatever separator their program wrote.
package sheet

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/unicode"
)

// MaxSize is the most bytes of a file that are read.
const MaxSize = 8 << 20

// Sheet is a table with what was found out about its file.
type Sheet struct {
	Encoding  string // such as UTF-8
	Guessed   bool   // that nothing in the file says so: letters that are not English can be wrong
	Separator rune
	Rows      []Row // those that are not empty
}

// Row is a line of a table, which can reach over several lines of the file.
type Row struct {
	Line  int // the first, from 1
	Cells []string
	Err   error // why it cannot be read
}

// ErrSize says that a file has more than MaxSize bytes.
var ErrSize = errors.New("the file is too big")

// Read reads a table in CSV (RFC 4180) with comma, semicolon or tab between cells.
func Read(r io.Reader) (*Sheet, error) {
	text, s, err := Decode(r)
	if err != nil {
		return nil, err
	}
	first := 0
	if rest, ok := strings.CutPrefix(text, "sep="); ok && len(rest) > 1 && rest[1] < ' ' { // Excel's own
		s.Separator = rune(rest[0])
		_, text, _ = strings.Cut(rest, "\n")
		first = 1
	} else {
		s.Separator = separator(text)
	}
	s.Rows, err = rows(text, s.Separator, first)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Decode reads a text file in UTF-8, UTF-16 or Windows-1252, of which ISO 8859-1 is a part, with "\n" at the ends of lines.
// The sheet says which it was.
func Decode(r io.Reader) (string, *Sheet, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err == nil && len(b) > MaxSize {
		err = ErrSize
	}
	if err != nil {
		return "", nil, fmt.Errorf("cannot read the file: %w", err)
	}
	name, guessed, from := detect(b)
	text, err := from.NewDecoder().Bytes(b)
	if err != nil {
		return "", nil, fmt.Errorf("cannot read the file as %s: %w", name, err)
	}
	lines := strings.ReplaceAll(strings.TrimPrefix(string(text), "\ufeff"), "\r\n", "\n")
	return strings.ReplaceAll(lines, "\r", "\n"), &Sheet{Encoding: name, Guessed: guessed}, nil
}

// detect finds the encoding of a text by its byte order mark, by its form, or by guessing.
func detect(b []byte) (name string, guessed bool, e encoding.Encoding) {
	little := unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM)
	big := unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM)
	switch {
	case bytes.HasPrefix(b, []byte{0xff, 0xfe}):
		return "UTF-16", false, little
	case bytes.HasPrefix(b, []byte{0xfe, 0xff}):
		return "UTF-16", false, big
	case len(b) >= 4 && b[0] != 0 && b[1] == 0 && b[3] == 0: // separators and spaces of every script are ASCII
		return "UTF-16", true, little
	case len(b) >= 4 && b[0] == 0 && b[2] == 0 && b[3] != 0:
		return "UTF-16", true, big
	case utf8.Valid(b):
		return "UTF-8", false, encoding.Nop
	}
	return "Windows-1252", true, charmap.Windows1252
}

// separator is the one that is most often in the first line, outside of quotes.
func separator(text string) rune {
	counts := map[rune]int{}
	quoted := false
	for _, r := range text {
		if r == '"' {
			quoted = !quoted
		}
		if quoted {
			continue
		}
		if r == '\n' && len(counts) > 0 {
			break
		}
		if r == ',' || r == ';' || r == '\t' {
			counts[r]++
		}
	}
	best := ','
	for _, r := range []rune{';', '\t'} {
		if counts[r] > counts[best] {
			best = r
		}
	}
	return best
}

// rows splits text into rows. One that cannot be read is there with its error.
func rows(text string, separator rune, before int) ([]Row, error) {
	r := csv.NewReader(strings.NewReader(text))
	r.Comma, r.FieldsPerRecord = separator, -1
	var all []Row
	for {
		cells, err := r.Read()
		var bad *csv.ParseError
		switch {
		case errors.Is(err, io.EOF):
			return all, nil
		case errors.As(err, &bad):
			all = append(all, Row{Line: before + bad.StartLine, Err: bad.Err})
			continue
		case err != nil: // a separator that cannot be one
			return nil, fmt.Errorf("cannot read the table: %w", err)
		}
		line, _ := r.FieldPos(0)
		if strings.TrimSpace(strings.Join(cells, "")) != "" {
			all = append(all, Row{Line: before + line, Cells: cells})
		}
	}
}

// formula is what begins a formula in a spreadsheet program.
const formula = "=+-@\t\r"

// Safe makes a cell that no spreadsheet program takes for a formula. Plain takes it back.
func Safe(cell string) string {
	if cell != "" && strings.ContainsRune(formula, rune(cell[0])) {
		return "'" + cell
	}
	return cell
}

// Plain is a cell as it was before Safe.
func Plain(cell string) string {
	if len(cell) > 1 && cell[0] == '\'' && strings.ContainsRune(formula, rune(cell[1])) {
		return cell[1:]
	}
	return cell
}
