package directory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// Office is an office such as treasurer: it outlives those who hold it.
type Office struct {
	Name       string
	Title      string // as people see it; empty: Name
	Mail       string // its address in the organisation; empty: none
	Collective string // whose office it is; empty: the organisation's
	RunsBox    bool   // who holds it is an officer, who runs the box; chair, treasurer and secretary always are
	Occupant   string // a person; empty: vacant
	Start, End time.Time
	Revision   string // another one when what ChangeOffice writes has changed
}

// running are the offices that run the box in every organisation. They cannot be removed.
var running = []string{"chair", "treasurer", "secretary"}

// HeldAt says whether the person holds the office at a moment: it begins with Start and ends before End.
func (o *Office) HeldAt(person string, now time.Time) bool {
	return o.Occupant == person && person != "" && !now.Before(o.Start) && (o.End.IsZero() || now.Before(o.End))
}

var officeAttributes = []string{"cn", "displayName", "mail", "allotmentCollective", "allotmentRunsBox", "roleOccupant",
	"allotmentTermStart", "allotmentTermEnd"}

// officeWritten are the attributes that ChangeOffice writes.
var officeWritten = []string{"displayName", "mail", "allotmentCollective", "allotmentRunsBox"}

// attributes are those that AddOffice and ChangeOffice write.
func (o *Office) attributes() ([]attribute, error) {
	title, err := CleanText(o.Title)
	if err != nil {
		return nil, err
	}
	mail, err := CleanMail(o.Mail)
	if err != nil {
		return nil, err
	}
	collective, err := belongsTo(o.Collective)
	if err != nil {
		return nil, err
	}
	return []attribute{one("displayName", title), one("mail", mail), collective, flag("allotmentRunsBox", o.RunsBox)}, nil
}

// AddOffice makes an office.
func (d *Directory) AddOffice(ctx context.Context, o Office) error {
	if err := d.addOffice(ctx, o); err != nil {
		return fmt.Errorf("cannot add office %q: %w", o.Name, err)
	}
	return nil
}

func (d *Directory) addOffice(ctx context.Context, o Office) error {
	dn, err := officeDN(o.Name)
	if err != nil {
		return err
	}
	term, err := newTerm(o.Occupant, o.Start, o.End)
	if err != nil {
		return err
	}
	attributes, err := o.attributes()
	if err != nil {
		return err
	}
	return d.add(ctx, dn, []string{"allotmentOffice"}, slices.Concat(attributes, term, []attribute{one("cn", o.Name)}))
}

// ChangeOffice lets change alter what AddOffice writes, but the name and who holds it. ErrConflict: somebody else did so since
// it had the revision; an empty one is that of now.
func (d *Directory) ChangeOffice(ctx context.Context, name, revision string, change func(*Office)) error {
	dn, err := officeDN(name)
	if err == nil {
		err = d.changeOffice(ctx, dn, revision, change)
	}
	if err != nil {
		return fmt.Errorf("cannot change office %q: %w", name, err)
	}
	return nil
}

func (d *Directory) changeOffice(ctx context.Context, dn, revision string, change func(*Office)) error {
	return d.update(ctx, dn, revision, officeAttributes, officeWritten, func(e *ldap.Entry) ([]attribute, error) {
		o, err := newOffice(e)
		if err != nil {
			return nil, err
		}
		change(&o)
		return o.attributes()
	})
}

// RemoveOffice removes an office, but none of those that every organisation has.
func (d *Directory) RemoveOffice(ctx context.Context, name string) error {
	dn, err := officeDN(name)
	if err == nil && slices.Contains(running, name) {
		err = fmt.Errorf("every organisation has it")
	}
	if err == nil {
		err = d.remove(ctx, dn)
	}
	if err != nil {
		return fmt.Errorf("cannot remove office %q: %w", name, err)
	}
	return nil
}

// newTerm are the attributes that say who holds an office and from when to when; the zero time is open.
func newTerm(occupant string, start, end time.Time) ([]attribute, error) {
	dn := ""
	if occupant != "" {
		var err error
		if dn, err = personDN(occupant); err != nil {
			return nil, err
		}
	}
	if !end.IsZero() && end.Before(start) {
		return nil, fmt.Errorf("the term ends before it begins")
	}
	return []attribute{one("roleOccupant", dn), oneTime("allotmentTermStart", start), oneTime("allotmentTermEnd", end)}, nil
}

// AppointTo gives an office to a person from one moment until another, in one step; to nobody if person is empty. The zero
// time is open.
func (d *Directory) AppointTo(ctx context.Context, office, person string, from, until time.Time) error {
	if err := d.appointTo(ctx, office, person, from, until); err != nil {
		return fmt.Errorf("cannot appoint %q to office %q: %w", person, office, err)
	}
	return nil
}

func (d *Directory) appointTo(ctx context.Context, office, person string, from, until time.Time) error {
	dn, err := officeDN(office)
	if err != nil {
		return err
	}
	if person != "" { // slapd does not look whether roleOccupant is there
		if _, err := d.person(ctx, person); err != nil {
			return err
		}
	}
	term, err := newTerm(person, from, until)
	if err != nil {
		return err
	}
	return d.replace(ctx, dn, term...)
}

// Offices lists all offices, sorted by name.
func (d *Directory) Offices(ctx context.Context) ([]Office, error) {
	found, err := d.officesWhich(ctx, "(objectClass=allotmentOffice)")
	if err != nil {
		return nil, fmt.Errorf("cannot list offices: %w", err)
	}
	return found, nil
}

// HoldsOffice says whether a person is an officer at a moment: she is active and holds an office that runs the box.
func (d *Directory) HoldsOffice(ctx context.Context, person string, now time.Time) (bool, error) {
	holds, err := d.holdsOffice(ctx, person, now)
	if err != nil {
		return false, fmt.Errorf("cannot find out whether %q is an officer: %w", person, err)
	}
	return holds, nil
}

func (d *Directory) holdsOffice(ctx context.Context, person string, now time.Time) (bool, error) {
	p, err := d.person(ctx, person)
	if err != nil || !p.Active {
		return false, err
	}
	dn, err := personDN(person)
	if err != nil {
		return false, err
	}
	held, err := d.officesWhich(ctx, "(roleOccupant="+ldap.EscapeFilter(dn)+")")
	return err == nil && slices.ContainsFunc(held, func(o Office) bool { return o.runsBoxAt(now) }), err
}

// runsBoxAt says whether who holds the office is an officer at a moment, if she is active.
func (o *Office) runsBoxAt(now time.Time) bool {
	return (o.RunsBox || slices.Contains(running, o.Name)) && o.HeldAt(o.Occupant, now)
}

// Officers lists those of whom HoldsOffice is true at a moment, each once, sorted by name.
func (d *Directory) Officers(ctx context.Context, now time.Time) ([]Person, error) {
	found, err := d.officers(ctx, now)
	if err != nil {
		return nil, fmt.Errorf("cannot list officers: %w", err)
	}
	return found, nil
}

func (d *Directory) officers(ctx context.Context, now time.Time) ([]Person, error) {
	held, err := d.officesWhich(ctx, "(roleOccupant=*)")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, o := range held {
		if o.runsBoxAt(now) {
			names = append(names, o.Occupant)
		}
	}
	slices.Sort(names)
	var found []Person
	for _, name := range slices.Compact(names) {
		p, err := d.person(ctx, name)
		switch {
		case errors.Is(err, ErrNotFound): // removed just now
		case err != nil:
			return nil, err
		case p.Active:
			found = append(found, p)
		}
	}
	return found, nil
}

func (d *Directory) officesWhich(ctx context.Context, filter string) ([]Office, error) {
	entries, err := d.search(ctx, offices, filter, officeAttributes)
	if err != nil {
		return nil, err
	}
	var found []Office
	for _, e := range entries {
		o, err := newOffice(e)
		if err != nil {
			return nil, err
		}
		found = append(found, o)
	}
	slices.SortFunc(found, func(a, b Office) int { return strings.Compare(a.Name, b.Name) })
	return found, nil
}

func newOffice(e *ldap.Entry) (Office, error) {
	start, err := readTime(e, "allotmentTermStart")
	if err != nil {
		return Office{}, err
	}
	end, err := readTime(e, "allotmentTermEnd")
	if err != nil {
		return Office{}, err
	}
	return Office{
		Name:       e.GetAttributeValue("cn"),
		Title:      e.GetAttributeValue("displayName"),
		Mail:       e.GetAttributeValue("mail"),
		Collective: nameOf(e.GetAttributeValue("allotmentCollective")),
		RunsBox:    e.GetAttributeValue("allotmentRunsBox") == "TRUE",
		Occupant:   nameOf(e.GetAttributeValue("roleOccupant")),
		Start:      start,
		End:        end,
		Revision:   revisionOf(e, officeWritten),
	}, nil
}
