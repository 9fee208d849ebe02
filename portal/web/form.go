package web

import (
	"errors"
	"html/template"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"allotment/portal/directory"
)

// Form is what a visitor filled in, with what is wrong about it. A handler reads the fields, looks at OK, and renders its page
// again if something is wrong: the fields keep what was filled in.
type Form struct {
	values url.Values
	wrong  []Wrong
	text   func(key string, args ...any) template.HTML
}

// Wrong is what is wrong about a field.
type Wrong struct {
	Field string
	Text  template.HTML
}

// Lengths of texts in characters, for Text and Required.
const (
	Line = 200
	Area = 4000
)

// Set fills in a field.
func (f *Form) Set(field string, values ...string) { f.values[field] = values }

// Unset makes a form have no such field.
func (f *Form) Unset(field string) { delete(f.values, field) }

// Value is what a field has, as it came.
func (f *Form) Value(field string) string { return f.values.Get(field) }

// Has tells whether the form had a field at all. Boxes that are not checked are not sent.
func (f *Form) Has(field string) bool { return f.values.Has(field) }

// All are the values of a field that can have several.
func (f *Form) All(field string) []string { return f.values[field] }

// Is tells whether a field has a value; for boxes and choices.
func (f *Form) Is(field, value string) bool { return slices.Contains(f.values[field], value) }

// Checked tells whether a box is checked.
func (f *Form) Checked(field string) bool { return f.Is(field, "yes") }

// Text is a field's text of up to limit characters, in Unicode's form NFC and without white space around it. It refuses
// characters that are no text or turn what stands around them about. With limit Line it is one line.
func (f *Form) Text(field string, limit int) string {
	s := strings.ReplaceAll(f.values.Get(field), "\r\n", "\n")
	if utf8.RuneCountInString(s) > limit {
		f.Fail(field, "form.long", "n", limit)
		return ""
	}
	var clean []string
	for line := range strings.SplitSeq(s, "\n") {
		line, err := directory.CleanText(line)
		if err != nil || limit <= Line && len(clean) == 1 {
			f.Fail(field, "form.characters")
			return ""
		}
		clean = append(clean, line)
	}
	return strings.TrimSpace(strings.Join(clean, "\n"))
}

// Required is Text that must not be empty.
func (f *Form) Required(field string, limit int) string {
	s := f.Text(field, limit)
	if s == "" && f.Error(field) == "" {
		f.Fail(field, "form.required")
	}
	return s
}

// Secret is a password as it was typed, and must not be empty.
func (f *Form) Secret(field string) string {
	s := f.values.Get(field)
	switch {
	case s == "":
		f.Fail(field, "form.required")
	case !utf8.ValidString(s) || len(s) > 1000:
		f.Fail(field, "form.characters")
		return ""
	}
	return s
}

// Choice is one of several values.
func (f *Form) Choice(field string, allowed ...string) string {
	s := f.values.Get(field)
	if !slices.Contains(allowed, s) {
		f.Fail(field, "form.choice")
		return ""
	}
	return s
}

// Number is a whole number within bounds.
func (f *Form) Number(field string, lowest, highest int) int {
	n, err := strconv.Atoi(strings.TrimSpace(f.values.Get(field)))
	if err != nil || n < lowest || n > highest {
		f.Fail(field, "form.number", "lowest", lowest, "highest", highest)
		return lowest
	}
	return n
}

// Date is a day at its beginning in UTC, or the zero time if the field is empty.
func (f *Form) Date(field string) time.Time {
	s := strings.TrimSpace(f.values.Get(field))
	if s == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.DateOnly, s)
	if err != nil || t.Year() < 1900 || t.Year() > 2200 {
		f.Fail(field, "form.date")
		return time.Time{}
	}
	return t
}

// Mail is an address (RFC 5322 addr-spec), or empty.
func (f *Form) Mail(field string) string {
	s, err := directory.CleanMail(f.values.Get(field))
	if err != nil {
		f.Fail(field, "form.mail")
		return ""
	}
	return s
}

var phoneForm = regexp.MustCompile(`^[0-9A-Za-z '()+,./:-]*$`)

// Phone is a telephone number (RFC 4517 section 3.3.31), or empty.
func (f *Form) Phone(field string) string {
	s := f.Text(field, 50)
	if !phoneForm.MatchString(s) {
		f.Fail(field, "form.phone")
		return ""
	}
	return s
}

// Take notes an error of package directory as what is wrong about a field, and returns others.
func (f *Form) Take(field string, err error) error {
	for _, known := range []struct {
		err error
		key string
	}{
		{directory.ErrExists, "form.exists"}, {directory.ErrName, "form.name"}, {directory.ErrText, "form.characters"},
		{directory.ErrMail, "form.mail"}, {directory.ErrWeak, "form.weak"}, {directory.ErrPassword, "form.password"},
		{directory.ErrNotFound, "form.nobody"},
	} {
		if errors.Is(err, known.err) {
			f.Fail(field, known.key)
			return nil
		}
	}
	return err
}

// Fail says what is wrong about a field, by a message's key; an empty field means the form as a whole.
func (f *Form) Fail(field, key string, args ...any) {
	f.wrong = append(f.wrong, Wrong{field, f.text(key, args...)})
}

// Error is the first thing that is wrong about a field.
func (f *Form) Error(field string) template.HTML {
	for _, w := range f.wrong {
		if w.Field == field {
			return w.Text
		}
	}
	return ""
}

// Wrong is all that is wrong.
func (f *Form) Wrong() []Wrong { return f.wrong }

// OK tells that nothing is wrong.
func (f *Form) OK() bool { return len(f.wrong) == 0 }
