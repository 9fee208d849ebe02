package directory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// Deactivate keeps a person from logging in anywhere, at once and by every password. Nothing is lost by it.
func (d *Directory) Deactivate(ctx context.Context, name string) error {
	return d.setPerson(ctx, "deactivate", name, flag("allotmentInactive", true))
}

// Activate lets a person who was deactivated log in again. Who is to be deleted is not any more.
func (d *Directory) Activate(ctx context.Context, name string) error {
	return d.setPerson(ctx, "activate", name, flag("allotmentInactive", false), oneTime("allotmentDeleteAt", time.Time{}))
}

// Delete deactivates a person, and lets Purge remove her once it is at.
func (d *Directory) Delete(ctx context.Context, name string, at time.Time) error {
	return d.setPerson(ctx, "delete", name, flag("allotmentInactive", true), oneTime("allotmentDeleteAt", at))
}

// Undelete takes back Delete. She stays deactivated until Activate.
func (d *Directory) Undelete(ctx context.Context, name string) error {
	return d.setPerson(ctx, "undelete", name, oneTime("allotmentDeleteAt", time.Time{}))
}

func (d *Directory) setPerson(ctx context.Context, verb, name string, attributes ...attribute) error {
	dn, err := personDN(name)
	if err == nil {
		err = d.replace(ctx, dn, attributes...)
	}
	if err != nil {
		return fmt.Errorf("cannot %s %q: %w", verb, name, err)
	}
	return nil
}

// Purge removes the people whose time to be deleted has come, and app passwords that have expired, and works out anew who
// has permissions. Groups and offices forget those people. It returns their names.
func (d *Directory) Purge(ctx context.Context, now time.Time) ([]string, error) {
	due, err := d.peopleWho(ctx, "(allotmentDeleteAt<="+now.UTC().Format(timeForm)+")")
	if err != nil {
		return nil, fmt.Errorf("cannot find who is to be deleted: %w", err)
	}
	var gone []string
	for _, p := range due {
		if err := d.RemovePerson(ctx, p.Name); err != nil && !errors.Is(err, ErrNotFound) {
			return gone, err
		}
		gone = append(gone, p.Name)
	}
	if err := d.purgeAppPasswords(ctx, now); err != nil {
		return gone, err
	}
	return gone, d.SyncPermissions(ctx)
}

// RemovePerson removes an account at once. Groups and offices forget the person.
func (d *Directory) RemovePerson(ctx context.Context, name string) error {
	dn, err := personDN(name)
	if err == nil {
		err = d.remove(ctx, dn)
	}
	if err != nil {
		return fmt.Errorf("cannot remove person %q: %w", name, err)
	}
	return nil
}

// HandOver gives to another person what one person decides about: groups, collectives and offices, which keep their
// terms. Memberships are not handed over.
func (d *Directory) HandOver(ctx context.Context, from, to string) error {
	if err := d.handOver(ctx, from, to); err != nil {
		return fmt.Errorf("cannot hand over from %q to %q: %w", from, to, err)
	}
	return nil
}

func (d *Directory) handOver(ctx context.Context, from, to string) error {
	old, err := personDN(from)
	if err != nil {
		return err
	}
	p, err := d.person(ctx, to)
	if err != nil {
		return err
	}
	heir, err := personDN(p.Name)
	if err != nil || heir == old {
		return err
	}
	for _, kind := range []struct{ base, attribute string }{
		{groups, "owner"}, {collectives, "owner"}, {offices, "roleOccupant"},
	} {
		entries, err := d.search(ctx, kind.base, "("+kind.attribute+"="+ldap.EscapeFilter(old)+")", []string{kind.attribute})
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := d.exchange(ctx, e, kind.attribute, old, heir); err != nil {
				return err
			}
		}
	}
	return nil
}

// exchange replaces one value of an entry's attribute by another, which may be there already.
func (d *Directory) exchange(ctx context.Context, e *ldap.Entry, attribute, old, new string) error {
	r := ldap.NewModifyRequest(e.DN, nil)
	r.Delete(attribute, []string{old})
	if !slices.Contains(e.GetAttributeValues(attribute), new) {
		r.Add(attribute, []string{new})
	}
	return d.modify(ctx, r)
}
