package directory

import (
	"fmt"

	"github.com/go-ldap/ldap/v3"
)

// Collective is a body that shares the directory and can leave it with its people, groups and offices.
type Collective struct {
	Name   string
	Title  string
	Mail   string
	Owners []string // people who decide about who belongs to it
}

var collectiveAttributes = []string{"ou", "displayName", "mail", "owner"}

// belongsTo is the attribute that names a collective; without a value for no collective.
func belongsTo(collective string) (attribute, error) {
	if collective == "" {
		return attribute{name: "allotmentCollective"}, nil
	}
	dn, err := collectiveDN(collective)
	return one("allotmentCollective", dn), err
}

// AddCollective makes a collective.
func (c *Client) AddCollective(v Collective) error {
	dn, err := collectiveDN(v.Name)
	if err == nil {
		var owners []string
		if owners, err = personDNs(v.Owners); err == nil {
			err = c.add(dn, []string{"allotmentCollective"}, []attribute{one("ou", v.Name), one("displayName", v.Title),
				one("mail", v.Mail), {"owner", owners}})
		}
	}
	if err != nil {
		return fmt.Errorf("cannot add collective %q: %w", v.Name, err)
	}
	return nil
}

// Collectives lists all collectives.
func (c *Client) Collectives() ([]Collective, error) {
	entries, err := c.search(collectives, "(objectClass=allotmentCollective)", collectiveAttributes)
	if err != nil {
		return nil, fmt.Errorf("cannot list collectives: %w", err)
	}
	var found []Collective
	for _, e := range entries {
		found = append(found, Collective{
			Name:   e.GetAttributeValue("ou"),
			Title:  e.GetAttributeValue("displayName"),
			Mail:   e.GetAttributeValue("mail"),
			Owners: namesOf(e.GetAttributeValues("owner")),
		})
	}
	return found, nil
}

// PeopleOf lists the people of a collective: those who go when it leaves.
func (c *Client) PeopleOf(collective string) ([]Person, error) {
	dn, err := collectiveDN(collective)
	if err == nil {
		var found []Person
		if found, err = c.people("(allotmentCollective=" + ldap.EscapeFilter(dn) + ")"); err == nil {
			return found, nil
		}
	}
	return nil, fmt.Errorf("cannot list the people of collective %q: %w", collective, err)
}

// RemoveCollective removes a collective. Its people, groups and offices stay, and belong to none.
func (c *Client) RemoveCollective(name string) error {
	dn, err := collectiveDN(name)
	if err == nil {
		err = c.remove(dn)
	}
	if err != nil {
		return fmt.Errorf("cannot remove collective %q: %w", name, err)
	}
	return nil
}
