package directory

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"allotment/portal/directory/ldif"
	"allotment/portal/directory/sheet"
)

// Export writes a list of all people that Import reads: csv in UTF-8 for spreadsheet programs, or ldif, with groups,
// collectives and offices. Passwords are in neither.
func (d *Directory) Export(ctx context.Context, w io.Writer, format string) error {
	var err error
	switch format {
	case "csv":
		err = d.exportTable(ctx, w)
	case "ldif":
		err = d.exportEntries(ctx, w, "(objectClass=*)")
	default:
		err = fmt.Errorf("%q is no format of lists: csv or ldif", format)
	}
	if err != nil {
		return fmt.Errorf("cannot export people: %w", err)
	}
	return nil
}

func (d *Directory) exportTable(ctx context.Context, w io.Writer) error {
	everybody, err := d.People(ctx)
	if err != nil {
		return err
	}
	slices.SortFunc(everybody, func(a, b Person) int { return strings.Compare(a.Name, b.Name) })
	if _, err := io.WriteString(w, "\ufeff"); err != nil { // without it Excel takes UTF-8 for Windows-1252
		return err
	}
	c := csv.NewWriter(w)
	c.UseCRLF = true
	all := columns()
	var heads []string
	for _, column := range all {
		heads = append(heads, column.headings[0])
	}
	rows := [][]string{append(heads, groupHeadings[0])}
	for _, p := range everybody {
		var cells []string
		for _, column := range all {
			cells = append(cells, sheet.Safe(*column.field(&p)))
		}
		rows = append(rows, append(cells, strings.Join(p.Groups, ", ")))
	}
	return c.WriteAll(rows)
}

// folders are the places of what is exported and its classes, in the order in which it can be added again.
var folders = []struct{ base, class string }{
	{collectives, "allotmentCollective"}, {people, "allotmentPerson"}, {groups, "allotmentGroup"}, {offices, "allotmentOffice"},
}

// exportEntries writes the entries of all folders that fit a filter.
func (d *Directory) exportEntries(ctx context.Context, w io.Writer, filter string) error {
	for _, f := range folders {
		entries, err := d.search(ctx, f.base, "(&(objectClass="+f.class+")"+filter+")", []string{"*"})
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := ldif.Write(w, newRecord(e)); err != nil {
				return err
			}
		}
	}
	return nil
}

// newRecord is an entry without what is about passwords.
func newRecord(e *ldap.Entry) ldif.Record {
	r := ldif.Record{DN: e.DN}
	for _, a := range e.Attributes {
		if a.Name == "allotmentAppPassword" {
			continue
		}
		for _, v := range a.Values {
			r.Attributes = append(r.Attributes, ldif.Attribute{Name: a.Name, Value: v})
		}
	}
	return r
}

// ExportCollective writes a collective with its people, groups and offices as LDIF, without passwords: what goes when it
// leaves.
func (d *Directory) ExportCollective(ctx context.Context, collective string, w io.Writer) error {
	dn, err := collectiveDN(collective)
	if err == nil {
		err = d.exportCollective(ctx, dn, w)
	}
	if err != nil {
		return fmt.Errorf("cannot export collective %q: %w", collective, err)
	}
	return nil
}

func (d *Directory) exportCollective(ctx context.Context, dn string, w io.Writer) error {
	if _, err := d.read(ctx, dn, []string{"ou"}); err != nil {
		return err
	}
	dn = ldap.EscapeFilter(dn)
	return d.exportEntries(ctx, w, "(|(entryDN="+dn+")(allotmentCollective="+dn+"))")
}

// Leave does the same, and removes all that once all is written.
func (d *Directory) Leave(ctx context.Context, collective string, w io.Writer) error {
	if err := d.leave(ctx, collective, w); err != nil {
		return fmt.Errorf("cannot let collective %q leave: %w", collective, err)
	}
	return nil
}

func (d *Directory) leave(ctx context.Context, collective string, w io.Writer) error {
	dn, err := collectiveDN(collective)
	if err != nil {
		return err
	}
	if err := d.exportCollective(ctx, dn, w); err != nil {
		return err
	}
	filter := "(allotmentCollective=" + ldap.EscapeFilter(dn) + ")"
	for _, base := range []string{offices, groups, people} {
		entries, err := d.search(ctx, base, filter, []string{"cn"})
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := d.remove(ctx, e.DN); err != nil {
				return err
			}
		}
	}
	if err := d.remove(ctx, dn); err != nil {
		return err
	}
	return d.SyncPermissions(ctx)
}
