// Package login finds out that a visitor is who she says: by password, by passkey (WebAuthn), with codes of an
// authenticator app (TOTP, RFC 6238) or from paper, and by a code that an officer made for her. Whoever guesses is slowed
// down, and learns nothing about which accounts there are.
package login

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"allotment/portal/audit"
	"allotment/portal/config"
	"allotment/portal/directory"
	"allotment/portal/session"
	"allotment/portal/store"
	"allotment/portal/ticket"
)

// What callers can tell apart.
var (
	ErrRefused = errors.New("wrong name, password or code") // or the person is deactivated: a stranger cannot tell
	ErrTicket  = errors.New("took too long, or was done already")
	ErrOfficer = errors.New("only another officer can do this")
)

// WaitError says that there were too many wrong tries.
type WaitError struct {
	Until time.Time // when the next may be made
}

// Error tells the moment.
func (e *WaitError) Error() string {
	return "too many wrong tries: wait until " + e.Until.Format(time.RFC3339)
}

// People is what of the directory this package needs: (*directory.Directory) has it.
type People interface {
	Person(ctx context.Context, name string) (directory.Person, error)
	PersonByMail(ctx context.Context, address string) (directory.Person, error)
	Authenticate(ctx context.Context, name, password string) error
	SetPassword(ctx context.Context, name, password string) error
	HoldsOffice(ctx context.Context, name string, now time.Time) (bool, error)
	Officers(ctx context.Context, now time.Time) ([]directory.Person, error)
	People(ctx context.Context) ([]directory.Person, error)
}

// Deps is what a Login needs.
type Deps struct {
	Directory People
	DB        *store.DB
	Audit     *audit.Log
	Sessions  *session.Sessions
	Config    func() config.Config
	Now       func() time.Time
	// Tell mails a person about her account, in the words of the languages' messages "mail.KIND". Nil: nobody is told.
	Tell func(ctx context.Context, person, kind string, args map[string]string)
	// Send mails a person at her address elsewhere, in the words "mail.KIND"; after until, unless zero, that is of no use.
	Send func(ctx context.Context, p directory.Person, kind string, until time.Time, args map[string]string) error
	// CanMail says whether mail leaves the box. Nil: it never does, and Send, Place and Log may be nil too.
	CanMail func() bool
	Place   func() string // scheme and host of links in mails: not what a stranger's request says
	Log     *slog.Logger
}

// Login checks visitors.
type Login struct {
	Deps
	guesses    *throttle
	checks     chan struct{} // has room for as many values as passwords may be checked at once
	answerTime time.Duration // what an answer takes at least that refuses a visitor: it tells nothing of its reason
	pending    *ticket.Tickets[halfway]
	creating   *ticket.Tickets[ceremony]
	asking     *ticket.Tickets[ceremony]
	secrets    *ticket.Tickets[newTOTP]
	resetting  sync.Mutex
	sends      chan struct{} // has room for as many values as mails may be under way at once
	sending    sync.WaitGroup
}

// checksAtOnce bounds the memory of hashing (7 MiB each, here or in the directory).
const checksAtOnce = 4

// ticketTime is how long a login or a registration in several steps may take.
const ticketTime = 10 * time.Minute

// New makes a Login.
func New(d Deps) *Login {
	l := &Login{Deps: d, guesses: newThrottle(d.Now), checks: make(chan struct{}, checksAtOnce),
		answerTime: 400 * time.Millisecond}
	l.pending, l.secrets = ticket.New[halfway](d.Now, ticketTime), ticket.New[newTOTP](d.Now, ticketTime)
	l.creating, l.asking = ticket.New[ceremony](d.Now, ticketTime), ticket.New[ceremony](d.Now, ticketTime)
	l.sends = make(chan struct{}, sendsAtOnce)
	return l
}

// Outcome is what a successful step has shown.
type Outcome struct {
	Person   string
	Strength string // of package session
	Ticket   string // not empty: her password was right, and Code is still to be asked for a code
}

// halfway is a visitor whose password was right and who has yet to give a code.
type halfway struct {
	person string
}

// Password checks a name, or a mail address, and a password. It returns ErrRefused, a *WaitError or what is wrong with
// the directory.
func (l *Login) Password(r *http.Request, name, password string) (Outcome, error) {
	var out Outcome
	err := l.guarded(r, name, func(person directory.Person) (done bool, err error) {
		if err := l.authenticate(r.Context(), person, password); err != nil {
			return false, err
		}
		f, err := l.factors(person.Name)
		out = Outcome{Person: person.Name, Strength: session.Password}
		if err == nil && f.TOTP != nil {
			out.Ticket = l.pending.Put(halfway{out.Person})
		}
		return out.Ticket == "", err
	})
	if err != nil {
		return Outcome{}, err
	}
	return out, nil
}

// Code ends what Password began, with a code of the authenticator app or a printed one. A ticket takes several tries.
func (l *Login) Code(r *http.Request, ticket, code string) (Outcome, error) {
	half, ok := l.pending.Get(ticket)
	if !ok {
		return Outcome{}, ErrTicket
	}
	var out Outcome
	err := l.guarded(r, half.person, func(person directory.Person) (bool, error) {
		strength, err := l.useCode(person.Name, code, session.TOTP, session.Printed)
		out = Outcome{Person: person.Name, Strength: strength}
		return true, err
	})
	if err != nil {
		return Outcome{}, err
	}
	l.pending.Take(ticket)
	return out, nil
}

// Recover logs in whoever has lost her password or her telephone: by a printed code, or one that an officer made. She
// can then set a new password; all her other sessions end.
func (l *Login) Recover(r *http.Request, name, code string) (Outcome, error) {
	var out Outcome
	err := l.guarded(r, name, func(person directory.Person) (bool, error) {
		strength, err := l.useCode(person.Name, code, session.Printed, session.Officer)
		out = Outcome{Person: person.Name, Strength: strength}
		return true, err
	})
	if err != nil {
		return Outcome{}, err
	}
	l.tell(r.Context(), out.Person, "login.recovered", map[string]string{"strength": out.Strength})
	record := audit.Entry{Actor: out.Person, Kind: "login.recovered", Subject: out.Person,
		Args: map[string]string{"strength": out.Strength}}
	return out, errors.Join(l.Audit.Record(record), l.Sessions.EndAll(out.Person))
}

// Enter begins the session of an Outcome without a ticket, and marks the browser as known to the person.
func (l *Login) Enter(w http.ResponseWriter, r *http.Request, out Outcome) (session.Session, error) {
	if out.Ticket != "" || out.Person == "" {
		return session.Session{}, fmt.Errorf("cannot log in half of the way: %w", ErrRefused)
	}
	if err := l.markKnown(w, r, out.Person); err != nil {
		return session.Session{}, err
	}
	return l.Sessions.Begin(w, r, out.Person, out.Strength)
}

// guarded calls check with the person that name means, unless too many wrong tries were made. Whether there is such a
// person, and whether check was called at all, does not show in the answer nor in its time. The wrong tries of before
// are forgotten once check is done, not halfway: else a stolen password would buy any number of tries for the code.
func (l *Login) guarded(r *http.Request, name string, check func(directory.Person) (done bool, err error)) error {
	start := time.Now()
	name = strings.ToLower(strings.TrimSpace(name))
	person, err := l.find(r.Context(), name)
	if err != nil && !errors.Is(err, ErrRefused) {
		return err
	}
	if person.Name != "" {
		name = person.Name // so that her address and her name are one account
	}
	try, err := l.guesses.begin(name, l.known(r, name), session.Client(r))
	if err != nil {
		return err
	}
	done := false
	if person.Name != "" && person.Active {
		done, err = check(person)
	} else {
		err = l.checkNobody(r.Context())
	}
	switch {
	case err == nil && done:
		try.right()
	case !errors.Is(err, ErrRefused):
		try.forget()
	default:
		select {
		case <-time.After(l.answerTime - time.Since(start)):
		case <-r.Context().Done():
		}
		return ErrRefused
	}
	return err
}

// find is the person who logs in with name or mail address; ErrRefused if there is none.
func (l *Login) find(ctx context.Context, name string) (directory.Person, error) {
	lookUp := l.Directory.Person
	if local, domain, ok := strings.Cut(name, "@"); ok {
		lookUp = l.Directory.PersonByMail
		if domain == l.Config().Domain {
			name, lookUp = local, l.Directory.Person
		}
	}
	person, err := lookUp(ctx, name)
	switch {
	case errors.Is(err, directory.ErrNotFound), errors.Is(err, directory.ErrName), errors.Is(err, directory.ErrMail):
		return directory.Person{}, ErrRefused
	case err != nil:
		return directory.Person{}, fmt.Errorf("cannot look up who logs in: %w", err)
	}
	return person, nil
}

// authenticate asks the directory, with no more than checksAtOnce others.
func (l *Login) authenticate(ctx context.Context, person directory.Person, password string) error {
	if directory.IsAppPassword(password) || len(password) > maxPassword {
		return l.checkNobody(ctx)
	}
	if err := l.enterChecks(ctx); err != nil {
		return err
	}
	defer l.leaveChecks()
	err := l.Directory.Authenticate(ctx, person.Name, Normal(password))
	if errors.Is(err, directory.ErrPassword) {
		return ErrRefused
	}
	return err
}

func (l *Login) enterChecks(ctx context.Context) error {
	select {
	case l.checks <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *Login) leaveChecks() { <-l.checks }

func (l *Login) tell(ctx context.Context, person, kind string, args map[string]string) {
	if l.Tell != nil {
		l.Tell(ctx, person, kind, args)
	}
}

func (l *Login) record(actor, kind, subject string, args map[string]string) error {
	return l.Audit.Record(audit.Entry{Actor: actor, Kind: kind, Subject: subject, Args: args})
}
