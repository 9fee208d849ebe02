package profile

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"allotment/builder/npm"
)

var (
	nameForm    = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$`)
	accountForm = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	packageForm = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`) // Debian Policy 5.6.1
	octalForm   = regexp.MustCompile(`^[0-7]{3,4}$`)
)

// item is the path of an element of a list, or of a key in it.
func item(list string, i int, key ...string) string {
	s := fmt.Sprintf("%s[%d]", list, i)
	if len(key) > 0 {
		s += "." + key[0]
	}
	return s
}

// format checks the format number, which every file but a tree has.
func (d *document) format(n int) {
	if n != 1 {
		d.fault("format", "write format = 1", "format %d is not one that this version reads", n)
	}
}

// filled checks that a text is there and is one line.
func (d *document) filled(key, s string) {
	if strings.TrimSpace(s) == "" {
		d.missing(key, "")
	}
	d.line(key, s)
}

// line checks that a text is one line.
func (d *document) line(key, s string) {
	if strings.ContainsAny(s, "\n\r\x00") {
		d.fault(key, "write it on one line", "%s has a line break", last(key))
	}
}

// missing notes that a key is not there, or empty.
func (d *document) missing(key, remedy string) { d.fault(key, remedy, "%s is missing or empty", key) }

// name checks a name against a form.
func (d *document) name(key, s string, form *regexp.Regexp) bool {
	if form.MatchString(s) {
		return true
	}
	if s == "" {
		d.missing(key, "want "+forms[form])
		return false
	}
	d.fault(key, "", "%s %q is not usable: want %s", last(key), s, forms[form])
	return false
}

// CheckName tells what is wrong with the name of a module or profile.
func CheckName(name string) error {
	if nameForm.MatchString(name) {
		return nil
	}
	if name == "" {
		return errors.New("the name is missing")
	}
	return fmt.Errorf("the name is not usable: want %s", forms[nameForm])
}

var forms = map[*regexp.Regexp]string{
	nameForm:     "a small letter, then at most 31 small letters, digits and hyphens, no hyphen last",
	accountForm:  "a small letter, then at most 31 small letters, digits, hyphens and underscores",
	npm.Form:     "the name of an npm package without a scope, @ and a version",
	packageForm:  "the name of a Debian package: small letters, digits, plus, minus and points",
	templateForm: "a letter or digit, then at most 63 letters, digits, points, hyphens and underscores",
	octalForm:    "three or four octal digits, such as 0755",
}

// choice checks that a word is one of those allowed.
func (d *document) choice(key, s string, allowed ...string) {
	if s == "" {
		d.missing(key, oneOf(s, allowed))
	} else if !slices.Contains(allowed, s) {
		d.fault(key, oneOf(s, allowed), "%s is %q", last(key), s)
	}
}

// path checks an absolute path that names something below the root.
func (d *document) path(key, p string) bool {
	if p != "/" && path.IsAbs(p) && path.Clean(p) == p && !strings.ContainsAny(p, "\x00\n") {
		return true
	}
	d.fault(key, "want an absolute path without . or .. or double or final slashes", "%s %q is not usable", last(key), p)
	return false
}

// pattern checks a pattern of paths.
func (d *document) pattern(key, p string) {
	_, err := path.Match(p, "")
	if err != nil || !path.IsAbs(p) || path.Clean(p) != p || p == "/" {
		d.fault(key, "want an absolute path; elements may hold * ? [a-z], and ** stands for any number of elements",
			"pattern %q is not usable", p)
	}
}

// port checks a TCP port.
func (d *document) port(key string, n int) {
	if n < 1 || n > 65535 {
		d.fault(key, "", "port %d is not usable: want 1 to 65535", n)
	}
}

// number checks a range.
func (d *document) number(key string, n, least, most int) {
	if n < least || n > most {
		d.fault(key, "", "%s is %d: want %d to %d", last(key), n, least, most)
	}
}

// once finds what is named twice.
type once map[string]string

// add notes that key names s, and a fault if another key has done so.
func (o once) add(d *document, key, s string) {
	if first, ok := o[s]; ok && s != "" { // what is empty has been told to be missing
		d.fault(key, "", "%q is named twice, first as %s", s, first)
		return
	}
	o[s] = key
}

// unique checks that a list names nothing twice.
func unique[S ~string](d *document, list string, all []S) {
	seen := once{}
	for i, s := range all {
		seen.add(d, item(list, i), string(s))
	}
}

// last is the last element of a key's path, for messages.
func last(key string) string {
	return key[strings.LastIndexByte(key, '.')+1:]
}
