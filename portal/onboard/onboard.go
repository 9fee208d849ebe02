// Package onboard brings people into the organisation: registration, confirmation of the address, the yes or no of those
// who decide about a group, the first password; members who ask for further groups; invitations. It has no pages.
//
// Everything is in the database, so that a power cut between any two steps loses nothing: state.go has the states and
// what leads from one to the next. Whoever registers learns nothing of who is a member: for every address the answer is
// the same, and what there is to say is said by mail.
package onboard

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"allotment/portal/audit"
	"allotment/portal/directory"
	"allotment/portal/mail"
	"allotment/portal/store"
)

// Messages are the words of this package in every language, in messages/LANGUAGE.toml: mails and audit entries.
//
//go:embed messages/*.toml
var Messages embed.FS

// Paths of the pages that mails lead to.
const (
	PathConfirm  = "/portal/register/confirm" // with ?token=: shows Look, and a button that posts to Confirm
	PathRequests = "/portal/requests"         // of those who decide; a request is at /ID below
	PathSetUp    = "/portal/setup"            // with ?token=: SetUpFor, then password or passkey
	PathInvite   = "/portal/register"         // with ?invitation=: the form with the group chosen
	PathHome     = "/portal/"
)

// What callers can tell apart, besides directory.ErrText, ErrMail and ErrWeak.
var (
	ErrForm      = errors.New("the form was sent too quickly, too late or twice")
	ErrBusy      = errors.New("too many requests just now")
	ErrGroup     = errors.New("there is no such group")
	ErrLink      = errors.New("the link is not valid any more")
	ErrDecided   = errors.New("somebody has decided already")
	ErrForbidden = errors.New("that is for others to decide")
	ErrMember    = errors.New("a member of the group already")
	ErrNotFound  = errors.New("there is no such request")
)

// Deps is what the service works with.
type Deps struct {
	DB           *store.DB
	Directory    *directory.Directory
	Mail         *mail.Queue
	Texts        *mail.Texts
	Now          func() time.Time
	Log          *slog.Logger
	Origin       func() string            // of links in mails, such as https://portal.example.org
	Organisation func() string            // as people call it
	Address      func(name string) string // of a new member in the organisation; empty, or a nil func: none
}

// Service does the onboarding. It may be used by several goroutines at once.
type Service struct {
	Deps
	audit *audit.Log
	guard *guard
	one   sync.Mutex // held by what has several steps in the directory
}

// New is the service; one goroutine calls its Run.
func New(d Deps) *Service {
	if d.Address == nil {
		d.Address = func(string) string { return "" }
	}
	return &Service{Deps: d, audit: audit.New(d.DB, d.Now), guard: newGuard()}
}

// link is an address on the portal.
func (s *Service) link(path string, query ...string) string {
	values := url.Values{}
	for i := 0; i+1 < len(query); i += 2 {
		values.Set(query[i], query[i+1])
	}
	link := strings.TrimSuffix(s.Origin(), "/") + path
	if len(values) > 0 {
		link += "?" + values.Encode()
	}
	return link
}

// purpose is what a link in a mail is for.
type purpose string

const (
	toConfirm purpose = "confirm"
	toSetUp   purpose = "setup"
)

// ticket is what the database knows of a link; its key is a hash of the token.
type ticket struct {
	Application string    `json:"application"`
	Purpose     purpose   `json:"purpose"`
	Until       time.Time `json:"until"`
}

var tickets = store.NewBucket[ticket]("onboard-links")

func hashed(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// newToken makes a link's token, of 130 random bits, for an application.
func (s *Service) newToken(tx *store.Tx, id string, p purpose, until time.Time) (string, error) {
	token := rand.Text()
	return token, tickets.Put(tx, hashed(token), ticket{Application: id, Purpose: p, Until: until})
}

// find returns the application that a link is for. ErrLink: it is used up, too old or was never there.
func (s *Service) find(tx *store.Tx, token string, p purpose) (Application, error) {
	t, err := tickets.Get(tx, hashed(token))
	if err == nil && (t.Purpose != p || s.Now().After(t.Until)) {
		err = ErrLink
	}
	var a Application
	if err == nil {
		a, err = applications.Get(tx, t.Application)
	}
	if errors.Is(err, store.ErrNotFound) {
		err = ErrLink
	}
	return a, err
}

// mail queues a mail of this package as a part of a transaction.
func (s *Service) mail(tx *store.Tx, to, language, name string, until time.Time, values map[string]string) error {
	values["organisation"] = s.Organisation()
	m, err := s.Texts.Write(to, language, name, values)
	if err != nil {
		return err
	}
	m.Until = until
	return s.Mail.SendIn(tx, m)
}

// MayDecide tells whether a person may say yes or no for a group: its owners may, and officers.
func (s *Service) MayDecide(ctx context.Context, person, group string) (bool, error) {
	g, err := s.Directory.Group(ctx, group)
	if err != nil && !errors.Is(err, directory.ErrNotFound) {
		return false, err
	}
	for _, owner := range g.Owners {
		if owner == person {
			return true, nil
		}
	}
	return s.Directory.HoldsOffice(ctx, person, s.Now())
}

// deciders are the people who are asked about a group: its owners, or the officers if nobody of them can be asked.
func (s *Service) deciders(ctx context.Context, group string) ([]directory.Person, error) {
	owners, err := s.owners(ctx, group)
	if err != nil || len(owners) > 0 {
		return owners, err
	}
	return s.officers(ctx)
}

// owners are those of a group who can be asked.
func (s *Service) owners(ctx context.Context, group string) ([]directory.Person, error) {
	g, err := s.Directory.Group(ctx, group)
	if err != nil && !errors.Is(err, directory.ErrNotFound) {
		return nil, err
	}
	return s.reachable(ctx, g.Owners)
}

// reachable are the people of some names whose accounts are active, and who have an address.
func (s *Service) reachable(ctx context.Context, names []string) ([]directory.Person, error) {
	var found []directory.Person
	for _, name := range names {
		p, err := s.Directory.Person(ctx, name)
		switch {
		case errors.Is(err, directory.ErrNotFound): // removed just now
		case err != nil:
			return nil, err
		case p.Active && p.Address() != "":
			found = append(found, p)
		}
	}
	return found, nil
}

// officers are those who can be asked.
func (s *Service) officers(ctx context.Context) ([]directory.Person, error) {
	all, err := s.Directory.Officers(ctx, s.Now())
	return slices.DeleteFunc(all, func(p directory.Person) bool { return p.Address() == "" }), err
}

// title is what people call a group that may be gone.
func (s *Service) title(ctx context.Context, group string) (string, error) {
	g, err := s.Directory.Group(ctx, group)
	switch {
	case errors.Is(err, directory.ErrNotFound):
		return group, nil
	case err != nil:
		return "", fmt.Errorf("cannot find group %q: %w", group, err)
	case g.Title == "":
		return g.Name, nil
	}
	return g.Title, nil
}
