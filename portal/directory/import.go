package directory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/text/language"
)

// ImportOptions say how to read a list of people.
type ImportOptions struct {
	Format   string // csv or ldif
	DryRun   bool   // only say what would happen
	Group    string // that everybody in the list comes into; empty: none but those in the list
	Language string // of those of whom the list says none
}

// Report is what came of a list of people.
type Report struct {
	Encoding  string   // such as UTF-8
	Guessed   bool     // that nothing in the file tells the encoding: look at names with accents
	Separator rune     // between cells of CSV
	Ignored   []string // headings of columns that mean nothing to us
	Lines     []LineFate
}

// Count is how many lines had the fate.
func (r *Report) Count(f Fate) int {
	n := 0
	for _, l := range r.Lines {
		if l.Fate == f {
			n++
		}
	}
	return n
}

// LineFate is what came of one line, or will.
type LineFate struct {
	Line   int
	Fate   Fate
	Name   string // user name, or the group's
	Group  bool   // it is a group's
	What   string // whom the line is about, as others see her
	Why    Why
	Detail string // to Why: another line's number, a text, or an error
}

// Fate is what happens to a line.
type Fate string

// The fates of a line.
const (
	Added   Fate = "added"
	Changed Fate = "changed"
	Skipped Fate = "skipped" // there is nothing to do
	Refused Fate = "refused"
)

// Why is the reason for a fate. Messages for people are named after it.
type Why string

// The reasons.
const (
	WhyNothing    Why = ""
	WhyUnchanged  Why = "unchanged"      // all of it is in the directory
	WhyRepeated   Why = "repeated"       // the same person is in line Detail
	WhyShared     Why = "shared-address" // added, though the address outside is in line Detail too, or somebody else's
	WhyTaken      Why = "taken"          // the user name or organisation address Detail is somebody else's
	WhyEmpty      Why = "no-name"        // it names nobody
	WhyText       Why = "bad-text"       // Detail cannot be shown to people
	WhyMail       Why = "bad-address"    // Detail is no mail address
	WhyName       Why = "bad-user-name"  // Detail cannot be one
	WhyGroup      Why = "no-group"       // there is no group Detail
	WhyCollective Why = "no-collective"  // there is no collective Detail
	WhyRow        Why = "unreadable"     // quotation marks or the like are wrong
	WhyKind       Why = "no-person"      // an entry for something else
	WhyFailed     Why = "failed"         // the directory did not take it
)

// ErrHeadings says that the first line of a table has no heading that we know.
var ErrHeadings = errors.New("the first line has no headings such as Given name, Family name and E-mail")

// entrant is a line of a list: a person, and in which groups she is to be; or a group with its members.
type entrant struct {
	line   int
	person Person
	groups []string // names or titles
	group  *Group
	why    Why // set: the line cannot be used
	detail string
}

// Import adds the people of a list, or changes those that are there: by user name, or else by name and address. Only what
// the list says is changed. What went wrong with a line is in the report and ends nothing; calling it again goes on.
func (d *Directory) Import(ctx context.Context, r io.Reader, o ImportOptions) (Report, error) {
	report, err := d.importPeople(ctx, r, o)
	if err != nil {
		return report, fmt.Errorf("cannot import people: %w", err)
	}
	return report, nil
}

func (d *Directory) importPeople(ctx context.Context, r io.Reader, o ImportOptions) (Report, error) {
	var report Report
	var list []entrant
	var err error
	switch o.Format {
	case "csv":
		list, err = readTable(r, &report)
	case "ldif":
		list, err = readEntries(r, &report)
	default:
		err = fmt.Errorf("%q is no format of lists: csv or ldif", o.Format)
	}
	if err != nil {
		return report, err
	}
	p, err := d.newPlan(ctx, o)
	if err != nil {
		return report, err
	}
	report.Lines = p.lineUp(list)
	if !o.DryRun {
		err = d.carryOut(ctx, p, &report)
	}
	return report, err
}

// carryOut writes what is planned. A line that the directory does not take is refused.
func (d *Directory) carryOut(ctx context.Context, p *plan, report *Report) error {
	for i := range report.Lines {
		l := &report.Lines[i]
		var err error
		switch {
		case l.Fate == Added && l.Group:
			err = d.AddGroup(ctx, p.groups[l.Name])
		case l.Fate == Added:
			err = d.AddPerson(ctx, p.people[l.Name].Person)
		case l.Fate == Changed:
			err = d.ChangePerson(ctx, l.Name, "", func(v *Person) { p.people[l.Name].merge(v) })
		}
		if errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
			return err
		}
		if err != nil {
			l.Fate, l.Why, l.Detail = Refused, WhyFailed, err.Error()
			p.forget(l)
		}
	}
	for _, group := range p.joined() {
		if err := d.addMembers(ctx, group, p.joins[group]); err != nil {
			return err
		}
	}
	return nil
}

// known is a person as she will be, and what the list says of her.
type known struct {
	Person
	said []Person
}

// merge writes what the list says into a person.
func (k *known) merge(p *Person) {
	for _, said := range k.said {
		overlay(p, said)
	}
}

// overlay writes those fields of said that are not empty.
func overlay(p *Person, said Person) {
	to, from := p.fields(), said.fields()
	for i := range to {
		if *from[i] != "" {
			*to[i] = *from[i]
		}
	}
	if len(said.Photo) > 0 {
		p.Photo = said.Photo
	}
}

// fields are the texts that lists say of a person.
func (p *Person) fields() []*string {
	return []*string{&p.Given, &p.Family, &p.Display, &p.Mail, &p.OutsideMail, &p.Forward, &p.Phone, &p.Language,
		&p.Collective}
}

// plan is what will be in the directory.
type plan struct {
	o           ImportOptions
	people      map[string]*known   // by name
	byMail      map[string][]string // names, by address outside
	mails       map[string]string   // names, by address in the organisation
	lines       map[string]int      // where the list names a person, by name
	groups      map[string]Group    // by name
	byTitle     map[string]string   // names of groups, by title in lower case
	collectives map[string]bool     // by name
	joins       map[string][]string // names of people, by group
}

func emptyPlan(o ImportOptions) *plan {
	return &plan{o: o, people: map[string]*known{}, byMail: map[string][]string{}, mails: map[string]string{},
		lines: map[string]int{}, groups: map[string]Group{}, byTitle: map[string]string{}, collectives: map[string]bool{}, joins: map[string][]string{}}
}

func (d *Directory) newPlan(ctx context.Context, o ImportOptions) (*plan, error) {
	p := emptyPlan(o)
	everybody, err := d.People(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range everybody {
		p.enter(v)
	}
	bodies, err := d.Collectives(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range bodies {
		p.collectives[c.Name] = true
	}
	groups, err := d.Groups(ctx)
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		p.groups[g.Name] = g
		p.byTitle[strings.ToLower(g.Title)] = g.Name
	}
	if _, ok := p.groups[o.Group]; o.Group != "" && !ok {
		return nil, fmt.Errorf("group %q: %w", o.Group, ErrNotFound)
	}
	return p, nil
}

// enter makes a person known.
func (p *plan) enter(v Person) *known {
	k := &known{Person: v}
	p.people[v.Name] = k
	if v.OutsideMail != "" {
		mail := strings.ToLower(v.OutsideMail)
		p.byMail[mail] = append(p.byMail[mail], v.Name)
	}
	if v.Mail != "" {
		p.mails[strings.ToLower(v.Mail)] = v.Name
	}
	return k
}

// forget takes a person who could not be written out of the groups that she was to join, and all out of such a group.
func (p *plan) forget(l *LineFate) {
	if l.Group {
		delete(p.joins, l.Name)
		return
	}
	for group, names := range p.joins {
		p.joins[group] = slices.DeleteFunc(names, func(n string) bool { return n == l.Name })
	}
}

// lineUp decides what happens to all lines.
func (p *plan) lineUp(list []entrant) []LineFate {
	var lines []LineFate
	for _, e := range list {
		if p.o.Format == "ldif" { // whose collective has left another box is here for herself
			p.withoutCollective(&e)
		}
		if e.group != nil {
			lines = append(lines, p.groupLine(e))
		} else {
			lines = append(lines, p.line(e))
		}
	}
	p.joinMembers(list)
	return lines
}

// withoutCollective takes a collective that is not here from an entry.
func (p *plan) withoutCollective(e *entrant) {
	if !p.collectives[e.person.Collective] {
		e.person.Collective = ""
	}
	if e.group != nil && !p.collectives[e.group.Collective] {
		e.group.Collective = ""
	}
}

// groupLine decides what happens to a group.
func (p *plan) groupLine(e entrant) LineFate {
	fate := LineFate{Line: e.line, Group: true, Name: e.group.Name, What: cmp.Or(e.group.Title, e.group.Name)}
	_, there := p.groups[e.group.Name]
	_, err := e.group.attributes()
	switch {
	case there:
		fate.Fate, fate.Why = Skipped, WhyUnchanged // but for members, whose lines are their own
	case !nameForm.MatchString(e.group.Name):
		fate.Fate, fate.Why, fate.Detail = Refused, WhyName, e.group.Name
	case err != nil:
		fate.Fate, fate.Why, fate.Detail = Refused, WhyText, err.Error()
	case e.group.Collective != "" && !p.collectives[e.group.Collective]:
		fate.Fate, fate.Why, fate.Detail = Refused, WhyCollective, e.group.Collective
	default:
		fate.Fate = Added
		p.groups[e.group.Name] = Group{Name: e.group.Name, Title: e.group.Title, About: e.group.About, Mail: e.group.Mail,
			Collective: e.group.Collective}
	}
	return fate
}

// joinMembers lets people of the list join those of its groups that name them as members.
func (p *plan) joinMembers(list []entrant) {
	for _, e := range list {
		if e.group == nil {
			continue
		}
		if _, ok := p.groups[e.group.Name]; !ok {
			continue
		}
		for _, name := range e.group.Members {
			if _, ok := p.lines[name]; ok {
				p.join(name, []string{e.group.Name})
			}
		}
	}
}

// joined are the groups that somebody joins, in order.
func (p *plan) joined() []string {
	var names []string
	for name, who := range p.joins {
		if len(who) > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// line decides what happens to a line, and takes it as done for those that follow.
func (p *plan) line(e entrant) LineFate {
	fate := LineFate{Line: e.line, Fate: Refused, Name: e.person.Name, Why: e.why, Detail: e.detail}
	if e.why == WhyKind {
		fate.Fate = Skipped
	}
	v := e.person
	if e.why == WhyNothing {
		fate.Why, fate.Detail = check(&v)
	}
	fate.What = v.Display
	groups, missing := p.groupsOf(e)
	if missing != "" && fate.Why == WhyNothing {
		fate.Why, fate.Detail = WhyGroup, missing
	}
	if v.Collective != "" && !p.collectives[v.Collective] && fate.Why == WhyNothing {
		fate.Why, fate.Detail = WhyCollective, v.Collective
	}
	if fate.Why != WhyNothing {
		return fate
	}
	k := p.find(&v)
	if v.Mail != "" {
		if owner, ok := p.mails[strings.ToLower(v.Mail)]; ok && (k == nil || owner != k.Name) {
			fate.Why, fate.Detail = WhyTaken, v.Mail
			return fate
		}
	}
	if k == nil {
		return p.addition(fate, v, groups)
	}
	e.person.Language = v.Language
	return p.change(fate, k, e.person, groups)
}

// addition adds somebody.
func (p *plan) addition(fate LineFate, v Person, groups []string) LineFate {
	if sharers := p.byMail[strings.ToLower(v.OutsideMail)]; v.OutsideMail != "" && len(sharers) > 0 {
		fate.Why, fate.Detail = WhyShared, sharers[0]
	}
	if v.Name == "" {
		v.Name = ProposeName(v.Given, v.Family, func(name string) bool { return p.people[name] != nil })
	}
	if v.Language == "" {
		v.Language = p.o.Language
	}
	p.enter(v)
	p.lines[v.Name] = fate.Line
	p.join(v.Name, groups)
	fate.Fate, fate.Name = Added, v.Name
	return fate
}

// change changes somebody who is there, if the list says something new.
func (p *plan) change(fate LineFate, k *known, said Person, groups []string) LineFate {
	fate.Name, fate.What = k.Name, k.Display
	if line, ok := p.lines[k.Name]; ok {
		fate.Fate, fate.Why, fate.Detail = Skipped, WhyRepeated, fmt.Sprint(line)
		return fate
	}
	p.lines[k.Name] = fate.Line
	after := k.Person
	overlay(&after, said)
	if err := after.clean(); err != nil { // what is there already is clean, and so is what is said
		fate.Why, fate.Detail = WhyText, err.Error()
		return fate
	}
	joins := p.join(k.Name, groups)
	if slices.EqualFunc(after.fields(), k.Person.fields(), func(a, b *string) bool { return *a == *b }) && len(said.Photo) == 0 {
		if !joins {
			fate.Fate, fate.Why = Skipped, WhyUnchanged
			return fate
		}
	}
	k.said = append(k.said, said)
	k.Person = after
	fate.Fate = Changed
	return fate
}

// find is the person whom a line is about: by user name, or by address outside and name. nil: nobody yet.
func (p *plan) find(v *Person) *known {
	if v.Name != "" {
		return p.people[v.Name]
	}
	for _, name := range p.byMail[strings.ToLower(v.OutsideMail)] {
		if k := p.people[name]; v.OutsideMail != "" && strings.EqualFold(k.Display, v.Display) {
			return k
		}
	}
	if v.OutsideMail == "" { // then the name has to do, or a list read twice would be added twice
		for _, k := range p.people {
			if k.OutsideMail == "" && k.Display == v.Display && k.Given == v.Given {
				return k
			}
		}
	}
	return nil
}

// groupsOf finds the names of the groups of a line, or one that is missing.
func (p *plan) groupsOf(e entrant) (names []string, missing string) {
	wanted := e.groups
	if p.o.Group != "" {
		wanted = append(slices.Clone(wanted), p.o.Group)
	}
	for _, name := range wanted {
		if _, ok := p.groups[name]; !ok {
			title, ok := p.byTitle[strings.ToLower(name)]
			if !ok {
				return nil, name
			}
			name = title
		}
		names = append(names, name)
	}
	return names, ""
}

// join notes the groups in which a person is not yet, and says whether there are any.
func (p *plan) join(name string, groups []string) bool {
	some := false
	for _, g := range groups {
		if !slices.Contains(p.groups[g].Members, name) && !slices.Contains(p.joins[g], name) {
			p.joins[g] = append(p.joins[g], name)
			some = true
		}
	}
	return some
}

// check cleans what a line says, or tells what is wrong with it.
func check(v *Person) (Why, string) {
	if v.Given+v.Family+v.Display+v.Name == "" {
		return WhyEmpty, ""
	}
	if v.Name != "" {
		if _, err := personDN(v.Name); err != nil {
			return WhyName, v.Name
		}
	}
	for _, address := range []string{v.Mail, v.OutsideMail, v.Forward} {
		if _, err := CleanMail(address); err != nil {
			return WhyMail, address
		}
	}
	for _, text := range []string{v.Given, v.Family, v.Display, v.Phone} {
		if _, err := CleanText(text); err != nil {
			return WhyText, text
		}
	}
	if _, err := language.Parse(v.Language); err != nil { // "German": not worth losing a person for
		v.Language = ""
	}
	if err := v.clean(); err != nil {
		return WhyFailed, err.Error()
	}
	return WhyNothing, ""
}
