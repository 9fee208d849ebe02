// Package directory is the portal's client of the organisation's directory: people, groups, collectives and offices
// as Go values, read and written by LDAP (RFC 4511) below o=organisation. docs/modules/directory.md describes the tree.
//
// The portal is the directory's only writer. Every name that becomes a part of a distinguished name or a filter is
// checked by its form first and escaped too (RFC 4514, RFC 4515).
package directory

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// The tree's fixed places.
const (
	suffix      = "o=organisation"
	people      = "ou=people," + suffix
	groups      = "ou=groups," + suffix
	collectives = "ou=collectives," + suffix
	offices     = "ou=offices," + suffix
	portal      = "cn=portal,ou=services," + suffix
)

// timeout bounds each operation: the directory is on the same machine.
const timeout = 20 * time.Second

// What callers can tell apart.
var (
	ErrNotFound = errors.New("not in the directory")
	ErrExists   = errors.New("exists already")     // the name, or the mail address of somebody else
	ErrPassword = errors.New("wrong password")     // or the account is suspended, or was tried too often
	ErrWeak     = errors.New("password too short") // or refused by the directory's rules in another way
	ErrName     = errors.New("not a name: up to 63 of a-z, 0-9, dot, hyphen and underscore, beginning with a letter")
)

// nameForm is what people, groups, collectives and offices can be called. It is also the part of their mail addresses
// before the @, and needs no escapes anywhere.
var nameForm = regexp.MustCompile(`^[a-z][a-z0-9._-]{0,62}$`)

// probePrefix begins the names of accounts that journeys use; no person has such a name.
const probePrefix = "probe-"

// Client is a connection to the directory with the portal's rights. It may be used by several goroutines at once. When
// the connection is lost its calls fail, and a new one must be made.
type Client struct {
	conn *ldap.Conn
}

// Connect connects to the directory at address ("host:port") with the password of the portal's account.
func Connect(ctx context.Context, address, password string) (*Client, error) {
	conn, err := dial(ctx, address)
	if err != nil {
		return nil, err
	}
	if err := bind(conn, portal, password); err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot log in to the directory as %q: %w", portal, err)
	}
	return &Client{conn}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Authenticate asks the directory at address whether password is the person's. It makes a connection of its own.
func Authenticate(ctx context.Context, address, person, password string) error {
	dn, err := personDN(person)
	if err != nil {
		return err
	}
	conn, err := dial(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := bind(conn, dn, password); err != nil {
		return fmt.Errorf("cannot log in as %q: %w", person, err)
	}
	return nil
}

func dial(ctx context.Context, address string) (*ldap.Conn, error) {
	d := net.Dialer{Timeout: timeout}
	raw, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to the directory: %w", err)
	}
	conn := ldap.NewConn(raw, false)
	conn.Start()
	conn.SetTimeout(timeout)
	return conn, nil
}

func bind(conn *ldap.Conn, dn, password string) error {
	if password == "" { // RFC 4513 5.1.2: a server would take it for an anonymous bind and say yes
		return ErrPassword
	}
	return translate(conn.Bind(dn, password))
}

// translate makes the errors of this package of result codes (RFC 4511 appendix A) that callers want to tell apart.
func translate(err error) error {
	switch {
	case err == nil:
		return nil
	case ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject), ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchAttribute):
		return fmt.Errorf("%w (%w)", ErrNotFound, err)
	case ldap.IsErrorWithCode(err, ldap.LDAPResultEntryAlreadyExists), ldap.IsErrorWithCode(err, ldap.LDAPResultAttributeOrValueExists),
		ldap.IsErrorWithCode(err, ldap.LDAPResultConstraintViolation) && strings.Contains(err.Error(), "unique"):
		return fmt.Errorf("%w (%w)", ErrExists, err)
	case ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials):
		return ErrPassword
	case ldap.IsErrorWithCode(err, ldap.LDAPResultConstraintViolation) && strings.Contains(err.Error(), "assword"):
		return fmt.Errorf("%w (%w)", ErrWeak, err)
	}
	return err
}

// nameDN is the distinguished name of what is called name in the folder base.
func nameDN(attribute, name, base string) (string, error) {
	if !nameForm.MatchString(name) {
		return "", fmt.Errorf("%q is %w", name, ErrName)
	}
	return attribute + "=" + ldap.EscapeDN(name) + "," + base, nil
}

func personDN(name string) (string, error) {
	if strings.HasPrefix(name, probePrefix) {
		return "", fmt.Errorf("%q is %w: names that begin with %q are kept for probes", name, ErrName, probePrefix)
	}
	return nameDN("uid", name, people)
}

func groupDN(name string) (string, error)      { return nameDN("cn", name, groups) }
func collectiveDN(name string) (string, error) { return nameDN("ou", name, collectives) }
func officeDN(name string) (string, error)     { return nameDN("cn", name, offices) }

// nameOf is the name in the first part of a distinguished name that has one of the forms above, or "".
func nameOf(dn string) string {
	d, err := ldap.ParseDN(dn)
	if err != nil || len(d.RDNs) == 0 || len(d.RDNs[0].Attributes) != 1 {
		return ""
	}
	return d.RDNs[0].Attributes[0].Value
}

// namesOf are the names of several distinguished names.
func namesOf(dns []string) []string {
	var names []string
	for _, dn := range dns {
		names = append(names, nameOf(dn))
	}
	return names
}

// search returns the entries of a class right below base that fit the filter.
func (c *Client) search(base, filter string, attributes []string) ([]*ldap.Entry, error) {
	r, err := c.conn.Search(ldap.NewSearchRequest(base, ldap.ScopeSingleLevel, ldap.NeverDerefAliases, 0, 0, false,
		filter, attributes, nil))
	if err != nil {
		return nil, translate(err)
	}
	return r.Entries, nil
}

// read returns one entry.
func (c *Client) read(dn string, attributes []string) (*ldap.Entry, error) {
	r, err := c.conn.Search(ldap.NewSearchRequest(dn, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false,
		"(objectClass=*)", attributes, nil))
	if err != nil {
		return nil, translate(err)
	}
	if len(r.Entries) != 1 {
		return nil, ErrNotFound
	}
	return r.Entries[0], nil
}

// add makes an entry; attributes without a value are left out.
func (c *Client) add(dn string, classes []string, attributes []attribute) error {
	r := ldap.NewAddRequest(dn, nil)
	r.Attribute("objectClass", classes)
	for _, a := range attributes {
		if len(a.values) > 0 {
			r.Attribute(a.name, a.values)
		}
	}
	return translate(c.conn.Add(r))
}

// replace gives an entry's attributes the values; those without a value are removed.
func (c *Client) replace(dn string, attributes ...attribute) error {
	r := ldap.NewModifyRequest(dn, nil)
	for _, a := range attributes {
		r.Replace(a.name, a.values)
	}
	return translate(c.conn.Modify(r))
}

func (c *Client) remove(dn string) error {
	return translate(c.conn.Del(ldap.NewDelRequest(dn, nil)))
}

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
