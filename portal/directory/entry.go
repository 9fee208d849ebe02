package directory

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// attribute is an attribute with its values, none for one that is not there.
type attribute struct {
	name   string
	values []string
}

// one is an attribute with a single value, or none if the value is empty.
func one(name, value string) attribute {
	if value == "" {
		return attribute{name: name}
	}
	return attribute{name, []string{value}}
}

// flag is an attribute that is there, and TRUE, or is not.
func flag(name string, on bool) attribute {
	if on {
		return one(name, "TRUE")
	}
	return attribute{name: name}
}

// timeForm is generalizedTime (RFC 4517 section 3.3.13) in UTC with whole seconds.
const timeForm = "20060102150405Z"

func oneTime(name string, t time.Time) attribute {
	if t.IsZero() {
		return attribute{name: name}
	}
	return one(name, t.UTC().Format(timeForm))
}

func readTime(e *ldap.Entry, name string) (time.Time, error) {
	v := e.GetAttributeValue(name)
	if v == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(timeForm, v)
	if err != nil {
		return time.Time{}, fmt.Errorf("cannot read %s of %q: %w", name, e.DN, err)
	}
	return t, nil
}

// search returns the entries right below base that fit the filter.
func (d *Directory) search(ctx context.Context, base, filter string, attributes []string) ([]*ldap.Entry, error) {
	return d.ask(ctx, base, ldap.ScopeSingleLevel, filter, attributes)
}

// read returns one entry.
func (d *Directory) read(ctx context.Context, dn string, attributes []string) (*ldap.Entry, error) {
	entries, err := d.ask(ctx, dn, ldap.ScopeBaseObject, "(objectClass=*)", attributes)
	if err == nil && len(entries) != 1 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return entries[0], nil
}

func (d *Directory) ask(ctx context.Context, base string, scope int, filter string, attributes []string) ([]*ldap.Entry, error) {
	r := ldap.NewSearchRequest(base, scope, ldap.NeverDerefAliases, 0, 0, false, filter, attributes, nil)
	var found []*ldap.Entry
	err := d.do(ctx, true, func(c *ldap.Conn) error {
		result, err := c.Search(r)
		if err == nil {
			found = result.Entries
		}
		return err
	})
	return found, err
}

// add makes an entry; attributes without a value are left out.
func (d *Directory) add(ctx context.Context, dn string, classes []string, attributes []attribute) error {
	r := ldap.NewAddRequest(dn, nil)
	r.Attribute("objectClass", classes)
	for _, a := range attributes {
		if len(a.values) > 0 {
			r.Attribute(a.name, a.values)
		}
	}
	return d.do(ctx, false, func(c *ldap.Conn) error { return c.Add(r) })
}

func (d *Directory) modify(ctx context.Context, r *ldap.ModifyRequest) error {
	return d.do(ctx, false, func(c *ldap.Conn) error { return c.Modify(r) })
}

// replace gives an entry's attributes the values; those without a value are removed.
func (d *Directory) replace(ctx context.Context, dn string, attributes ...attribute) error {
	return d.modify(ctx, replacement(dn, nil, attributes))
}

// revisionOf tells apart what the named attributes of an entry say. (entryCSN would change with every wrong password too.)
func revisionOf(e *ldap.Entry, names []string) string {
	h := sha256.New()
	for _, name := range names {
		values := e.GetAttributeValues(name)
		slices.Sort(values)
		fmt.Fprintf(h, "%s %q\n", name, values)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// update reads an entry and writes what change makes of it, as long as its named attributes have the revision; any if it is
// empty. What happens to the entry between reading and writing makes it start over, so that nothing is lost.
func (d *Directory) update(ctx context.Context, dn, revision string, attributes, named []string,
	change func(*ldap.Entry) ([]attribute, error)) error {
	for range 10 {
		e, err := d.read(ctx, dn, slices.Concat(attributes, []string{"entryCSN"}))
		if err != nil {
			return err
		}
		if revision != "" && revision != revisionOf(e, named) {
			return ErrConflict
		}
		written, err := change(e)
		if err != nil {
			return err
		}
		unchanged, err := unchangedSince(e.GetAttributeValue("entryCSN"))
		if err != nil {
			return err
		}
		err = d.modify(ctx, replacement(dn, []ldap.Control{unchanged}, written))
		if !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return ErrConflict
}

func replacement(dn string, controls []ldap.Control, attributes []attribute) *ldap.ModifyRequest {
	r := ldap.NewModifyRequest(dn, controls)
	for _, a := range attributes {
		r.Replace(a.name, a.values)
	}
	return r
}

// unchangedSince is the assertion control (RFC 4528) that lets an operation happen only while the entry's entryCSN is csn.
func unchangedSince(csn string) (ldap.Control, error) {
	const assertion = "1.3.6.1.1.12"
	filter, err := ldap.CompileFilter("(entryCSN=" + ldap.EscapeFilter(csn) + ")")
	if err != nil {
		return nil, fmt.Errorf("cannot ask for change %q: %w", csn, err)
	}
	return ldap.NewControlString(assertion, true, string(filter.Bytes())), nil
}

func (d *Directory) remove(ctx context.Context, dn string) error {
	return d.do(ctx, false, func(c *ldap.Conn) error { return c.Del(ldap.NewDelRequest(dn, nil)) })
}
