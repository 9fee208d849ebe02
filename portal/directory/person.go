package directory

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/go-ldap/ldap/v3"
	"golang.org/x/text/language"
)

// Person is a member of the organisation (inetOrgPerson of RFC 2798, with what allotment.schema adds).
type Person struct {
	Name        string // what she logs in with, and her address before the @; it never changes
	Given       string
	Family      string
	Display     string // as others see it; if empty when written: Given and Family, or Name
	Mail        string // address in the organisation; nobody else may have it
	OutsideMail string // address elsewhere, for getting back in; only she and the portal see it
	Forward     string // where mail to Mail goes; empty: to her mailbox
	Phone       string
	Language    string // BCP 47
	Photo       []byte // JPEG
	Collective  string // name of the collective that she came with; empty: none

	// What has methods of its own: AddPerson and ChangePerson do not look at these.

	Groups      []string // names, sorted
	Permissions []string // MODULE.PERMISSION, sorted
	Active      bool     // she can log in
	DeleteAt    time.Time
	Revision    string // another one when something above has changed
}

var personClasses = []string{"inetOrgPerson", "allotmentPerson"}

// personWritten are the attributes that AddPerson and ChangePerson write.
var personWritten = []string{"givenName", "sn", "cn", "mail", "allotmentOutsideMail", "allotmentForward", "telephoneNumber",
	"preferredLanguage", "jpegPhoto", "allotmentCollective"}

var personAttributes = slices.Concat(personWritten, []string{"uid", "memberOf", "allotmentInactive", "allotmentDeleteAt"})

// maxPhoto is the most bytes of a picture: everybody's are read whenever people are listed.
const maxPhoto = 64 << 10

// Address is where mail about her account goes: her own address elsewhere, else that at the organisation; empty: there is none.
func (p Person) Address() string { return cmp.Or(p.OutsideMail, p.Mail) }

// clean checks what AddPerson and ChangePerson write, and puts it into its standard form.
func (p *Person) clean() error {
	for _, text := range []*string{&p.Given, &p.Family, &p.Display, &p.Phone} {
		var err error
		if *text, err = CleanText(*text); err != nil {
			return err
		}
	}
	for _, address := range []*string{&p.Mail, &p.OutsideMail, &p.Forward} {
		var err error
		if *address, err = CleanMail(*address); err != nil {
			return err
		}
	}
	if p.Language != "" {
		tag, err := language.Parse(p.Language)
		if err != nil {
			return fmt.Errorf("%q is no language: %w", p.Language, err)
		}
		p.Language = tag.String()
	}
	if len(p.Photo) > maxPhoto {
		return fmt.Errorf("the picture has more than %d KiB", maxPhoto>>10)
	}
	p.Display = display(p.Display, p.Given, p.Family, p.Name)
	return nil
}

func display(given ...string) string {
	display, first, family, name := given[0], given[1], given[2], given[3]
	switch {
	case display != "":
		return display
	case first != "" && family != "":
		return first + " " + family
	case first+family != "":
		return first + family
	}
	return name
}

// attributes are those that AddPerson and ChangePerson write.
func (p *Person) attributes() ([]attribute, error) {
	if err := p.clean(); err != nil {
		return nil, err
	}
	collective, err := belongsTo(p.Collective)
	if err != nil {
		return nil, err
	}
	family := p.Family
	if family == "" { // LDAP wants one
		family = p.Display
	}
	return []attribute{one("cn", p.Display), one("sn", family), one("givenName", p.Given), one("mail", p.Mail),
		one("allotmentOutsideMail", p.OutsideMail), one("allotmentForward", p.Forward), one("telephoneNumber", p.Phone),
		one("preferredLanguage", p.Language), one("jpegPhoto", string(p.Photo)), collective}, nil
}

// AddPerson makes an account. Nobody can log in to it until SetPassword.
func (d *Directory) AddPerson(ctx context.Context, p Person) error {
	dn, err := personDN(p.Name)
	if err != nil {
		return fmt.Errorf("cannot add a person: %w", err)
	}
	attributes, err := p.attributes()
	if err == nil {
		err = d.add(ctx, dn, personClasses, append(attributes, one("uid", p.Name)))
	}
	if err != nil {
		return fmt.Errorf("cannot add person %q: %w", p.Name, err)
	}
	return nil
}

// ChangePerson lets change alter what AddPerson writes, but the name. ErrConflict: somebody else did so since she
// had the revision; an empty one is that of now.
func (d *Directory) ChangePerson(ctx context.Context, name, revision string, change func(*Person)) error {
	if err := d.changePerson(ctx, name, revision, change); err != nil {
		return fmt.Errorf("cannot change person %q: %w", name, err)
	}
	return nil
}

func (d *Directory) changePerson(ctx context.Context, name, revision string, change func(*Person)) error {
	dn, err := personDN(name)
	if err != nil {
		return err
	}
	return d.update(ctx, dn, revision, personAttributes, personWritten, func(e *ldap.Entry) ([]attribute, error) {
		p, err := newPerson(e)
		if err != nil {
			return nil, err
		}
		change(&p)
		return p.attributes()
	})
}

// Person finds one person by name.
func (d *Directory) Person(ctx context.Context, name string) (Person, error) {
	p, err := d.person(ctx, name)
	if err != nil {
		return Person{}, fmt.Errorf("cannot find person %q: %w", name, err)
	}
	return p, nil
}

func (d *Directory) person(ctx context.Context, name string) (Person, error) {
	dn, err := personDN(name)
	if err != nil {
		return Person{}, err
	}
	e, err := d.read(ctx, dn, personAttributes)
	if err != nil {
		return Person{}, err
	}
	return newPerson(e)
}

// PersonByMail finds one person by an address in the organisation or elsewhere.
func (d *Directory) PersonByMail(ctx context.Context, address string) (Person, error) {
	a := ldap.EscapeFilter(address)
	found, err := d.peopleWho(ctx, "(|(mail="+a+")(allotmentOutsideMail="+a+"))")
	if err == nil && len(found) != 1 { // several members of a family can have one address elsewhere
		err = ErrNotFound
	}
	if err != nil {
		return Person{}, fmt.Errorf("cannot find a person with address %q: %w", address, err)
	}
	return found[0], nil
}

// People lists everybody, without the probes, in no order.
func (d *Directory) People(ctx context.Context) ([]Person, error) {
	found, err := d.peopleWho(ctx, "(objectClass=allotmentPerson)")
	if err != nil {
		return nil, fmt.Errorf("cannot list people: %w", err)
	}
	return found, nil
}

// PeopleOf lists the people of a collective: those who go when it leaves.
func (d *Directory) PeopleOf(ctx context.Context, collective string) ([]Person, error) {
	dn, err := collectiveDN(collective)
	if err == nil {
		var found []Person
		if found, err = d.peopleWho(ctx, "(allotmentCollective="+ldap.EscapeFilter(dn)+")"); err == nil {
			return found, nil
		}
	}
	return nil, fmt.Errorf("cannot list the people of collective %q: %w", collective, err)
}

func (d *Directory) peopleWho(ctx context.Context, filter string) ([]Person, error) {
	entries, err := d.search(ctx, people, filter, personAttributes)
	if err != nil {
		return nil, err
	}
	var found []Person
	for _, e := range entries {
		p, err := newPerson(e)
		if err != nil {
			return nil, err
		}
		found = append(found, p)
	}
	return found, nil
}

func newPerson(e *ldap.Entry) (Person, error) {
	memberships := e.GetAttributeValues("memberOf")
	deleteAt, err := readTime(e, "allotmentDeleteAt")
	return Person{
		Name:        e.GetAttributeValue("uid"),
		Given:       e.GetAttributeValue("givenName"),
		Family:      e.GetAttributeValue("sn"),
		Display:     e.GetAttributeValue("cn"),
		Mail:        e.GetAttributeValue("mail"),
		OutsideMail: e.GetAttributeValue("allotmentOutsideMail"),
		Forward:     e.GetAttributeValue("allotmentForward"),
		Phone:       e.GetAttributeValue("telephoneNumber"),
		Language:    e.GetAttributeValue("preferredLanguage"),
		Photo:       e.GetRawAttributeValue("jpegPhoto"),
		Collective:  nameOf(e.GetAttributeValue("allotmentCollective")),
		Groups:      namesBelow(groups, memberships),
		Permissions: namesBelow(permissions, memberships),
		Active:      e.GetAttributeValue("allotmentInactive") != "TRUE",
		DeleteAt:    deleteAt,
		Revision:    revisionOf(e, personWritten),
	}, err
}
