package directory

import (
	"fmt"

	"github.com/go-ldap/ldap/v3"
)

// Group is a group of people. It may be empty.
type Group struct {
	Name       string
	Title      string   // as people see it
	Mail       string   // its address in the organisation; empty: none
	Collective string   // that it belongs to; empty: all of the organisation
	Owners     []string // people who decide about members
	Members    []string
}

var groupAttributes = []string{"cn", "displayName", "mail", "allotmentCollective", "owner", "member"}

// AddGroup makes a group with its owners and members, who must exist.
func (c *Client) AddGroup(g Group) error {
	if err := c.addGroup(g); err != nil {
		return fmt.Errorf("cannot add group %q: %w", g.Name, err)
	}
	return nil
}

func (c *Client) addGroup(g Group) error {
	dn, err := groupDN(g.Name)
	if err != nil {
		return err
	}
	owners, err := personDNs(g.Owners)
	if err != nil {
		return err
	}
	members, err := personDNs(g.Members)
	if err != nil {
		return err
	}
	collective, err := belongsTo(g.Collective)
	if err != nil {
		return err
	}
	return c.add(dn, []string{"allotmentGroup"}, []attribute{one("cn", g.Name), one("displayName", g.Title),
		one("mail", g.Mail), collective, {"owner", owners}, {"member", members}})
}

func personDNs(names []string) ([]string, error) {
	var dns []string
	for _, name := range names {
		dn, err := personDN(name)
		if err != nil {
			return nil, err
		}
		dns = append(dns, dn)
	}
	return dns, nil
}

// RemoveGroup removes a group, not its members.
func (c *Client) RemoveGroup(name string) error {
	dn, err := groupDN(name)
	if err == nil {
		err = c.remove(dn)
	}
	if err != nil {
		return fmt.Errorf("cannot remove group %q: %w", name, err)
	}
	return nil
}

// AddMember makes a person a member. ErrExists: she is one.
func (c *Client) AddMember(group, person string) error {
	if err := c.changeMember(group, person, (*ldap.ModifyRequest).Add); err != nil {
		return fmt.Errorf("cannot add %q to group %q: %w", person, group, err)
	}
	return nil
}

// RemoveMember ends a membership. ErrNotFound: there is none.
func (c *Client) RemoveMember(group, person string) error {
	if err := c.changeMember(group, person, (*ldap.ModifyRequest).Delete); err != nil {
		return fmt.Errorf("cannot remove %q from group %q: %w", person, group, err)
	}
	return nil
}

func (c *Client) changeMember(group, person string, change func(*ldap.ModifyRequest, string, []string)) error {
	dn, err := groupDN(group)
	if err != nil {
		return err
	}
	member, err := personDN(person)
	if err != nil {
		return err
	}
	r := ldap.NewModifyRequest(dn, nil)
	change(r, "member", []string{member})
	return translate(c.conn.Modify(r))
}

// Group finds one group.
func (c *Client) Group(name string) (Group, error) {
	dn, err := groupDN(name)
	if err == nil {
		var e *ldap.Entry
		if e, err = c.read(dn, groupAttributes); err == nil {
			return newGroup(e), nil
		}
	}
	return Group{}, fmt.Errorf("cannot find group %q: %w", name, err)
}

// Groups lists all groups.
func (c *Client) Groups() ([]Group, error) {
	entries, err := c.search(groups, "(objectClass=allotmentGroup)", groupAttributes)
	if err != nil {
		return nil, fmt.Errorf("cannot list groups: %w", err)
	}
	var found []Group
	for _, e := range entries {
		found = append(found, newGroup(e))
	}
	return found, nil
}

func newGroup(e *ldap.Entry) Group {
	return Group{
		Name:       e.GetAttributeValue("cn"),
		Title:      e.GetAttributeValue("displayName"),
		Mail:       e.GetAttributeValue("mail"),
		Collective: nameOf(e.GetAttributeValue("allotmentCollective")),
		Owners:     namesOf(e.GetAttributeValues("owner")),
		Members:    namesOf(e.GetAttributeValues("member")),
	}
}
