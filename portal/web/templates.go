package web

import (
	"bytes"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// pages are the templates of one language: by section and name.
type pages map[string]*template.Template

// View is what a template sees: the request's fields and methods, and Data of the handler.
type View struct {
	*Request
	Data any
	Body template.HTML // of the page, for the layout

	title *string
}

// Title sets the page's title, which is also its heading; a page calls it first.
func (v View) Title(text string) string {
	*v.title = text
	return ""
}

// Heading is the title that the page has set.
func (v View) Heading() string { return *v.title }

// Notice is what the page before has done, said once.
func (v View) Notice() string { return v.done }

// Menu are the links at the top: of sections, and of the section that the visitor is in.
func (v View) Menu() []Link { return v.site.menu(v.Request, v.site.sections) }

// Submenu are the links of the section that the visitor is in.
func (v View) Submenu() []Link {
	if v.Route == nil || v.Route.section == nil || len(v.Route.section.Menu) < 2 {
		return nil
	}
	return v.site.links(v.Request, v.Route.section.Menu)
}

// CSRF is the hidden field that each form needs.
func (v View) CSRF() template.HTML {
	return template.HTML(`<input type="hidden" name="` + TokenField + `" value="` + v.Token() + `">`)
}

// Field is what template "field" shows: a label, a hint, an input, and what is wrong about it.
type Field struct {
	Name, Label, Hint, Type, Value, Autocomplete string
	Error                                        template.HTML
	Required, Checked, Focus                     bool
	Options                                      []Option
}

// Option is one of a field's choices.
type Option struct {
	Value, Label string
	Chosen       bool
}

// Input makes a field for template "field": its name, its label, and then pairs of a property and its value: type (as of
// input, or textarea, select, radio), hint, autocomplete, required, focus, value, options ([]Option).
func (v View) Input(name, label string, properties ...any) (Field, error) {
	f := Field{Name: name, Label: label, Type: "text", Value: v.Form.Value(name), Error: v.Form.Error(name)}
	for i := 0; i+1 < len(properties); i += 2 {
		ok := true
		switch value := properties[i+1]; properties[i] {
		case "type":
			f.Type, ok = value.(string)
		case "hint":
			f.Hint, ok = value.(string)
		case "autocomplete":
			f.Autocomplete, ok = value.(string)
		case "required":
			f.Required, ok = value.(bool)
		case "focus":
			f.Focus, ok = value.(bool)
		case "value":
			f.Value, ok = value.(string)
		case "options":
			f.Options, ok = value.([]Option)
			f.Options = slices.Clone(f.Options)
		default:
			ok = false
		}
		if !ok {
			return f, fmt.Errorf("field %q has no such property as %v", name, properties[i])
		}
	}
	f.Checked = v.Form.Checked(name)
	for i := range f.Options {
		f.Options[i].Chosen = v.Form.Is(name, f.Options[i].Value)
	}
	if f.Type == "password" { // never goes back to the browser
		f.Value = ""
	}
	return f, nil
}

// functions are those that templates of a language can call.
func (s *Site) functions(tag string) template.FuncMap {
	return template.FuncMap{
		"t":      func(key string, args ...any) string { return s.messages.Text(tag, key, args...) },
		"date":   func(t time.Time) string { return s.messages.Date(tag, t) },
		"moment": func(t time.Time) string { return s.messages.Moment(tag, s.local(t)) },
		"day": func(t time.Time) string {
			if t.IsZero() {
				return ""
			}
			return t.Format(time.DateOnly)
		},
		"say":   func(text string) template.HTML { return s.sayHTML(tag, text) },
		"asset": assetPath,
		"bytes": func(n int64) string { return Bytes(tag, n) },
		"join":  strings.Join,
		"list":  func(values ...any) []any { return values },
	}
}

// Bytes is an amount of memory or disk as people say it.
func Bytes(tag string, n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	f, i := float64(n), 0
	for f >= 1000 && i < len(units)-1 {
		f, i = f/1000, i+1
	}
	text := fmt.Sprintf("%.0f", f)
	if i > 0 && f < 10 {
		text = fmt.Sprintf("%.1f", f)
	}
	if tag == "de" {
		text = strings.ReplaceAll(text, ".", ",")
	}
	return text + " " + units[i]
}

// local is a moment by the clocks of the organisation.
func (s *Site) local(t time.Time) time.Time {
	zone, err := time.LoadLocation(s.deps.Config().TimeZone)
	if err != nil || t.IsZero() {
		return t
	}
	return t.In(zone)
}

// parse reads all pages once for each language.
func (s *Site) parse() error {
	s.pages = map[string]pages{}
	for _, tag := range s.messages.Languages() {
		shared, err := template.New("").Funcs(s.functions(tag)).ParseFS(own, "pages/layout.html", "pages/parts.html")
		if err != nil {
			return err
		}
		p := pages{}
		for _, section := range s.sections {
			if err := p.read(shared, section); err != nil {
				return fmt.Errorf("cannot read the pages of %q: %w", section.Name, err)
			}
		}
		if p[""] = shared; s.pages[tag] == nil {
			s.pages[tag] = p
		}
	}
	return s.checkKeys()
}

func (p pages) read(shared *template.Template, section *Section) error {
	if section.Files == nil {
		return nil
	}
	names, err := fs.Glob(section.Files, "pages/*.html")
	if err != nil || len(names) == 0 {
		return err
	}
	set, err := shared.Clone()
	if err != nil {
		return err
	}
	if set, err = set.ParseFS(section.Files, "pages/*.html"); err != nil {
		return err
	}
	p[section.Name] = set
	return nil
}

// usedKey finds the messages that a template names.
var usedKey = regexp.MustCompile(`\(?\bt "([^"]+)"`)

// checkKeys looks that each message that a template names is there.
func (s *Site) checkKeys() error {
	var errs []error
	for _, section := range s.sections {
		if section.Files == nil {
			continue
		}
		names, err := fs.Glob(section.Files, "pages/*.html")
		if err != nil {
			return err
		}
		for _, name := range names {
			b, err := fs.ReadFile(section.Files, name)
			if err != nil {
				return err
			}
			for _, m := range usedKey.FindAllSubmatch(b, -1) {
				if !s.messages.Has(string(m[1])) {
					errs = append(errs, fmt.Errorf("%s of %q names message %q, which is not there", path.Base(name), section.Name, m[1]))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// page renders a page with the layout around it.
func (s *Site) page(r *Request, name string, data any) ([]byte, error) {
	p := s.pages[r.Language]
	set := p[ownSection]
	if r.Route != nil && r.Route.section != nil && p[r.Route.section.Name].Lookup(name+".html") != nil {
		set = p[r.Route.section.Name]
	}
	view := View{Request: r, Data: data, title: new(string)}
	var body, page bytes.Buffer
	if err := set.ExecuteTemplate(&body, name+".html", view); err != nil {
		return nil, fmt.Errorf("cannot render page %q: %w", name, err)
	}
	view.Body = template.HTML(body.String()) // escaped by its own template
	if r.done == "" {
		r.done = s.takeNotice(r)
	}
	if err := set.ExecuteTemplate(&page, "layout.html", view); err != nil {
		return nil, fmt.Errorf("cannot render the layout of page %q: %w", name, err)
	}
	return page.Bytes(), nil
}
