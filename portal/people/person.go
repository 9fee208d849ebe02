package people

import (
	"errors"
	"slices"
	"strings"
	"time"

	"allotment/portal/directory"
	"allotment/portal/login"
	"allotment/portal/web"
)

// grace is how long a person who was deleted can be had back.
const grace = 30 * 24 * time.Hour

// personPage is what page person shows.
type personPage struct {
	Person      directory.Person
	Groups      []directory.Group // of the person
	Others      []web.Option      // groups that she is not in
	Offices     []directory.Office
	People      []web.Option // to hand over to
	Collectives []web.Option
	Languages   []web.Option
	Conflict    []difference
	Self        bool
}

// difference is a field that somebody else has changed meanwhile.
type difference struct {
	Label, Theirs, Yours string
}

// field is what can be changed of a person by form.
type field struct {
	name string
	of   func(*directory.Person) *string
}

var fields = []field{
	{"given", func(p *directory.Person) *string { return &p.Given }},
	{"family", func(p *directory.Person) *string { return &p.Family }},
	{"display", func(p *directory.Person) *string { return &p.Display }},
	{"mail", func(p *directory.Person) *string { return &p.Mail }},
	{"outside", func(p *directory.Person) *string { return &p.OutsideMail }},
	{"forward", func(p *directory.Person) *string { return &p.Forward }},
	{"phone", func(p *directory.Person) *string { return &p.Phone }},
	{"language", func(p *directory.Person) *string { return &p.Language }},
	{"collective", func(p *directory.Person) *string { return &p.Collective }},
}

// read reads all fields of the form.
func read(f *web.Form) map[string]string {
	values := map[string]string{}
	for _, field := range fields {
		switch field.name {
		case "mail", "outside", "forward":
			values[field.name] = f.Mail(field.name)
		case "phone":
			values[field.name] = f.Phone(field.name)
		default:
			values[field.name] = f.Text(field.name, web.Line)
		}
	}
	return values
}

func fill(f *web.Form, p directory.Person) {
	for _, field := range fields {
		f.Set(field.name, *field.of(&p))
	}
	f.Set("revision", p.Revision)
}

func apply(p *directory.Person, values map[string]string) {
	for _, field := range fields {
		*field.of(p) = values[field.name]
	}
}

func newPerson(r *web.Request) error { return renderNew(r) }

func renderNew(r *web.Request) error {
	var page personPage
	if err := page.choices(r); err != nil {
		return err
	}
	return r.Render("new", page)
}

func addPerson(r *web.Request) error {
	name := strings.ToLower(r.Form.Required("name", 63))
	values := read(r.Form)
	if values["given"]+values["family"] == "" {
		r.Form.Fail("given", "form.required")
	}
	if !r.Form.OK() {
		return renderNew(r)
	}
	p := directory.Person{Name: name}
	apply(&p, values)
	if err := r.Form.Take("name", r.Directory.AddPerson(r.Context(), p)); err != nil {
		return err
	}
	if !r.Form.OK() {
		return renderNew(r)
	}
	if err := addMember(r, name); err != nil {
		return err
	}
	r.Record("person.added", name, nil)
	return r.Done("/portal/people/p/"+name, "people.added", "name", display(p))
}

// addMember puts a new person into the group that everybody is in, for what modules let all members do.
func addMember(r *web.Request, name string) error {
	err := r.Directory.AddMember(r.Context(), web.FixedGroups[0], name)
	if errors.Is(err, directory.ErrExists) {
		return nil
	}
	return err
}

func display(p directory.Person) string {
	switch {
	case p.Display != "":
		return p.Display
	case p.Given+p.Family != "":
		return strings.TrimSpace(p.Given + " " + p.Family)
	}
	return p.Name
}

func showPerson(r *web.Request) error {
	p, err := r.Directory.Person(r.Context(), r.Path("person"))
	if err != nil {
		return err
	}
	fill(r.Form, p)
	return renderPerson(r, p, nil)
}

func renderPerson(r *web.Request, p directory.Person, conflict []difference) error {
	page := personPage{Person: p, Conflict: conflict, Self: p.Name == r.Person.Name}
	if err := page.choices(r); err != nil {
		return err
	}
	groups, err := r.Directory.Groups(r.Context())
	if err != nil {
		return err
	}
	for _, g := range groups {
		if slices.Contains(g.Members, p.Name) {
			page.Groups = append(page.Groups, g)
		} else {
			page.Others = append(page.Others, web.Option{Value: g.Name, Label: r.GroupTitle(g)})
		}
	}
	offices, err := r.Directory.Offices(r.Context())
	if err != nil {
		return err
	}
	for _, o := range offices {
		if o.HeldAt(p.Name, r.Now) {
			page.Offices = append(page.Offices, o)
		}
	}
	if page.People, err = personOptions(r.Context(), r, p.Name); err != nil {
		return err
	}
	return r.Render("person", page)
}

// choices fills in what can be chosen about any person.
func (page *personPage) choices(r *web.Request) error {
	collectives, err := r.Directory.Collectives(r.Context())
	if err != nil {
		return err
	}
	page.Collectives = []web.Option{{Value: "", Label: r.T("people.nocollective")}}
	for _, c := range collectives {
		page.Collectives = append(page.Collectives, web.Option{Value: c.Name, Label: title(c.Title, c.Name)})
	}
	page.Languages = []web.Option{{Value: "", Label: r.T("people.nolanguage")}}
	for _, tag := range r.Languages() {
		page.Languages = append(page.Languages, web.Option{Value: tag, Label: r.T("language." + tag)})
	}
	return nil
}

func changePerson(r *web.Request) error {
	name := r.Path("person")
	now, err := r.Directory.Person(r.Context(), name)
	if err != nil {
		return err
	}
	values := read(r.Form)
	if !r.Form.OK() {
		return renderPerson(r, now, nil)
	}
	err = r.Directory.ChangePerson(r.Context(), name, r.Form.Value("revision"), func(p *directory.Person) { apply(p, values) })
	if errors.Is(err, directory.ErrConflict) {
		return conflict(r, now, values)
	}
	if err := r.Form.Take("mail", err); err != nil {
		return err
	}
	if !r.Form.OK() {
		return renderPerson(r, now, nil)
	}
	r.Record("person.changed", name, nil)
	return r.Done("/portal/people/p/"+name, "people.changed")
}

// conflict shows what somebody else has changed beside what was to be saved; sending the form again saves it.
func conflict(r *web.Request, now directory.Person, values map[string]string) error {
	var all []difference
	for _, field := range fields {
		if theirs := *field.of(&now); theirs != values[field.name] {
			all = append(all, difference{r.T("person." + field.name), theirs, values[field.name]})
		}
	}
	r.Form.Set("revision", now.Revision)
	r.Form.Fail("", "people.conflict")
	r.Status = 409
	return renderPerson(r, now, all)
}

func joinGroup(r *web.Request) error  { return setMember(r, true) }
func leaveGroup(r *web.Request) error { return setMember(r, false) }

func setMember(r *web.Request, member bool) error {
	name, group := r.Path("person"), r.Form.Value("group")
	kind, change := "group.joined", r.Directory.AddMember
	if !member {
		kind, change = "group.left", r.Directory.RemoveMember
	}
	err := change(r.Context(), group, name)
	if err != nil && !errors.Is(err, directory.ErrExists) {
		return err
	}
	r.Record(kind, name, map[string]string{"group": group})
	return r.Done("/portal/people/p/"+name, "people.changed")
}

// notMyself keeps an officer from locking herself out.
func notMyself(r *web.Request) error {
	if r.Path("person") == r.Person.Name {
		return web.Fail(409, "people.self")
	}
	return nil
}

func deactivate(r *web.Request) error {
	name := r.Path("person")
	if err := notMyself(r); err != nil {
		return err
	}
	if err := r.Directory.Deactivate(r.Context(), name); err != nil {
		return err
	}
	if err := r.Sessions.EndAll(name); err != nil {
		return err
	}
	r.Record("person.deactivated", name, nil)
	return r.Done("/portal/people/p/"+name, "people.deactivated")
}

func activate(r *web.Request) error {
	name := r.Path("person")
	if err := r.Directory.Activate(r.Context(), name); err != nil {
		return err
	}
	r.Record("person.activated", name, nil)
	return r.Done("/portal/people/p/"+name, "people.activated")
}

// codePage is what page recovery shows.
type codePage struct {
	Person directory.Person
	Code   string
	Until  time.Time
}

func makeCode(r *web.Request) error {
	p, err := r.Directory.Person(r.Context(), r.Path("person"))
	if err != nil {
		return err
	}
	code, until, err := r.Login.MakeOfficerCode(r.Context(), r.Person.Name, p.Name)
	if errors.Is(err, login.ErrOfficer) {
		return web.ErrForbidden
	}
	if err != nil {
		return err
	}
	return r.Render("recovery", codePage{p, code, until})
}

// welcomePage is what page welcome shows.
type welcomePage struct {
	Person directory.Person
	Link   string
	Mailed string // address that has got it, too
}

func welcome(r *web.Request) error {
	if err := notMyself(r); err != nil {
		return err
	}
	p, err := r.Directory.Person(r.Context(), r.Path("person"))
	if err != nil {
		return err
	}
	link, err := r.Onboard.Welcome(r.Context(), r.Person.Name, p.Name)
	if err != nil {
		return err
	}
	return r.Render("welcome", welcomePage{p, link, p.Address()})
}

func handOver(r *web.Request) error {
	name, to := r.Path("person"), r.Form.Value("to_person")
	if to == "" || to == name {
		return web.Fail(400, "people.handover.whom")
	}
	if err := r.Directory.HandOver(r.Context(), name, to); err != nil {
		return err
	}
	r.Record("person.handedover", name, map[string]string{"to": to})
	return r.Done("/portal/people/p/"+name, "people.handedover", "to", to)
}

func deletePerson(r *web.Request) error {
	name := r.Path("person")
	if err := notMyself(r); err != nil {
		return err
	}
	at := r.Now.Add(grace)
	if err := r.Directory.Delete(r.Context(), name, at); err != nil {
		return err
	}
	if err := r.Sessions.EndAll(name); err != nil {
		return err
	}
	r.Record("person.deleted", name, map[string]string{"date": at.Format(time.DateOnly)})
	return r.Done("/portal/people/p/"+name, "people.deleted")
}

func undelete(r *web.Request) error {
	name := r.Path("person")
	if err := r.Directory.Undelete(r.Context(), name); err != nil {
		return err
	}
	r.Record("person.undeleted", name, nil)
	return r.Done("/portal/people/p/"+name, "people.undeleted")
}
