package box

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"allotment/api"
	"allotment/image"
	"allotment/portal/web"
)

// The names of a setting's fields: its value, and the value that the page showed.
func fieldOf(s image.Setting) string { return "s-" + s.Name }
func shownOf(s image.Setting) string { return "shown-" + s.Name }

// settingView is a setting in the visitor's words.
type settingView struct {
	image.Setting
	Field, Shown string
	Was          string // its value when the page was made
	Kind         string // of the input
	Options      []web.Option
}

// settingsView is a form of settings.
type settingsView struct {
	Title    string
	Action   string // path that the form is sent to
	Settings []settingView
}

// place is where a form's page is, whose settings it has (empty: the organisation's), and its title.
func place(r *web.Request) (path, module, title string, err error) {
	if r.Path("module") == "" {
		return root + "organisation", "", r.T("box.organisation.title"), nil
	}
	m, _, err := find(r)
	return root + "modules/" + m.Name + "/settings", m.Name, m.Title, err
}

// settingsOf are the settings of a module or of the organisation, but for the domain, which has a page of its own.
func settingsOf(r *web.Request, module string) (api.Settings, error) {
	s, err := r.Box.Settings(ctx(r), module)
	if module == "" {
		s.Form = slices.DeleteFunc(s.Form, func(f image.Setting) bool { return f.Name == domainSetting })
	}
	return s, err
}

func (p *Pages) settings(r *web.Request) error {
	path, module, title, err := place(r)
	if err != nil {
		return err
	}
	s, err := settingsOf(r, module)
	if err != nil {
		return problem(err)
	}
	for _, f := range s.Form {
		r.Form.Set(fieldOf(f), textOf(s.Values[f.Name]))
	}
	return r.Render("settings", newSettingsView(r, path, module, title, s))
}

// textOf is a value as a form has it.
func textOf(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case bool:
		if v {
			return "yes"
		}
		return ""
	case float64: // of JSON
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

func newSettingsView(r *web.Request, path, module, title string, s api.Settings) settingsView {
	v := settingsView{Title: title, Action: path}
	for _, f := range s.Form {
		key := "setting." + cmp.Or(module, "organisation") + "." + f.Name
		x := settingView{Setting: f, Field: fieldOf(f), Shown: shownOf(f), Was: textOf(s.Values[f.Name])}
		x.Title, x.Help = r.Or(key+".title", f.Title), r.Or(key+".help", f.Help)
		x.Kind = map[string]string{"boolean": "checkbox", "text": "textarea", "integer": "number", "choice": "select",
			"email": "email", "url": "url"}[f.Type]
		if x.Kind == "" {
			x.Kind = "text"
		}
		for _, c := range f.Choices {
			x.Options = append(x.Options, web.Option{Value: c, Label: r.Or(key+".choice."+c, c)})
		}
		if f.Type == "integer" && f.Max > 0 {
			x.Help += " " + r.T("box.settings.bounds", "lowest", f.Min, "highest", f.Max)
		}
		v.Settings = append(v.Settings, x)
	}
	return v
}

// value reads a setting's field by its type. What else the box wants of it, such as a pattern, the box says.
func value(r *web.Request, f image.Setting) any {
	field := fieldOf(f)
	switch f.Type {
	case "boolean":
		return r.Form.Checked(field)
	case "integer":
		return r.Form.Number(field, f.Min, cmp.Or(f.Max, 1<<31-1))
	case "choice":
		return r.Form.Choice(field, f.Choices...)
	case "email":
		return r.Form.Mail(field)
	case "text":
		return r.Form.Text(field, cmp.Or(f.Max, web.Area))
	}
	return r.Form.Text(field, min(cmp.Or(f.Max, web.Line), web.Line))
}

// changes are the settings whose fields are not as the page showed them. Where somebody else has changed one of those meanwhile,
// the form says so.
func changes(r *web.Request, s api.Settings) map[string]any {
	all := map[string]any{}
	for _, f := range s.Form {
		if !r.Form.Has(fieldOf(f)) && f.Type != "boolean" || !r.Form.Has(shownOf(f)) {
			continue // a form that was not ours, or not whole
		}
		v := value(r, f)
		now, shown := textOf(s.Values[f.Name]), r.Form.Value(shownOf(f))
		switch wanted := textOf(v); {
		case wanted == shown:
		case now != shown && now != wanted:
			r.Form.Fail(fieldOf(f), "box.settings.meanwhile", "value", now)
		default:
			all[f.Name] = v
		}
	}
	return all
}

func (p *Pages) changeSettings(r *web.Request) error {
	path, module, title, err := place(r)
	if err != nil {
		return err
	}
	s, err := settingsOf(r, module)
	if err != nil {
		return problem(err)
	}
	view := newSettingsView(r, path, module, title, s)
	values := changes(r, s)
	if !r.Form.OK() {
		return r.Render("settings", view)
	}
	if len(values) == 0 {
		return r.Done(path, "box.settings.same")
	}
	for name := range values {
		r.Record("box.setting", cmp.Or(module, "organisation"), map[string]string{"setting": name})
	}
	about := About{Key: "settings", Title: r.T("box.settings.saving", "name", title), Back: path}
	done, err := p.Do(r, about, func(ctx context.Context, _ func(api.Progress)) error {
		return p.deps.Box.SetSettings(ctx, module, values)
	})
	if !done {
		return err
	}
	if err != nil {
		return p.refused(r, view, err)
	}
	return r.Done(path, "box.settings.saved")
}

// refused shows the form again: with what the box says of each field, or that the change was taken back.
func (p *Pages) refused(r *web.Request, view settingsView, err error) error {
	var e *api.Error
	if !errors.As(err, &e) {
		return problem(err)
	}
	for _, f := range e.Faults {
		r.Form.Fail("s-"+f.Field, "box.settings.fault", "text", web.Said(f.Text))
	}
	if len(e.Faults) == 0 {
		r.Form.Fail("", "box.settings.back", "text", web.Said(e.Message))
	}
	return r.Render("settings", view)
}
