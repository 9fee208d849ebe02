package firstrun

import (
	"cmp"
	"context"
	"errors"
	"html/template"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/unicode/norm"

	"allotment/api"
	"allotment/portal/audit"
	"allotment/portal/box"
	"allotment/portal/directory"
	"allotment/portal/login"
	"allotment/portal/onboard"
	"allotment/portal/session"
	"allotment/portal/store"
	"allotment/portal/web"
)

// makeOfficer makes the first officer and logs her in.
func (s *Service) makeOfficer(r *web.Request) error {
	if ok, err := s.admitted(r); !ok {
		return err
	}
	f := r.Form
	o := Officer{Given: f.Required("given", web.Line), Family: f.Required("family", web.Line), OutsideMail: f.Mail("mail"),
		Office: f.Choice("office", "chair", "treasurer", "secretary")}
	if o.OutsideMail == "" && f.Error("mail") == "" {
		f.Fail("mail", "form.required")
	}
	if o.Name = strings.ToLower(f.Text("name", web.Line)); o.Name == "" {
		o.Name = nameOf(o.Given, o.Family)
	}
	password := f.Secret("password")
	if f.Error("password") == "" {
		checkPassword(f, directory.Person{Name: o.Name, Given: o.Given, Family: o.Family, OutsideMail: o.OutsideMail}, password)
	}
	if f.OK() && f.Value("again") != password {
		f.Fail("again", "firstrun.officer.again")
	}
	if !f.OK() {
		return s.show(r, StepOfficer, offices(r))
	}
	err := s.MakeOfficer(r.Context(), o, r.Language, login.Normal(password))
	switch {
	case errors.Is(err, ErrNameTaken):
		f.Fail("name", "firstrun.officer.taken")
	case errors.Is(err, ErrClaimed):
		return r.Redirect(root)
	case errors.Is(err, directory.ErrWeak):
		f.Fail("password", "firstrun.password.short")
	default:
		err = f.Take("name", err)
	}
	if err != nil && f.OK() {
		return err
	}
	if !f.OK() {
		return s.show(r, StepOfficer, offices(r))
	}
	s.setToken(r, "", -1)
	if _, err := r.Login.Enter(r.W, r.HTTP, login.Outcome{Person: o.Name, Strength: session.Password}); err != nil {
		return err
	}
	return s.next(r, StepOfficer)
}

func checkPassword(f *web.Form, p directory.Person, password string) {
	for _, known := range []struct {
		err error
		key string
	}{
		{login.ErrShort, "firstrun.password.short"}, {login.ErrLong, "firstrun.password.long"},
		{login.ErrOwn, "firstrun.password.own"}, {login.ErrCommon, "firstrun.password.common"},
	} {
		if errors.Is(login.CheckPassword(p, password), known.err) {
			f.Fail("password", known.key)
		}
	}
}

var noName = regexp.MustCompile(`[^a-z0-9]+`)

// nameOf proposes a name to log in with.
func nameOf(given, family string) string {
	plain := strings.NewReplacer("ä", "ae", "ö", "oe", "ü", "ue", "ß", "ss", "æ", "ae", "ø", "oe", "å", "aa", "ł", "l")
	clean := func(s string) string {
		return noName.ReplaceAllString(norm.NFKD.String(plain.Replace(strings.ToLower(norm.NFC.String(s)))), "")
	}
	name := strings.Trim(clean(given)+"."+clean(family), ".")
	if name == "" || name[0] < 'a' {
		name = "officer"
	}
	return name[:min(len(name), 40)]
}

// recoveryView is what the page of getting back in shows.
type recoveryView struct {
	Codes    []string // printed ones, just made: they are never shown again
	Possible bool     // passkeys are, by this address
	Fresh    bool     // she has logged in just now, as a new passkey wants it
	Host     string   // that a passkey made now is good for
	Methods  login.Methods
}

func (s *Service) recovery(r *web.Request) error {
	v, err := newRecoveryView(r)
	if err != nil {
		return err
	}
	return s.show(r, StepRecovery, v)
}

func newRecoveryView(r *web.Request) (recoveryView, error) {
	r.Form.Set("label", session.Device(r.HTTP.UserAgent()))
	m, err := r.Login.Methods(r.Person.Name)
	return recoveryView{Possible: login.PasskeysPossible(r.Origin()), Fresh: r.Now.Before(r.Session.Fresh),
		Host: session.Host(r.Host()), Methods: m}, err
}

func (s *Service) setRecovery(r *web.Request) error {
	v, err := newRecoveryView(r)
	if err != nil {
		return err
	}
	switch r.Form.Choice("what", "print", "done", "later") {
	case "print":
		if v.Codes, err = r.Login.MakePrinted(r.Context(), r.Person.Name); err != nil {
			return err
		}
	case "done":
		if v.Methods.Printed == 0 && len(v.Methods.Passkeys) == 0 {
			r.Form.Fail("", "firstrun.recovery.none")
		} else if !r.Form.Checked("sure") {
			r.Form.Fail("sure", "firstrun.recovery.sure")
		} else {
			return s.goOn(r, StepRecovery, false)
		}
	case "later":
		return s.goOn(r, StepRecovery, true)
	}
	return s.show(r, StepRecovery, v)
}

// goOn notes a step as done or put off, and leads to the next.
func (s *Service) goOn(r *web.Request, step Step, later bool) error {
	if err := s.Finish(step, later); err != nil {
		return err
	}
	return s.next(r, step)
}

// secondView is what the page of the second officer shows.
type secondView struct {
	Link    string
	Image   template.URL
	People  []web.Option // who could be appointed
	Offices []web.Option // that are free
	Holders []string     // who else is an officer already
}

func (s *Service) second(r *web.Request) error {
	st, err := s.State()
	if err != nil {
		return err
	}
	var v secondView
	if v.Link, v.Image, err = shown(r, st.Invited); err != nil {
		return err
	}
	people, err := r.Directory.People(r.Context())
	if err != nil {
		return err
	}
	all, err := r.Directory.Offices(r.Context())
	if err != nil {
		return err
	}
	for _, p := range people {
		if p.Name != r.Person.Name && p.Active {
			v.People = append(v.People, web.Option{Value: p.Name, Label: p.Display})
		}
	}
	for _, o := range offices(r) {
		i := slices.IndexFunc(all, func(x directory.Office) bool { return x.Name == o.Value })
		switch {
		case i < 0 || all[i].Occupant == "":
			v.Offices = append(v.Offices, o)
		case all[i].Occupant != r.Person.Name:
			v.Holders = append(v.Holders, all[i].Occupant+" ("+o.Label+")")
		}
	}
	slices.SortFunc(v.People, func(a, b web.Option) int { return cmp.Compare(a.Label, b.Label) })
	return s.show(r, StepSecond, v)
}

// inviteLasts is for how long the second officer's invitation is good, and membersLasts that of members.
const (
	inviteLasts  = 14 * 24 * time.Hour
	membersLasts = 60 * 24 * time.Hour
)

func (s *Service) setSecond(r *web.Request) error {
	switch r.Form.Choice("what", "invite", "appoint", "done", "later") {
	case "invite":
		name, mail := r.Form.Text("name", web.Line), r.Form.Mail("mail")
		if !r.Form.OK() {
			return s.second(r)
		}
		link, err := s.inviter.Invite(r.Context(), onboard.Invitation{Group: officersGroup, By: r.Person.Name, Name: name, Mail: mail,
			Uses: 1, Until: r.Now.Add(inviteLasts)})
		if err != nil {
			return err
		}
		if _, err := s.change(func(_ *store.Tx, st *State) error { st.Invited = link; return nil }); err != nil {
			return err
		}
		return r.Redirect(root + string(StepSecond))
	case "appoint":
		return s.appoint(r)
	case "done", "later":
		return s.goOn(r, StepSecond, r.Form.Value("what") == "later")
	}
	return s.second(r)
}

func (s *Service) appoint(r *web.Request) error {
	person := r.Form.Required("person", web.Line)
	office := r.Form.Choice("office", "chair", "treasurer", "secretary")
	if person == r.Person.Name {
		r.Form.Fail("person", "form.choice")
	}
	if !r.Form.OK() {
		return s.second(r)
	}
	all, err := r.Directory.Offices(r.Context())
	if err != nil {
		return err
	}
	taken := func(o directory.Office) bool { return o.Name == office && o.Occupant != "" && o.Occupant != person }
	if slices.ContainsFunc(all, taken) { // chosen in another tab meanwhile
		r.Form.Fail("office", "firstrun.second.taken")
		return s.second(r)
	}
	for _, group := range []string{membersGroup, officersGroup} {
		if err := r.Directory.AddMember(r.Context(), group, person); err != nil && !errors.Is(err, directory.ErrExists) {
			return err
		}
	}
	if err := r.Directory.AppointTo(r.Context(), office, person, r.Now, time.Time{}); err != nil {
		return err
	}
	return errors.Join(s.record(audit.Entry{Kind: "firstrun.officer", Actor: r.Person.Name, Subject: person,
		Args: map[string]string{"office": office}}, StepSecond), r.Redirect(root+string(StepSecond)))
}

func (s *Service) organisation(r *web.Request) error {
	now, err := r.Box.Settings(r.Context(), "")
	if err != nil {
		return s.away(err)
	}
	text := func(name string) string { v, _ := now.Values[name].(string); return v }
	st, err := s.State()
	if err != nil {
		return err
	}
	zone := text("time-zone")
	if !st.IsDone(StepOrganisation) && r.Language == "de" && (zone == "" || strings.HasPrefix(zone, "Etc/")) {
		zone = "Europe/Berlin"
	}
	for field, value := range map[string]string{"name": text("name"), "zone": zone, "kind": st.Kind,
		"contact": cmp.Or(text("contact"), r.Person.OutsideMail)} {
		r.Form.Set(field, value)
	}
	return s.show(r, StepOrganisation, s.kindOptions(r))
}

// kindOptions are the kinds in the visitor's language.
func (s *Service) kindOptions(r *web.Request) []web.Option {
	var all []web.Option
	for _, k := range s.kinds {
		all = append(all, web.Option{Value: k.Name, Label: k.Title.In(r.Language) + " – " + k.Help.In(r.Language)})
	}
	return all
}

// away is an error of the box in the visitor's words.
func (s *Service) away(err error) error {
	return &web.Problem{Status: 503, Key: "firstrun.problem.box", Err: err}
}

func (s *Service) setOrganisation(r *web.Request) error {
	f := r.Form
	o := Organisation{Name: f.Required("name", web.Line), TimeZone: f.Required("zone", web.Line), Contact: f.Mail("contact"),
		Kind: f.Required("kind", web.Line), Language: r.Language, Revision: revision(f)}
	if f.OK() && s.Kind(o.Kind) == nil {
		f.Fail("kind", "form.choice")
	}
	if !f.OK() {
		return s.show(r, StepOrganisation, s.kindOptions(r))
	}
	about := box.About{Key: "settings", Title: r.T("firstrun.organisation.saving"), Back: root + string(Next(StepOrganisation))}
	done, err := s.machine.Do(r, about, func(ctx context.Context, _ func(api.Progress)) error {
		return s.Organise(ctx, r.Person.Name, o)
	})
	if !done {
		return err
	}
	var e *api.Error
	switch {
	case errors.Is(err, ErrStale):
		f.Fail("", "firstrun.stale")
		return s.organisation(r)
	case errors.As(err, &e) && len(e.Faults) > 0:
		for _, x := range e.Faults {
			f.Fail(cmp.Or(map[string]string{"time-zone": "zone"}[x.Field], x.Field), "firstrun.fault", "text", web.Said(x.Text))
		}
		return s.show(r, StepOrganisation, s.kindOptions(r))
	case err != nil:
		return err
	}
	return s.next(r, StepOrganisation)
}

// revision is the state's revision that a page showed.
func revision(f *web.Form) int { return f.Number("revision", 0, 1<<30) }

// modulesView is what the page of modules shows.
type modulesView struct {
	Proposals []Proposal
	Memory    int64 // that the machine has
	Share     int   // per cent that what is proposed takes
}

func (s *Service) modules(r *web.Request) error {
	all, err := s.Proposals(r.Context())
	if err != nil {
		return s.away(err)
	}
	res, err := r.Box.Resources(r.Context())
	if err != nil {
		return s.away(err)
	}
	v := modulesView{Memory: res.Memory}
	for _, p := range all {
		if p.Title = titleOf(r, p.Name, p.Title); p.Proposed {
			v.Share += p.Share
		}
		v.Proposals = append(v.Proposals, p)
	}
	return s.show(r, StepModules, v)
}

// titleOf is a module's title in the visitor's language.
func titleOf(r *web.Request, name, title string) string {
	if text := r.T("module." + name + ".title"); text != "module."+name+".title" {
		return text
	}
	return title
}

func (s *Service) setModules(r *web.Request) error {
	on, rev := slices.Clone(r.Form.All("module")), revision(r.Form)
	if !r.Form.OK() {
		return s.modules(r)
	}
	about := box.About{Key: "modules", Title: r.T("firstrun.modules.switching"), Back: root + string(Next(StepModules))}
	done, err := s.machine.Do(r, about, func(ctx context.Context, _ func(api.Progress)) error {
		return s.Choose(ctx, r.Person.Name, on, rev)
	})
	if !done {
		return err
	}
	var e *api.Error
	switch {
	case errors.Is(err, ErrStale):
		r.Form.Fail("", "firstrun.stale")
		return s.modules(r)
	case errors.As(err, &e):
		r.Form.Fail("", "firstrun.fault", "text", web.Said(e.Message))
		return s.modules(r)
	case err != nil:
		return err
	}
	return s.next(r, StepModules)
}

func (s *Service) domain(r *web.Request) error {
	w, err := s.machine.Wanted()
	if err != nil {
		return err
	}
	n, err := r.Box.Network(r.Context())
	if err != nil {
		return s.away(err)
	}
	if r.Form.Value("domain") == "" {
		r.Form.Set("domain", w.Domain)
	}
	return s.show(r, StepDomain, map[string]any{"Wanted": w.Domain, "Domain": strings.TrimSuffix(n.Domain, "allotment.internal")})
}

func (s *Service) setDomain(r *web.Request) error {
	if r.Form.Value("what") == "later" {
		return s.goOn(r, StepDomain, true)
	}
	domain := box.ReadDomain(r.Form, "domain")
	if !r.Form.OK() {
		return s.domain(r)
	}
	if err := s.machine.Want(r, domain); err != nil {
		return err
	}
	return s.goOn(r, StepDomain, false)
}

func (s *Service) backup(r *web.Request) error {
	b, err := r.Box.Backup(r.Context())
	if err != nil {
		return s.away(err)
	}
	return s.show(r, StepBackup, b)
}

func (s *Service) setBackup(r *web.Request) error {
	b, err := r.Box.Backup(r.Context())
	if err != nil {
		return s.away(err)
	}
	return s.goOn(r, StepBackup, b.Target == nil)
}

// inviteView is what the page of members shows.
type inviteView struct {
	Link  string
	Image template.URL
}

func (s *Service) invite(r *web.Request) error {
	st, err := s.State()
	if err != nil {
		return err
	}
	var v inviteView
	if v.Link, v.Image, err = shown(r, st.Members); err != nil {
		return err
	}
	return s.show(r, StepInvite, v)
}

func (s *Service) setInvite(r *web.Request) error {
	if what := r.Form.Choice("what", "link", "done", "later"); what != "link" {
		return s.goOn(r, StepInvite, what != "done")
	}
	st, err := s.State()
	if err != nil || st.Members != "" { // asked twice: there is one already
		return errors.Join(err, r.Redirect(root+string(StepInvite)))
	}
	link, err := s.inviter.Invite(r.Context(), onboard.Invitation{Group: membersGroup, By: r.Person.Name,
		Until: r.Now.Add(membersLasts)})
	if err != nil {
		return err
	}
	if _, err := s.change(func(_ *store.Tx, st *State) error { st.Members = link; return nil }); err != nil {
		return err
	}
	return r.Redirect(root + string(StepInvite))
}

func (s *Service) done(r *web.Request) error { return s.show(r, StepDone, nil) }

func (s *Service) end(r *web.Request) error {
	if err := s.Finish(StepDone, false); err != nil {
		return err
	}
	return r.Redirect("/portal/")
}
