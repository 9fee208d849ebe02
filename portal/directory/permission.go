package directory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// Matrix says which groups may do what: names of groups, sorted, by MODULE.PERMISSION.
type Matrix map[string][]string

// Allows says whether a group may do something in a module.
func (m Matrix) Allows(module, permission, group string) bool {
	return slices.Contains(m[module+"."+permission], group)
}

var permissionAttributes = []string{"cn", "allotmentGrantedTo", "member"}

// permissionDN names a permission of a module; both names have the form of a manifest's names, without a dot.
func permissionDN(module, permission string) (string, error) {
	if strings.Contains(module, ".") {
		return "", fmt.Errorf("%q is %w", module, ErrName)
	}
	if !nameForm.MatchString(permission) {
		return "", fmt.Errorf("%q is %w", permission, ErrName)
	}
	return nameDN("cn", module+"."+permission, permissions)
}

// Permissions is who may do what.
func (d *Directory) Permissions(ctx context.Context) (Matrix, error) {
	entries, err := d.search(ctx, permissions, "(objectClass=allotmentPermission)", permissionAttributes)
	if err != nil {
		return nil, fmt.Errorf("cannot list permissions: %w", err)
	}
	m := Matrix{}
	for _, e := range entries {
		m[e.GetAttributeValue("cn")] = namesBelow(groups, e.GetAttributeValues("allotmentGrantedTo"))
	}
	return m, nil
}

// DeclarePermission makes a permission that is not there yet, and gives it to groups; ErrExists: it is there, and stays as
// it is. A new module's permissions have to be declared once before anybody can have them.
func (d *Directory) DeclarePermission(ctx context.Context, module, permission string, to ...string) error {
	dn, err := permissionDN(module, permission)
	if err == nil {
		var granted []string
		if granted, err = dns(to, groupDN); err == nil {
			err = d.add(ctx, dn, []string{"allotmentPermission"},
				[]attribute{one("cn", module+"."+permission), {"allotmentGrantedTo", granted}})
		}
	}
	if err == nil {
		err = d.syncPermission(ctx, dn)
	}
	if err != nil {
		return fmt.Errorf("cannot declare permission %q of module %q: %w", permission, module, err)
	}
	return nil
}

// Grant lets a group do something in a module. That it may already is no error.
func (d *Directory) Grant(ctx context.Context, module, permission, group string) error {
	_, err := d.Group(ctx, group) // slapd does not look whether it is there
	if err == nil {
		err = d.changeGrant(ctx, module, permission, group, (*ldap.ModifyRequest).Add)
		if errors.Is(err, ErrNotFound) { // the first of all
			err = d.DeclarePermission(ctx, module, permission, group)
		}
	}
	if err != nil && !errors.Is(err, ErrExists) {
		return fmt.Errorf("cannot grant %q of module %q to group %q: %w", permission, module, group, err)
	}
	return nil
}

// Revoke takes from a group what it may do in a module. That it may not is no error.
func (d *Directory) Revoke(ctx context.Context, module, permission, group string) error {
	err := d.changeGrant(ctx, module, permission, group, (*ldap.ModifyRequest).Delete)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("cannot revoke %q of module %q from group %q: %w", permission, module, group, err)
	}
	return nil
}

func (d *Directory) changeGrant(ctx context.Context, module, permission, group string,
	change func(*ldap.ModifyRequest, string, []string)) error {
	dn, err := permissionDN(module, permission)
	if err != nil {
		return err
	}
	g, err := groupDN(group)
	if err != nil {
		return err
	}
	r := ldap.NewModifyRequest(dn, nil)
	change(r, "allotmentGrantedTo", []string{g})
	if err := d.modify(ctx, r); err != nil {
		return err
	}
	return d.syncPermission(ctx, dn)
}

// Allowed says whether a person may do something in a module: she is active, and in a group that may.
func (d *Directory) Allowed(ctx context.Context, person, module, permission string) (bool, error) {
	if _, err := permissionDN(module, permission); err != nil {
		return false, fmt.Errorf("cannot find permission %q of module %q: %w", permission, module, err)
	}
	p, err := d.Person(ctx, person)
	return err == nil && p.Active && slices.Contains(p.Permissions, module+"."+permission), err
}

// SyncPermissions writes anew who has each permission by her groups. Every change of a group or of a permission does so for
// what it touches; this is for what was cut between the two, and Purge calls it.
func (d *Directory) SyncPermissions(ctx context.Context) error {
	return d.syncPermissionsWhich(ctx, "(objectClass=allotmentPermission)")
}

// syncPermissionsOf does so for what a group may do.
func (d *Directory) syncPermissionsOf(ctx context.Context, groupDN string) error {
	return d.syncPermissionsWhich(ctx, "(allotmentGrantedTo="+ldap.EscapeFilter(groupDN)+")")
}

func (d *Directory) syncPermissionsWhich(ctx context.Context, filter string) error {
	entries, err := d.search(ctx, permissions, filter, []string{"cn"})
	if err != nil {
		return fmt.Errorf("cannot list permissions: %w", err)
	}
	for _, e := range entries {
		if err := d.syncPermission(ctx, e.DN); err != nil {
			return err
		}
	}
	return nil
}

// syncPermission makes the members of the groups that have a permission, and nobody else, the members of its entry, so that a
// module's filter can ask for them by memberOf.
func (d *Directory) syncPermission(ctx context.Context, dn string) error {
	if err := d.writeHolders(ctx, dn); err != nil {
		return fmt.Errorf("cannot write who has permission %q: %w", nameOf(dn), err)
	}
	return nil
}

func (d *Directory) writeHolders(ctx context.Context, dn string) error {
	d.holders.Lock()
	defer d.holders.Unlock()
	e, err := d.read(ctx, dn, permissionAttributes)
	if err != nil {
		return err
	}
	var holders []string
	for _, g := range e.GetAttributeValues("allotmentGrantedTo") {
		group, err := d.read(ctx, g, []string{"member"})
		if errors.Is(err, ErrNotFound) { // removed at this moment
			continue
		}
		if err != nil {
			return err
		}
		holders = append(holders, group.GetAttributeValues("member")...)
	}
	r := ldap.NewModifyRequest(dn, nil) // of the difference alone: slapd writes each person's memberOf
	was := e.GetAttributeValues("member")
	if gone := without(was, holders); len(gone) > 0 {
		r.Delete("member", gone)
	}
	if new := without(holders, was); len(new) > 0 {
		r.Add("member", new)
	}
	if len(r.Changes) == 0 {
		return nil
	}
	return d.modify(ctx, r)
}

// without are the values that are in all and not in some, each once.
func without(all, some []string) []string {
	skip := map[string]bool{}
	for _, v := range some {
		skip[v] = true
	}
	var rest []string
	for _, v := range all {
		if !skip[v] {
			skip[v] = true
			rest = append(rest, v)
		}
	}
	return rest
}
