package profile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// document is a TOML file that is being checked. Keys are named by their path, such as service[1].ready.http.
type document struct {
	file   string
	text   []byte
	spans  map[string]span
	faults Faults
	beside []*document // templates that it names
}

// span is where a key stands in the text.
type span struct {
	key, value unstable.Range
	kind       unstable.Kind
}

// decode reads text into v, which points to a struct. It reports whether the values can be looked at: what is misspelt
// does not hinder that, a wrong type does.
func decode(file string, text []byte, v any) (*document, bool) {
	d := &document{file: file, text: text, spans: map[string]span{}}
	d.index()
	dec := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	err := dec.Decode(v)
	var strict *toml.StrictMissingError
	var wrong *toml.DecodeError
	switch {
	case err == nil:
		return d, d.texts(reflect.TypeOf(v))
	case errors.As(err, &strict):
		for i := range strict.Errors {
			d.unknown(&strict.Errors[i], reflect.TypeOf(v))
		}
		return d, d.texts(reflect.TypeOf(v))
	case errors.As(err, &wrong):
		line, col := wrong.Position()
		d.add(line, col, 0, plain(wrong.Error()), "")
	case d.texts(reflect.TypeOf(v)):
		d.add(1, 1, 0, err.Error(), "")
	}
	return d, false
}

// index notes where every key stands.
func (d *document) index() {
	var p unstable.Parser
	p.Reset(d.text)
	table, count := "", map[string]int{}
	for p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = d.header(e, count)
		case unstable.KeyValue:
			d.keyValue(table, e)
		}
	}
}

// header notes a [table] or [[table]] and returns its path.
func (d *document) header(e *unstable.Node, count map[string]int) string {
	name, it := "", e.Key()
	var last unstable.Range
	for it.Next() {
		name, last = join(name, string(it.Node().Data)), it.Node().Raw
		if n, ok := count[name]; ok && !it.IsLast() {
			name = fmt.Sprintf("%s[%d]", name, n)
		}
	}
	if e.Kind == unstable.ArrayTable {
		n, ok := count[name]
		if ok {
			n++
		}
		count[name] = n
		name = fmt.Sprintf("%s[%d]", name, n)
	} else if n, ok := count[name]; ok {
		name = fmt.Sprintf("%s[%d]", name, n)
	}
	d.spans[name] = span{key: last, kind: unstable.Table}
	return name
}

// keyValue notes a key and what is in its value.
func (d *document) keyValue(table string, e *unstable.Node) {
	name, it := table, e.Key()
	var last unstable.Range
	for it.Next() {
		name, last = join(name, string(it.Node().Data)), it.Node().Raw
	}
	d.value(name, last, e.Value())
}

func (d *document) value(name string, key unstable.Range, v *unstable.Node) {
	d.spans[name] = span{key, v.Raw, v.Kind}
	switch it := v.Children(); v.Kind {
	case unstable.Array:
		for i := 0; it.Next(); i++ {
			d.value(fmt.Sprintf("%s[%d]", name, i), key, it.Node())
		}
	case unstable.InlineTable:
		d.spans[name] = span{key, unstable.Range{}, v.Kind}
		for it.Next() {
			d.keyValue(name, it.Node())
		}
	}
}

func join(table, key string) string {
	if table == "" {
		return key
	}
	return table + "." + key
}

// has tells whether the file names the key.
func (d *document) has(key string) bool { _, ok := d.spans[key]; return ok }

// fault notes that the value of a key is wrong. A key that is not there is missing from its table.
func (d *document) fault(key, remedy, format string, args ...any) {
	r := d.find(key)
	line, col := d.place(int(r.Offset))
	f := d.add(line, col, int(r.Length), fmt.Sprintf(format, args...), remedy)
	f.key = key
}

// find is where a key's value stands, or its table, or the beginning of the text.
func (d *document) find(key string) unstable.Range {
	s, ok := d.spans[key]
	for parent := key; !ok; s, ok = d.spans[parent] {
		i := strings.LastIndexAny(parent, ".[")
		if i < 0 {
			return unstable.Range{}
		}
		parent = parent[:i]
	}
	if s.value.Length == 0 {
		return s.key
	}
	return s.value
}

// at notes a fault at an offset in bytes.
func (d *document) at(offset int, remedy, format string, args ...any) {
	line, col := d.place(offset)
	d.add(line, col, 0, fmt.Sprintf(format, args...), remedy)
}

// place is the line and column, from 1, of an offset.
func (d *document) place(offset int) (line, col int) {
	before := d.text[:offset]
	return 1 + bytes.Count(before, []byte("\n")), offset - bytes.LastIndexByte(before, '\n')
}

// add notes a fault at a place. With no width known the word there is underlined.
func (d *document) add(line, col, width int, message, remedy string) *Fault {
	lines := strings.Split(string(d.text), "\n")
	f := &Fault{File: d.file, Line: max(1, line), Col: max(1, col), Message: message, Remedy: remedy, width: width}
	if f.Line <= len(lines) {
		f.excerpt = strings.TrimRight(lines[f.Line-1], "\r")
	}
	if width == 0 && f.Col <= len(f.excerpt) {
		f.width = len(word.FindString(f.excerpt[f.Col-1:]))
	}
	d.faults = append(d.faults, f)
	return f
}

var word = regexp.MustCompile(`^["$.]*[A-Za-z0-9_-]*"?`)

// sorted returns the faults by their place, then those of the templates.
func (d *document) sorted() Faults {
	slices.SortFunc(d.faults, func(a, b *Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col), cmp.Compare(a.Message, b.Message))
	})
	all := d.faults
	for _, b := range d.beside {
		all = append(all, b.sorted()...)
	}
	return all
}

// unknown notes a key that the format does not have.
func (d *document) unknown(e *toml.DecodeError, t reflect.Type) {
	line, col := e.Position()
	key := e.Key()
	name := key[len(key)-1]
	known := keysOf(typeAt(t, key[:len(key)-1]))
	d.add(line, col, 0, fmt.Sprintf("unknown key %q", name), oneOf(name, known))
}

// typeAt is the struct that a key leads to, through pointers and lists; nil if it leads nowhere.
func typeAt(t reflect.Type, key []string) reflect.Type {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if len(key) == 0 {
		return t
	}
	for f := range fields(t) {
		if f.Tag.Get("toml") != "" && tagName(f) == key[0] {
			return typeAt(f.Type, key[1:])
		}
	}
	return nil
}

// keysOf lists the keys of a struct.
func keysOf(t reflect.Type) []string {
	var out []string
	for f := range fields(t) {
		if n := tagName(f); n != "-" && n != "" {
			out = append(out, n)
		}
	}
	return out
}

// fields yields a struct's fields, those of embedded structs in their place.
func fields(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		if t == nil || t.Kind() != reflect.Struct {
			return
		}
		for _, f := range reflect.VisibleFields(t) {
			if !f.Anonymous && !yield(f) {
				return
			}
		}
	}
}

func tagName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
	return name
}

// texts notes the keys that want a string and have something else. For types with an UnmarshalText of their own, such as
// image.Version, go-toml takes numbers too, or complains without a place. It reports whether there are none.
func (d *document) texts(t reflect.Type) bool {
	ok := true
	for name, s := range d.spans {
		f := typeAt(t, strings.Split(index.ReplaceAllString(name, ""), "."))
		if f != nil && f.Kind() == reflect.String && s.kind != unstable.String && s.kind != unstable.Array {
			d.fault(name, "write it in quotes", "wrong type: want a string, not %s", kindName(strings.ToLower(s.kind.String())))
			ok = false
		}
	}
	return ok
}

var (
	index     = regexp.MustCompile(`\[\d+\]`)
	wrongType = regexp.MustCompile(`^cannot decode TOML (.+) into .* of type (\S+)$`)
)

// plain says a decoder's complaint in the words of the file's author.
func plain(message string) string {
	message = strings.TrimPrefix(message, "toml: ")
	m := wrongType.FindStringSubmatch(message)
	switch {
	case m != nil:
		return fmt.Sprintf("wrong type: want %s, not %s", typeName(m[2]), kindName(m[1]))
	case strings.HasPrefix(message, "cannot store an array table"):
		return "wrong type: want one [table], not a list of [[tables]]"
	}
	return message
}

func typeName(t string) string {
	switch {
	case strings.HasPrefix(t, "[]"):
		return "a list"
	case t == "int" || t == "int64":
		return "a whole number"
	case t == "bool":
		return "true or false"
	case t == "string" || strings.HasPrefix(t, "image.Arch") || strings.HasPrefix(t, "image.Version"):
		return "a string"
	}
	return "a table"
}

func kindName(k string) string {
	switch k {
	case "integer":
		return "a whole number"
	case "boolean", "bool":
		return "true or false"
	case "float":
		return "a number with a point"
	case "inline table", "inlinetable", "table":
		return "a table"
	case "array":
		return "a list"
	}
	return "a " + k
}
