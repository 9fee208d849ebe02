package sheet

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/unicode"
)

// TestRead reads one table as several programs write it.
func TestRead(t *testing.T) {
	const table = "Vorname;Nachname;Notiz\r\nJürgen;Groß;\"zwei\r\nZeilen; ein \"\"Zitat\"\"\"\r\n\r\n;;\r\nÅsa;Łuk;\r\n"
	encode := func(e encoding.Encoding, s string) string {
		b, err := e.NewEncoder().String(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	western := strings.ReplaceAll(table, "Łuk", "Lök")
	for name, c := range map[string]struct {
		file, encoding string
		guessed        bool
		separator      rune
	}{
		"plain":      {table, "UTF-8", false, ';'},
		"with BOM":   {"\ufeff" + table, "UTF-8", false, ';'},
		"sep line":   {"sep=;\r\n" + table, "UTF-8", false, ';'},
		"UTF-16 LE":  {encode(unicode.UTF16(unicode.LittleEndian, unicode.UseBOM), table), "UTF-16", false, ';'},
		"UTF-16 BE":  {encode(unicode.UTF16(unicode.BigEndian, unicode.UseBOM), table), "UTF-16", false, ';'},
		"no mark LE": {encode(unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM), table), "UTF-16", true, ';'},
		"no mark BE": {encode(unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM), table), "UTF-16", true, ';'},
		"Latin-1":    {encode(charmap.ISO8859_1, western), "Windows-1252", true, ';'},
		"comma":      {strings.ReplaceAll(strings.ReplaceAll(table, "; ein", ", ein"), ";", ","), "UTF-8", false, ','},
		"tab":        {strings.ReplaceAll(table, ";", "\t"), "UTF-8", false, '\t'},
		"old Mac":    {strings.ReplaceAll(table, "\r\n", "\r"), "UTF-8", false, ';'},
	} {
		s, err := Read(strings.NewReader(c.file))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if s.Encoding != c.encoding || s.Guessed != c.guessed || s.Separator != c.separator || len(s.Rows) != 3 {
			t.Errorf("%s: %+v", name, s)
			continue
		}
		first := 0
		if name == "sep line" {
			first = 1
		}
		if s.Rows[1].Line != first+2 || s.Rows[1].Cells[0] != "Jürgen" || !strings.HasPrefix(s.Rows[1].Cells[2], "zwei\nZeilen") ||
			!strings.HasSuffix(s.Rows[1].Cells[2], `"Zitat"`) || s.Rows[2].Line != first+6 || s.Rows[2].Cells[0] != "Åsa" {
			t.Errorf("%s: %+v", name, s.Rows)
		}
	}
}

// TestBadRows look that one bad row is told and costs no other.
func TestBadRows(t *testing.T) {
	s, err := Read(strings.NewReader("a,b\n1,x\"y\n2,z\n3,\"open\n"))
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, r := range s.Rows {
		if r.Err != nil {
			got = append(got, r.Line)
		}
	}
	if !slices.Equal(got, []int{2, 4}) || len(s.Rows) != 4 || s.Rows[2].Cells[1] != "z" {
		t.Errorf("bad are the lines %v of %+v", got, s.Rows)
	}
	if _, err := Read(strings.NewReader(strings.Repeat("x", MaxSize+1))); err == nil {
		t.Error("a file of any size is read")
	}
}

func TestSafe(t *testing.T) {
	for _, cell := range []string{"=1+1", "+44 1", "-x", "@SUM(A1)", "\tx", "O'Neil", "'quoted", "", "plain", "'"} {
		safe := Safe(cell)
		if strings.ContainsRune(formula, []rune(safe + "x")[0]) {
			t.Errorf("%q stays a formula", cell)
		}
		if got := Plain(safe); got != cell {
			t.Errorf("%q comes back as %q", cell, got)
		}
	}
}

// FuzzRead looks that every file ends in rows or an error, each row with its line and cells of valid text.
func FuzzRead(f *testing.F) {
	for _, s := range []string{"", "a,b\n1,2", "sep=;\n1;2", "\xff\xfea\x00,\x00", "\xe4;\xf6\r\n", "\"a\nb\",c\r1,2", "a\x00b", "sep=\"\nx", "\"\"\"\"",
		"\xfe\xff\xd8\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		s, err := Read(strings.NewReader(string(file)))
		if err != nil {
			return
		}
		line := 0
		for _, r := range s.Rows {
			if r.Line < line || r.Err == nil && len(r.Cells) == 0 {
				t.Errorf("row %+v after line %d", r, line)
			}
			line = r.Line
			for _, c := range r.Cells {
				if strings.ToValidUTF8(c, "") != c {
					t.Errorf("the cell %q is no text", c)
				}
			}
		}
	})
}
