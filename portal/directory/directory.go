// Package directory is the organisation's directory as the portal sees it: people, groups, collectives, offices and
// permissions as Go values, read and written by LDAP (RFC 4511) below o=organisation. docs/modules/directory.md describes
// the tree.
//
// The portal is the directory's only writer. Every name that becomes a part of a distinguished name or a filter is
// checked by its form first and escaped too (RFC 4514, RFC 4515).
package directory

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// timeout bounds each operation: the directory is on the same machine.
const timeout = 20 * time.Second

// What callers can tell apart.
var (
	ErrNotFound    = errors.New("not in the directory")
	ErrExists      = errors.New("exists already")           // the name, or the mail address of somebody else
	ErrConflict    = errors.New("changed meanwhile")        // by somebody else, since it was read
	ErrPassword    = errors.New("wrong password")           // or the account is deactivated, or was tried too often
	ErrWeak        = errors.New("password too short")       // or refused by the directory's rules in another way
	ErrUnavailable = errors.New("no answer from directory") // it does not run, or is just being started
	ErrName        = errors.New("not a name: up to 63 of a-z, 0-9, dot, hyphen and underscore, beginning with a letter")
	ErrText        = errors.New("not a text for people: up to 200 characters, without control characters")
	ErrMail        = errors.New("not a mail address")
)

// Directory is the organisation's directory, with the portal's rights. It connects when it is first asked, and again
// after the connection was lost. It may be used by several goroutines at once.
//
// Ending a method's context ends the wait for a connection; each operation is bounded by 20 s of its own.
type Directory struct {
	address  string
	password func() (string, error)

	mu   sync.Mutex // held while connecting
	conn *ldap.Conn // nil at first

	holders   sync.Mutex // held while it is worked out who has a permission
	passwords sync.Mutex // held while a person's passwords are changed in more than one step
}

// Open prepares to ask the directory at address ("host:port"). It asks password for the portal's whenever it connects.
func Open(address string, password func() (string, error)) *Directory {
	return &Directory{address: address, password: password}
}

// Close ends the connection.
func (d *Directory) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn == nil {
		return nil
	}
	return d.conn.Close()
}

// connection is the one that there is, or a new one.
func (d *Directory) connection(ctx context.Context) (*ldap.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if d.conn != nil && !d.conn.IsClosing() {
		return d.conn, nil
	}
	password, err := d.password()
	if err != nil {
		return nil, fmt.Errorf("cannot get the portal's password of the directory: %w", err)
	}
	conn, err := dial(ctx, d.address)
	if err != nil {
		return nil, err
	}
	if err := bind(conn, portal, password); err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot log in to the directory as %q: %w", portal, err)
	}
	d.conn = conn
	return conn, nil
}

// do does one operation. A connection that fails is not used again; what only reads is tried once more on a new one.
func (d *Directory) do(ctx context.Context, reads bool, operation func(*ldap.Conn) error) error {
	for again := reads; ; again = false {
		conn, err := d.connection(ctx)
		if err != nil {
			return err
		}
		err = operation(conn)
		if !lost(err) {
			return translate(err)
		}
		conn.Close()
		if !again {
			return fmt.Errorf("%w (%w)", ErrUnavailable, err)
		}
	}
}

// lost says whether an operation ended without an answer of the server.
func lost(err error) bool {
	var answer *ldap.Error
	return err != nil && (!errors.As(err, &answer) ||
		ldap.IsErrorAnyOf(err, ldap.ErrorNetwork, ldap.ErrorUnexpectedMessage, ldap.ErrorUnexpectedResponse))
}

// Authenticate asks the directory whether password is the person's own. It makes a connection for that alone. An app
// password is none: see IsAppPassword.
func (d *Directory) Authenticate(ctx context.Context, person, password string) error {
	dn, err := personDN(person)
	if err != nil {
		return err
	}
	if IsAppPassword(password) {
		return fmt.Errorf("cannot log in as %q by a password for apps: %w", person, ErrPassword)
	}
	conn, err := dial(ctx, d.address)
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
		return nil, fmt.Errorf("cannot connect to the directory: %w (%w)", ErrUnavailable, err)
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
	err := conn.Bind(dn, password)
	if lost(err) {
		return fmt.Errorf("%w (%w)", ErrUnavailable, err)
	}
	return translate(err)
}

// translate makes the errors of this package of result codes (RFC 4511 appendix A) that callers want to tell apart.
func translate(err error) error {
	is := func(codes ...uint16) bool { return ldap.IsErrorAnyOf(err, codes...) }
	refused := is(ldap.LDAPResultConstraintViolation)
	switch {
	case err == nil:
		return nil
	case is(ldap.LDAPResultNoSuchObject, ldap.LDAPResultNoSuchAttribute):
		return fmt.Errorf("%w (%w)", ErrNotFound, err)
	case is(ldap.LDAPResultEntryAlreadyExists, ldap.LDAPResultAttributeOrValueExists),
		refused && strings.Contains(err.Error(), "unique"):
		return fmt.Errorf("%w (%w)", ErrExists, err)
	case is(ldap.LDAPResultInvalidCredentials):
		return ErrPassword
	case refused && strings.Contains(err.Error(), "assword"):
		return fmt.Errorf("%w (%w)", ErrWeak, err)
	case is(ldap.LDAPResultAssertionFailed):
		return ErrConflict
	case is(ldap.LDAPResultUnavailable, ldap.LDAPResultBusy):
		return fmt.Errorf("%w (%w)", ErrUnavailable, err)
	}
	return err
}
