package directory

import (
	"fmt"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// Office is an office such as treasurer: it outlives those who hold it.
type Office struct {
	Name       string
	Title      string // as people see it
	Mail       string // its address in the organisation; empty: none
	Collective string // whose office it is; empty: the organisation's
	Occupant   string // a person; empty: vacant
	Start, End time.Time
}

var officeAttributes = []string{"cn", "displayName", "mail", "allotmentCollective", "roleOccupant", "allotmentTermStart",
	"allotmentTermEnd"}

// AddOffice makes an office.
func (c *Client) AddOffice(o Office) error {
	if err := c.addOffice(o); err != nil {
		return fmt.Errorf("cannot add office %q: %w", o.Name, err)
	}
	return nil
}

func (c *Client) addOffice(o Office) error {
	dn, err := officeDN(o.Name)
	if err != nil {
		return err
	}
	term, err := newTerm(o.Occupant, o.Start, o.End)
	if err != nil {
		return err
	}
	collective, err := belongsTo(o.Collective)
	if err != nil {
		return err
	}
	return c.add(dn, []string{"allotmentOffice"}, append(term, one("cn", o.Name), one("displayName", o.Title),
		one("mail", o.Mail), collective))
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
	return []attribute{one("roleOccupant", dn), oneTime("allotmentTermStart", start), oneTime("allotmentTermEnd", end)}, nil
}

// Hand hands an office to a person from one moment to another, in one step; to nobody if person is empty. The zero time
// is open.
func (c *Client) Hand(office, person string, start, end time.Time) error {
	dn, err := officeDN(office)
	if err == nil {
		var term []attribute
		if term, err = newTerm(person, start, end); err == nil {
			err = c.replace(dn, term...)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot hand office %q to %q: %w", office, person, err)
	}
	return nil
}

// Offices lists all offices.
func (c *Client) Offices() ([]Office, error) {
	entries, err := c.search(offices, "(objectClass=allotmentOffice)", officeAttributes)
	if err != nil {
		return nil, fmt.Errorf("cannot list offices: %w", err)
	}
	var found []Office
	for _, e := range entries {
		o, err := newOffice(e)
		if err != nil {
			return nil, err
		}
		found = append(found, o)
	}
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
		Occupant:   nameOf(e.GetAttributeValue("roleOccupant")),
		Start:      start,
		End:        end,
	}, nil
}
