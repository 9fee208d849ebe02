package directory

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// Collective is a body that shares the directory and can leave it with its people, groups and offices.
type Collective struct {
	Name   string
	Title  string
	Mail   string
	Owners []string // people who decide about who belongs to it; names, sorted

	Revision string // another one when something above, but Name, has changed
}

// collectiveWritten are the attributes that ChangeCollective writes.
var collectiveWritten = []string{"displayName", "mail", "owner"}

var collectiveAttributes = slices.Concat(collectiveWritten, []string{"ou"})

// attributes are those that AddCollective and ChangeCollective write.
func (v *Collective) attributes() ([]attribute, error) {
	title, err := CleanText(v.Title)
	if err != nil {
		return nil, err
	}
	mail, err := CleanMail(v.Mail)
	if err != nil {
		return nil, err
	}
	owners, err := dns(v.Owners, personDN)
	if err != nil {
		return nil, err
	}
	return []attribute{one("displayName", title), one("mail", mail), {"owner", owners}}, nil
}

// belongsTo is the attribute that names a collective; without a value for no collective.
func belongsTo(collective string) (attribute, error) {
	if collective == "" {
		return attribute{name: "allotmentCollective"}, nil
	}
	dn, err := collectiveDN(collective)
	return one("allotmentCollective", dn), err
}

// AddCollective makes a collective.
func (d *Directory) AddCollective(ctx context.Context, v Collective) error {
	if err := d.addCollective(ctx, v); err != nil {
		return fmt.Errorf("cannot add collective %q: %w", v.Name, err)
	}
	return nil
}

func (d *Directory) addCollective(ctx context.Context, v Collective) error {
	dn, err := collectiveDN(v.Name)
	if err != nil {
		return err
	}
	attributes, err := v.attributes()
	if err != nil {
		return err
	}
	return d.add(ctx, dn, []string{"allotmentCollective"}, append(attributes, one("ou", v.Name)))
}

// ChangeCollective lets change alter what AddCollective writes, but the name. ErrConflict: somebody else did so since it had
// the revision; an empty one is that of now.
func (d *Directory) ChangeCollective(ctx context.Context, name, revision string, change func(*Collective)) error {
	dn, err := collectiveDN(name)
	if err == nil {
		err = d.update(ctx, dn, revision, collectiveAttributes, collectiveWritten, func(e *ldap.Entry) ([]attribute, error) {
			v := newCollective(e)
			change(&v)
			return v.attributes()
		})
	}
	if err != nil {
		return fmt.Errorf("cannot change collective %q: %w", name, err)
	}
	return nil
}

// Collectives lists all collectives, sorted by name.
func (d *Directory) Collectives(ctx context.Context) ([]Collective, error) {
	entries, err := d.search(ctx, collectives, "(objectClass=allotmentCollective)", collectiveAttributes)
	if err != nil {
		return nil, fmt.Errorf("cannot list collectives: %w", err)
	}
	var found []Collective
	for _, e := range entries {
		found = append(found, newCollective(e))
	}
	slices.SortFunc(found, func(a, b Collective) int { return strings.Compare(a.Name, b.Name) })
	return found, nil
}

func newCollective(e *ldap.Entry) Collective {
	return Collective{
		Name:     e.GetAttributeValue("ou"),
		Title:    e.GetAttributeValue("displayName"),
		Mail:     e.GetAttributeValue("mail"),
		Owners:   namesBelow(people, e.GetAttributeValues("owner")),
		Revision: revisionOf(e, collectiveWritten),
	}
}

// RemoveCollective removes a collective. Its people, groups and offices stay, and belong to none.
func (d *Directory) RemoveCollective(ctx context.Context, name string) error {
	dn, err := collectiveDN(name)
	if err == nil {
		err = d.remove(ctx, dn)
	}
	if err != nil {
		return fmt.Errorf("cannot remove collective %q: %w", name, err)
	}
	return nil
}
