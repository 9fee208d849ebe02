package settings

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"allotment/image"
)

// Values is one state of all settings. It never changes: WithOrganisation and WithModule give another one, which
// Store.Save makes the box's.
type Values struct {
	manifest *image.Manifest
	stored   stored
}

// Fault is what is wrong with one field, for people.
type Fault struct {
	Field   string // the setting's name, or the organisation's field as in TOML
	Message string // a sentence without its subject, such as "must be 3 or more"
}

// Faults are all fields that were refused.
type Faults []Fault

// Error names every field.
func (f Faults) Error() string {
	var all []string
	for _, x := range f {
		all = append(all, x.Field+" "+x.Message)
	}
	return "cannot take the settings: " + strings.Join(all, "; ")
}

// Organisation returns the organisation's fields. What was stored and no longer has the right form does not count.
func (v Values) Organisation() image.Organisation {
	o := v.manifest.Organisation
	for name, field := range fields(&o) {
		text, ok := v.stored.Organisation[name]
		if !ok {
			continue
		}
		before := *field
		if *field = text; o.Check()[name] != nil {
			*field = before
		}
	}
	return o
}

// fields are those of an organisation by their names.
func fields(o *image.Organisation) map[string]*string {
	return map[string]*string{
		"name": &o.Name, "domain": &o.Domain, "language": &o.Language, "time-zone": &o.TimeZone, "contact": &o.Contact,
	}
}

// WithOrganisation changes the organisation's fields. The error is Faults if fields are refused.
func (v Values) WithOrganisation(o image.Organisation) (Values, error) {
	var faults Faults
	for name, err := range o.Check() {
		faults = append(faults, Fault{name, err.Error()})
	}
	if len(faults) > 0 {
		return Values{}, faults.sorted()
	}
	now := v.Organisation()
	old, next := fields(&now), maps.Clone(v.stored.Organisation)
	if next == nil {
		next = map[string]string{}
	}
	for name, field := range fields(&o) {
		if *field != *old[name] { // others go on following the profile
			next[name] = *field
		}
	}
	v.stored.Organisation = next
	return v, nil
}

// Module returns the value of each setting that the module declares, as string, bool or int.
func (v Values) Module(name string) map[string]any {
	all := map[string]any{}
	for _, s := range v.form(name) {
		for _, layer := range []map[string]any{{s.Name: s.Default}, v.manifest.Settings[name], v.stored.Modules[name]} {
			if x, ok := layer[s.Name]; ok {
				if x, err := s.Check(x); err == nil {
					all[s.Name] = x
				}
			}
		}
	}
	return all
}

// form is the settings that the module declares.
func (v Values) form(module string) []image.Setting {
	i := slices.IndexFunc(v.manifest.Modules, func(m image.Module) bool { return m.Name == module })
	if i < 0 {
		return nil
	}
	return v.manifest.Modules[i].Settings
}

// WithModule changes some settings of a module; nil stands for the default. The error is Faults if values are refused.
func (v Values) WithModule(name string, changes map[string]any) (Values, error) {
	form := v.form(name)
	next := maps.Clone(v.stored.Modules[name]) // with what other releases have stored
	if next == nil {
		next = map[string]any{}
	}
	var faults Faults
	for field, value := range changes {
		i := slices.IndexFunc(form, func(s image.Setting) bool { return s.Name == field })
		if i < 0 {
			faults = append(faults, Fault{field, fmt.Sprintf("is no setting of the module %q", name)})
			continue
		}
		if value == nil {
			delete(next, field)
			continue
		}
		checked, err := form[i].Check(value)
		if err != nil {
			faults = append(faults, Fault{field, err.Error()})
			continue
		}
		next[field] = checked
	}
	if len(faults) > 0 {
		return Values{}, faults.sorted()
	}
	all := maps.Clone(v.stored.Modules)
	if all == nil {
		all = map[string]map[string]any{}
	}
	all[name] = next
	v.stored.Modules = all
	return v, nil
}

func (f Faults) sorted() Faults {
	slices.SortFunc(f, func(a, b Fault) int { return strings.Compare(a.Field, b.Field) })
	return f
}
