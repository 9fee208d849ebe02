package directory

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// Group is a group of people. It may be empty.
type Group struct {
	Name       string
	Title      string   // as people see it; empty: Name
	About      string   // for whom it is, in a sentence
	Mail       string   // its address in the organisation; empty: none
	Collective string   // that it belongs to; empty: all of the organisation
	Owners     []string // people who decide about members: the group's admins; names, sorted
	Members    []string // names, sorted
	Revision   string   // another one when something above, but Name and Members, has changed
}

// groupWritten are the attributes that ChangeGroup writes.
var groupWritten = []string{"displayName", "description", "mail", "allotmentCollective", "owner"}

var groupAttributes = slices.Concat(groupWritten, []string{"cn", "member"})

// attributes are those that AddGroup and ChangeGroup write.
func (g *Group) attributes() ([]attribute, error) {
	title, err := CleanText(g.Title)
	if err != nil {
		return nil, err
	}
	about, err := CleanText(g.About)
	if err != nil {
		return nil, err
	}
	mail, err := CleanMail(g.Mail)
	if err != nil {
		return nil, err
	}
	collective, err := belongsTo(g.Collective)
	if err != nil {
		return nil, err
	}
	owners, err := dns(g.Owners, personDN)
	if err != nil {
		return nil, err
	}
	return []attribute{one("displayName", title), one("description", about), one("mail", mail), collective,
		{"owner", owners}}, nil
}

// AddGroup makes a group with its owners and members, who must exist.
func (d *Directory) AddGroup(ctx context.Context, g Group) error {
	if err := d.addGroup(ctx, g); err != nil {
		return fmt.Errorf("cannot add group %q: %w", g.Name, err)
	}
	return nil
}

func (d *Directory) addGroup(ctx context.Context, g Group) error {
	dn, err := groupDN(g.Name)
	if err != nil {
		return err
	}
	attributes, err := g.attributes()
	if err != nil {
		return err
	}
	members, err := dns(g.Members, personDN)
	if err != nil {
		return err
	}
	return d.add(ctx, dn, []string{"allotmentGroup"}, append(attributes, one("cn", g.Name), attribute{"member", members}))
}

// ChangeGroup lets change alter what AddGroup writes, but name and members. ErrConflict: somebody else did so since
// it had the revision; an empty one is that of now.
func (d *Directory) ChangeGroup(ctx context.Context, name, revision string, change func(*Group)) error {
	if err := d.changeGroup(ctx, name, revision, change); err != nil {
		return fmt.Errorf("cannot change group %q: %w", name, err)
	}
	return nil
}

func (d *Directory) changeGroup(ctx context.Context, name, revision string, change func(*Group)) error {
	dn, err := groupDN(name)
	if err != nil {
		return err
	}
	return d.update(ctx, dn, revision, groupAttributes, groupWritten, func(e *ldap.Entry) ([]attribute, error) {
		g := newGroup(e)
		change(&g)
		return g.attributes()
	})
}

// RemoveGroup removes a group, not its members, and what it was allowed.
func (d *Directory) RemoveGroup(ctx context.Context, name string) error {
	dn, err := groupDN(name)
	if err == nil {
		if err = d.remove(ctx, dn); err == nil {
			err = d.SyncPermissions(ctx) // refint has taken it out of them
		}
	}
	if err != nil {
		return fmt.Errorf("cannot remove group %q: %w", name, err)
	}
	return nil
}

// AddMember makes a person a member. ErrExists: she is one.
func (d *Directory) AddMember(ctx context.Context, group, person string) error {
	if err := d.changeMember(ctx, group, person, (*ldap.ModifyRequest).Add); err != nil {
		return fmt.Errorf("cannot add %q to group %q: %w", person, group, err)
	}
	return nil
}

// addMembers makes people members who are none yet, in one step.
func (d *Directory) addMembers(ctx context.Context, group string, names []string) error {
	dn, err := groupDN(group)
	if err != nil {
		return err
	}
	members, err := dns(names, personDN)
	if err != nil {
		return err
	}
	r := ldap.NewModifyRequest(dn, nil)
	r.Add("member", members)
	if err := d.modify(ctx, r); err != nil {
		return fmt.Errorf("cannot add %d people to group %q: %w", len(names), group, err)
	}
	return d.syncPermissionsOf(ctx, dn)
}

// RemoveMember ends a membership. ErrNotFound: there is none.
func (d *Directory) RemoveMember(ctx context.Context, group, person string) error {
	if err := d.changeMember(ctx, group, person, (*ldap.ModifyRequest).Delete); err != nil {
		return fmt.Errorf("cannot remove %q from group %q: %w", person, group, err)
	}
	return nil
}

func (d *Directory) changeMember(ctx context.Context, group, person string,
	change func(*ldap.ModifyRequest, string, []string)) error {
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
	if err := d.modify(ctx, r); err != nil {
		return err
	}
	return d.syncPermissionsOf(ctx, dn)
}

// SetOwners makes people, and nobody else, those who decide about a group's members.
func (d *Directory) SetOwners(ctx context.Context, group string, owners []string) error {
	dn, err := groupDN(group)
	if err == nil {
		var who []string
		if who, err = dns(owners, personDN); err == nil {
			err = d.replace(ctx, dn, attribute{"owner", who})
		}
	}
	if err != nil {
		return fmt.Errorf("cannot set the owners of group %q: %w", group, err)
	}
	return nil
}

// Group finds one group.
func (d *Directory) Group(ctx context.Context, name string) (Group, error) {
	dn, err := groupDN(name)
	if err == nil {
		var e *ldap.Entry
		if e, err = d.read(ctx, dn, groupAttributes); err == nil {
			return newGroup(e), nil
		}
	}
	return Group{}, fmt.Errorf("cannot find group %q: %w", name, err)
}

// Groups lists all groups, sorted by name.
func (d *Directory) Groups(ctx context.Context) ([]Group, error) {
	found, err := d.groupsWhich(ctx, "(objectClass=allotmentGroup)")
	if err != nil {
		return nil, fmt.Errorf("cannot list groups: %w", err)
	}
	return found, nil
}

// GroupsOf lists the groups that a person is a member of, sorted by name.
func (d *Directory) GroupsOf(ctx context.Context, person string) ([]Group, error) {
	return d.groupsWith(ctx, "member", person)
}

// GroupsOwnedBy lists the groups whose members a person decides about, sorted by name.
func (d *Directory) GroupsOwnedBy(ctx context.Context, person string) ([]Group, error) {
	return d.groupsWith(ctx, "owner", person)
}

func (d *Directory) groupsWith(ctx context.Context, attribute, person string) ([]Group, error) {
	dn, err := personDN(person)
	if err == nil {
		var found []Group
		if found, err = d.groupsWhich(ctx, "("+attribute+"="+ldap.EscapeFilter(dn)+")"); err == nil {
			return found, nil
		}
	}
	return nil, fmt.Errorf("cannot list the groups with %s %q: %w", attribute, person, err)
}

func (d *Directory) groupsWhich(ctx context.Context, filter string) ([]Group, error) {
	entries, err := d.search(ctx, groups, filter, groupAttributes)
	if err != nil {
		return nil, err
	}
	var found []Group
	for _, e := range entries {
		found = append(found, newGroup(e))
	}
	slices.SortFunc(found, func(a, b Group) int { return strings.Compare(a.Name, b.Name) })
	return found, nil
}

func newGroup(e *ldap.Entry) Group {
	return Group{
		Name:       e.GetAttributeValue("cn"),
		Title:      e.GetAttributeValue("displayName"),
		About:      e.GetAttributeValue("description"),
		Mail:       e.GetAttributeValue("mail"),
		Collective: nameOf(e.GetAttributeValue("allotmentCollective")),
		Owners:     namesBelow(people, e.GetAttributeValues("owner")),
		Members:    namesBelow(people, e.GetAttributeValues("member")),
		Revision:   revisionOf(e, groupWritten),
	}
}
