package people

import (
	"slices"
	"strings"
	"time"

	"allotment/portal/directory"
	"allotment/portal/web"
)

// officesPage is what page offices shows.
type officesPage struct {
	Offices []office
	People  []web.Option
}

// office is an office as officers see it.
type office struct {
	directory.Office
	Name, Title string
	Holder      string // display name
	Runs, Fixed bool   // runs the box; cannot be removed
	Over        bool   // the term has ended
	People      []web.Option
}

// fixed are the offices of every organisation.
var fixed = []string{"chair", "treasurer", "secretary"}

func listOffices(r *web.Request) error {
	all, err := r.Directory.Offices(r.Context())
	if err != nil {
		return err
	}
	options, err := personOptions(r.Context(), r)
	if err != nil {
		return err
	}
	page := officesPage{People: options}
	for _, o := range all {
		v := office{Office: o, Name: o.Name, Title: officeTitle(r, o), Fixed: slices.Contains(fixed, o.Name)}
		v.Runs = v.Fixed || o.RunsBox
		v.Over = !o.End.IsZero() && !r.Now.Before(o.End)
		v.People = slices.Clone(options)
		for i := range v.People {
			if v.People[i].Chosen = v.People[i].Value == o.Occupant; v.People[i].Chosen && o.Occupant != "" {
				v.Holder = v.People[i].Label
			}
		}
		page.Offices = append(page.Offices, v)
		showTitle(r, o.Name, v.Title, o.Revision)
	}
	return r.Render("offices", page)
}

// officeTitle is an office's own title, or that of the pages' language for those of every organisation.
func officeTitle(r *web.Request, o directory.Office) string {
	switch {
	case o.Title != "" && o.Title != o.Name:
		return o.Title
	case slices.Contains(fixed, o.Name):
		return r.T("office." + o.Name)
	}
	return o.Name
}

func addOffice(r *web.Request) error {
	o := directory.Office{Name: strings.ToLower(r.Form.Required("name", 63)), Title: r.Form.Required("title", web.Line),
		RunsBox: r.Form.Checked("runs")}
	if r.Form.OK() {
		if err := r.Form.Take("name", r.Directory.AddOffice(r.Context(), o)); err != nil {
			return err
		}
	}
	if !r.Form.OK() {
		return listOffices(r)
	}
	r.Record("office.added", o.Name, nil)
	return r.Done("/portal/people/offices", "people.changed")
}

func appoint(r *web.Request) error {
	name, person := r.Path("office"), r.Form.Value("person")
	from, until := r.Form.Date("from"), r.Form.Date("until")
	if !until.IsZero() {
		until = until.Add(24 * time.Hour) // the last day is part of the term
	}
	if !until.IsZero() && !until.After(from) {
		r.Form.Fail("until", "offices.backwards")
	}
	if err := keepsOfficer(r, name, person, from, until); err != nil {
		return err
	}
	if r.Form.OK() {
		if err := r.Form.Take("person", r.Directory.AppointTo(r.Context(), name, person, from, until)); err != nil {
			return err
		}
	}
	if !r.Form.OK() {
		return listOffices(r)
	}
	r.Record("office.given", name, map[string]string{"to": person})
	return r.Done("/portal/people/offices", "people.changed")
}

// keepsOfficer refuses a change after which nobody could run the box any more.
func keepsOfficer(r *web.Request, changed, person string, from, until time.Time) error {
	all, err := r.Directory.Offices(r.Context())
	if err != nil {
		return err
	}
	for _, o := range all {
		if o.Name == changed {
			o.Occupant, o.Start, o.End = person, from, until
		}
		runs := o.RunsBox || slices.Contains(fixed, o.Name)
		if !runs || !o.HeldAt(o.Occupant, r.Now) {
			continue
		}
		if p, err := r.Directory.Person(r.Context(), o.Occupant); err == nil && p.Active {
			return nil
		}
	}
	return web.Fail(409, "offices.last")
}

func removeOffice(r *web.Request) error {
	name := r.Path("office")
	if slices.Contains(fixed, name) {
		return web.ErrForbidden
	}
	if err := keepsOfficer(r, name, "", time.Time{}, time.Time{}); err != nil {
		return err
	}
	if err := r.Directory.RemoveOffice(r.Context(), name); err != nil {
		return err
	}
	r.Record("office.removed", name, nil)
	return r.Done("/portal/people/offices", "people.changed")
}

func renameOffice(r *web.Request) error {
	name := r.Path("office")
	title := r.Form.Required("title-"+name, web.Line)
	if r.Form.OK() {
		err := r.Directory.ChangeOffice(r.Context(), name, r.Form.Value("revision-"+name), func(o *directory.Office) {
			if o.Title = title; slices.Contains(fixed, name) && title == r.T("office."+name) {
				o.Title = "" // which each visitor sees in her own language
			}
		})
		if err := renamed(r, name, err); err != nil {
			return err
		}
	}
	if !r.Form.OK() {
		return listOffices(r)
	}
	r.Record("office.renamed", name, map[string]string{"title": title})
	return r.Done("/portal/people/offices", "people.changed")
}
