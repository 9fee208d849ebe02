package directory

import (
	"fmt"

	"github.com/go-ldap/ldap/v3"
)

// Person is a member of the organisation (inetOrgPerson of RFC 2798, with what allotment.schema adds).
type Person struct {
	Name        string // what she logs in with, and her address before the @; it never changes
	FullName    string // as others see it
	GivenName   string
	Surname     string // FullName if empty, since LDAP wants one
	Mail        string // address in the organisation; nobody else may have it
	OutsideMail string // address elsewhere, for getting back in; only she and the portal see it
	Language    string // BCP 47
	Collective  string // name of the collective that she came with; empty: none
	Groups      []string
	Suspended   bool // she cannot log in
}

var personClasses = []string{"inetOrgPerson", "allotmentPerson"}

var personAttributes = []string{"uid", "cn", "givenName", "sn", "mail", "allotmentOutsideMail", "preferredLanguage",
	"allotmentCollective", "memberOf", "pwdAccountLockedTime"}

// suspended is the value of pwdAccountLockedTime that locks an account until somebody unlocks it
// (draft-behera-ldap-password-policy-10, section 5.3.3).
const suspended = "000001010000Z"

// attributes are those that AddPerson and ChangePerson write.
func (p *Person) attributes() ([]attribute, error) {
	collective, err := belongsTo(p.Collective)
	if err != nil {
		return nil, err
	}
	fullName, surname := p.FullName, p.Surname
	if fullName == "" {
		fullName = p.Name
	}
	if surname == "" {
		surname = fullName
	}
	return []attribute{one("cn", fullName), one("sn", surname), one("givenName", p.GivenName), one("mail", p.Mail),
		one("allotmentOutsideMail", p.OutsideMail), one("preferredLanguage", p.Language), collective}, nil
}

// AddPerson makes an account. With an empty password nobody can log in to it until SetPassword. Groups and Suspended of p
// are not looked at.
func (c *Client) AddPerson(p Person, password string) error {
	dn, err := personDN(p.Name)
	if err != nil {
		return fmt.Errorf("cannot add a person: %w", err)
	}
	attributes, err := p.attributes()
	if err == nil {
		attributes = append(attributes, one("uid", p.Name), one("userPassword", password))
		err = c.add(dn, personClasses, attributes)
	}
	if err != nil {
		return fmt.Errorf("cannot add person %q: %w", p.Name, err)
	}
	return nil
}

// ChangePerson writes all of p but its Name, Groups and Suspended.
func (c *Client) ChangePerson(p Person) error {
	dn, err := personDN(p.Name)
	if err != nil {
		return fmt.Errorf("cannot change a person: %w", err)
	}
	attributes, err := p.attributes()
	if err == nil {
		err = c.replace(dn, attributes...)
	}
	if err != nil {
		return fmt.Errorf("cannot change person %q: %w", p.Name, err)
	}
	return nil
}

// SetPassword gives a person a new password, which the directory keeps as an argon2id hash.
func (c *Client) SetPassword(person, password string) error {
	dn, err := personDN(person)
	switch {
	case err == nil && password == "": // RFC 3062: the server would make one up
		err = ErrWeak
	case err == nil:
		_, err = c.conn.PasswordModify(ldap.NewPasswordModifyRequest(dn, "", password))
		err = translate(err)
	}
	if err != nil {
		return fmt.Errorf("cannot set the password of %q: %w", person, err)
	}
	return nil
}

// Suspend keeps a person from logging in, or lets her again.
func (c *Client) Suspend(person string, yes bool) error {
	dn, err := personDN(person)
	if err == nil {
		a := attribute{name: "pwdAccountLockedTime"}
		if yes {
			a.values = []string{suspended}
		}
		err = c.replace(dn, a)
	}
	if err != nil {
		return fmt.Errorf("cannot suspend or reinstate %q: %w", person, err)
	}
	return nil
}

// RemovePerson removes an account. Groups and offices forget the person.
func (c *Client) RemovePerson(person string) error {
	dn, err := personDN(person)
	if err == nil {
		err = c.remove(dn)
	}
	if err != nil {
		return fmt.Errorf("cannot remove person %q: %w", person, err)
	}
	return nil
}

// Person finds one person by name.
func (c *Client) Person(name string) (Person, error) {
	dn, err := personDN(name)
	if err == nil {
		var e *ldap.Entry
		if e, err = c.read(dn, personAttributes); err == nil {
			return newPerson(e), nil
		}
	}
	return Person{}, fmt.Errorf("cannot find person %q: %w", name, err)
}

// PersonByMail finds one person by an address in the organisation or elsewhere.
func (c *Client) PersonByMail(address string) (Person, error) {
	a := ldap.EscapeFilter(address)
	found, err := c.people("(|(mail=" + a + ")(allotmentOutsideMail=" + a + "))")
	if err == nil && len(found) != 1 { // several members of a family can have one address elsewhere
		err = ErrNotFound
	}
	if err != nil {
		return Person{}, fmt.Errorf("cannot find a person with address %q: %w", address, err)
	}
	return found[0], nil
}

// People lists everybody, without the probes.
func (c *Client) People() ([]Person, error) {
	found, err := c.people("(objectClass=allotmentPerson)")
	if err != nil {
		return nil, fmt.Errorf("cannot list people: %w", err)
	}
	return found, nil
}

func (c *Client) people(filter string) ([]Person, error) {
	entries, err := c.search(people, filter, personAttributes)
	if err != nil {
		return nil, err
	}
	var found []Person
	for _, e := range entries {
		found = append(found, newPerson(e))
	}
	return found, nil
}

func newPerson(e *ldap.Entry) Person {
	return Person{
		Name:        e.GetAttributeValue("uid"),
		FullName:    e.GetAttributeValue("cn"),
		GivenName:   e.GetAttributeValue("givenName"),
		Surname:     e.GetAttributeValue("sn"),
		Mail:        e.GetAttributeValue("mail"),
		OutsideMail: e.GetAttributeValue("allotmentOutsideMail"),
		Language:    e.GetAttributeValue("preferredLanguage"),
		Collective:  nameOf(e.GetAttributeValue("allotmentCollective")),
		Groups:      namesOf(e.GetAttributeValues("memberOf")),
		Suspended:   e.GetAttributeValue("pwdAccountLockedTime") == suspended,
	}
}
