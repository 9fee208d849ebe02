package onboard

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"allotment/portal/audit"
	"allotment/portal/directory"
	"allotment/portal/store"
)

// State is where an application is.
//
//	Register -> unconfirmed -Confirm-> waiting -Decide yes-> accepted -> ready -SetUp-> done
//	                 |                  | | \-Decide no, 30 days-> refused
//	                 24 hours: gone     | 2 days: reminder, 3 days: officers are asked
//	JoinAsk ----------------------------/           accepted -> done (who has an account needs no first password)
//	Register with a personal invitation --> accepted            Welcome --> ready
type State string

// The states. Accepted lasts as long as the directory takes to know of it, or is not there.
const (
	Unconfirmed State = "unconfirmed" // a link was sent to the address
	Waiting     State = "waiting"     // for a yes or no of the group
	Accepted    State = "accepted"    // somebody said yes
	Ready       State = "ready"       // the account is there, and a link for its first password was sent
	Done        State = "done"        // ended well
	Refused     State = "refused"     // ended by a no, or because nobody answered
)

// How long things last.
const (
	confirmWithin = 24 * time.Hour
	remindAfter   = 2 * 24 * time.Hour
	escalateAfter = 3 * 24 * time.Hour
	answerWithin  = 30 * 24 * time.Hour
	setUpWithin   = 7 * 24 * time.Hour
	keepEnded     = 30 * 24 * time.Hour // without names and address, so that who comes too late sees who decided
)

// Application is somebody's way to an account or into a group.
type Application struct {
	ID        string    `json:"id"`
	State     State     `json:"state"`
	Given     string    `json:"given,omitempty"`
	Family    string    `json:"family,omitempty"`
	Mail      string    `json:"mail,omitempty"`
	Language  string    `json:"language,omitempty"`
	Text      string    `json:"text,omitempty"` // what she says to those who decide
	Group     string    `json:"group"`
	Person    string    `json:"person,omitempty"` // name to log in with, once there is one
	New       bool      `json:"new"`              // she has no account yet
	Known     string    `json:"known,omitempty"`  // member who had the same address when she registered: a family's
	Invited   string    `json:"invited,omitempty"`
	By        string    `json:"by,omitempty"`        // who decided; empty: nobody
	Created   time.Time `json:"created"`             //
	Asked     time.Time `json:"asked,omitzero"`      // when the group was asked
	Reminded  time.Time `json:"reminded,omitzero"`   //
	Escalated time.Time `json:"escalated,omitzero"`  // when the officers were asked
	Link      string    `json:"link,omitempty"`      // hash of the token of the link for the first password
	LinkUntil time.Time `json:"link_until,omitzero"` //
	Ended     time.Time `json:"ended,omitzero"`
}

// FullName is how she calls herself.
func (a *Application) FullName() string { return strings.TrimSpace(a.Given + " " + a.Family) }

var applications = store.NewBucket[Application]("onboard-applications")

// Request is what somebody writes into the form of registration.
type Request struct {
	Given, Family string // one of them may be empty
	Mail          string
	Group         string // the first one that she wants to belong to
	Language      string // BCP 47
	Text          string // to those who decide; may be empty
	Invitation    string // token; may be empty
	Form          string // from NewForm
	Trap          string // of a field that people do not see: what is in it was written by a machine
	Address       string // of the client
}

// NewForm makes the token that the form of registration carries. It serves once, from 3 s on, for a day.
func (s *Service) NewForm() string { return s.guard.newForm(s.Now()) }

// Register begins: a link to confirm the address is sent to it. ErrForm, ErrBusy, ErrGroup, directory.ErrText and
// ErrMail say what is wrong with the form; nothing tells whether anybody knows the address.
func (s *Service) Register(ctx context.Context, r Request) error {
	a, err := s.newApplication(r)
	if err != nil || r.Trap != "" {
		return err
	}
	title, err := s.existing(ctx, r.Group)
	if err != nil {
		return err
	}
	if !s.guard.checkForm(r.Form, s.Now()) {
		return ErrForm
	}
	if !s.guard.clients.allow(clientOf(r.Address), s.Now()) || !s.guard.all.AllowN(s.Now(), 1) {
		return ErrBusy
	}
	known, err := s.Directory.PersonByMail(ctx, a.Mail)
	if err != nil && !errors.Is(err, directory.ErrNotFound) {
		return err
	}
	a.Known = known.Name
	vouched, err := s.vouched(ctx, r.Invitation, &a)
	if err != nil {
		return err
	}
	if !s.guard.addresses.allow(strings.ToLower(a.Mail), s.Now()) {
		return nil
	}
	err = s.DB.Update(func(tx *store.Tx) error {
		if err := checkOpen(tx); err != nil {
			return err
		}
		if err := s.useInvitation(tx, r.Invitation); err != nil && (vouched || !errors.Is(err, ErrLink)) {
			return err
		}
		if vouched {
			a.State, a.By = Accepted, a.Invited
			return applications.Put(tx, a.ID, a)
		}
		return s.askToConfirm(tx, &a, title)
	})
	if err == nil && vouched {
		s.carryOutOrLater(ctx, a.ID)
	}
	return err
}

// newApplication checks what somebody wrote.
func (s *Service) newApplication(r Request) (Application, error) {
	a := Application{ID: newID(), State: Unconfirmed, New: true, Group: r.Group, Language: r.Language, Created: s.Now().UTC()}
	var errs [4]error
	a.Given, errs[0] = cleanName(r.Given)
	a.Family, errs[1] = cleanName(r.Family)
	a.Mail, errs[2] = directory.CleanMail(r.Mail)
	a.Text, errs[3] = cleanLines(r.Text)
	if err := errors.Join(errs[:]...); err != nil {
		return a, err
	}
	if a.FullName() == "" {
		return a, fmt.Errorf("a name is missing: %w", directory.ErrText)
	}
	if a.Mail == "" {
		return a, fmt.Errorf("an address is missing: %w", directory.ErrMail)
	}
	return a, nil
}

func newID() string { return strings.ToLower(rand.Text()[:16]) }

// cleanName checks a name. It goes into a mail to an address that may be somebody else's: a name with a link in it is
// somebody's way to send advertisements by us.
func cleanName(name string) (string, error) {
	name, err := directory.CleanText(name)
	if err == nil && (utf8.RuneCountInString(name) > 60 || strings.ContainsAny(name, "/@:") || strings.Contains(strings.ToLower(name), "www.")) {
		err = fmt.Errorf("%q is no name: %w", name, directory.ErrText)
	}
	return name, err
}

// cleanLines checks a text of several lines.
func cleanLines(text string) (string, error) {
	const most = 10
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(text, "\r\n", "\n")), "\n")
	if len(lines) > most {
		return "", fmt.Errorf("more than %d lines: %w", most, directory.ErrText)
	}
	for i, line := range lines {
		var err error
		if lines[i], err = directory.CleanText(line); err != nil {
			return "", err
		}
	}
	return strings.Join(lines, "\n"), nil
}

// existing is the title of a group. ErrGroup: there is none of that name.
func (s *Service) existing(ctx context.Context, group string) (string, error) {
	g, err := s.Directory.Group(ctx, group)
	if errors.Is(err, directory.ErrNotFound) || errors.Is(err, directory.ErrName) {
		return "", ErrGroup
	}
	if g.Title == "" {
		g.Title = g.Name
	}
	return g.Title, err
}

// checkOpen bounds what waits for somebody.
func checkOpen(tx *store.Tx) error {
	open := 0
	err := applications.All(tx, "", func(_ string, a Application) bool {
		if a.State == Unconfirmed || a.State == Waiting {
			open++
		}
		return true
	})
	if err == nil && open >= maxOpen {
		return ErrBusy
	}
	return err
}

func (s *Service) askToConfirm(tx *store.Tx, a *Application, group string) error {
	until := a.Created.Add(confirmWithin)
	token, err := s.newToken(tx, a.ID, toConfirm, until)
	if err != nil {
		return err
	}
	name := "confirm"
	if a.Known != "" {
		name = "known"
	}
	return errors.Join(applications.Put(tx, a.ID, *a), s.mail(tx, a.Mail, a.Language, name, until, map[string]string{
		"name": a.FullName(), "group": group, "member": a.Known, "home": s.link(PathHome),
		"link": s.link(PathConfirm, "token", token)}))
}

// Look tells whose link to confirm an address it is, and changes nothing: mail scanners open links too.
func (s *Service) Look(token string) (a Application, err error) {
	err = s.DB.View(func(tx *store.Tx) error {
		a, err = s.find(tx, token, toConfirm)
		return err
	})
	return a, err
}

// Confirm says that the address is hers, and asks those who decide about the group. It works once.
func (s *Service) Confirm(ctx context.Context, token string) (Application, error) {
	a, err := s.Look(token)
	if err != nil {
		return a, err
	}
	ask, err := s.prepareToAsk(ctx, &a)
	if err != nil {
		return a, err
	}
	err = s.DB.Update(func(tx *store.Tx) error {
		if a, err = s.find(tx, token, toConfirm); err != nil {
			return err
		}
		a.State, a.Asked = Waiting, s.Now().UTC()
		return errors.Join(tickets.Delete(tx, hashed(token)), ask(tx), applications.Put(tx, a.ID, a),
			s.record(tx, "", "confirmed", &a))
	})
	return a, err
}

// prepareToAsk finds out who decides about an application, and returns what queues a mail to each.
func (s *Service) prepareToAsk(ctx context.Context, a *Application) (func(*store.Tx) error, error) {
	people, err := s.deciders(ctx, a.Group)
	if err != nil {
		return nil, err
	}
	return s.question(ctx, a, "ask", people)
}

// question returns what queues a mail about an application to each of some people.
func (s *Service) question(ctx context.Context, a *Application, mail string, people []directory.Person) (func(*store.Tx) error, error) {
	title, err := s.title(ctx, a.Group)
	if err != nil {
		return nil, err
	}
	values := map[string]string{"newcomer": a.FullName(), "address": a.Mail, "group": title, "text": a.Text,
		"link": s.link(PathRequests + "/" + a.ID)}
	return func(tx *store.Tx) error {
		for _, p := range people {
			values["name"] = p.Display
			if err := s.mail(tx, p.Address(), p.Language, mail, time.Time{}, values); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// JoinAsk is a member's wish to belong to one more group. ErrMember: she does. Asking twice is asking once.
func (s *Service) JoinAsk(ctx context.Context, person, group, text string) error {
	p, err := s.Directory.Person(ctx, person)
	if err != nil {
		return err
	}
	if _, err := s.existing(ctx, group); err != nil {
		return err
	}
	for _, g := range p.Groups {
		if g == group {
			return ErrMember
		}
	}
	now := s.Now().UTC()
	a := Application{ID: newID(), State: Waiting, Group: group, Person: person, Given: p.Display, Mail: p.Address(),
		Language: p.Language, Created: now, Asked: now}
	if a.Text, err = cleanLines(text); err != nil {
		return err
	}
	ask, err := s.prepareToAsk(ctx, &a)
	if err != nil {
		return err
	}
	return s.DB.Update(func(tx *store.Tx) error {
		again := false
		err := applications.All(tx, "", func(_ string, other Application) bool {
			again = other.State == Waiting && other.Person == person && other.Group == group
			return !again
		})
		if err != nil || again {
			return err
		}
		return errors.Join(checkOpen(tx), applications.Put(tx, a.ID, a), ask(tx), s.record(tx, person, "asked", &a))
	})
}

// Decide is the yes or no of somebody who may decide about the group; reason is told with a no. ErrDecided: another was
// first; Find tells who.
func (s *Service) Decide(ctx context.Context, id, admin string, yes bool, reason string) error {
	reason, err := cleanLines(reason)
	if err != nil {
		return err
	}
	a, err := s.mayChange(ctx, id, admin)
	if err != nil {
		return err
	}
	title, err := s.title(ctx, a.Group)
	if err != nil {
		return err
	}
	err = s.DB.Update(func(tx *store.Tx) error {
		if a, err = get(tx, id); err != nil {
			return err
		}
		if a.State != Waiting {
			return ErrDecided
		}
		a.By = admin
		if !yes {
			return errors.Join(s.record(tx, admin, "refused", &a), s.refuse(tx, &a, "refused", title, reason))
		}
		a.State = Accepted
		return errors.Join(applications.Put(tx, id, a), s.record(tx, admin, "accepted", &a))
	})
	if err == nil && yes {
		s.carryOutOrLater(ctx, id)
	}
	return err
}

// mayChange returns an application that a person may decide about.
func (s *Service) mayChange(ctx context.Context, id, person string) (Application, error) {
	a, err := s.Find(id)
	if err != nil {
		return a, err
	}
	may, err := s.MayDecide(ctx, person, a.Group)
	if err == nil && !may {
		err = ErrForbidden
	}
	return a, err
}

// refuse ends an application and says so to her.
func (s *Service) refuse(tx *store.Tx, a *Application, mail, title, reason string) error {
	var err error
	if a.Mail != "" {
		err = s.mail(tx, a.Mail, a.Language, mail, time.Time{}, map[string]string{"name": a.FullName(), "group": title,
			"reason": reason})
	}
	return errors.Join(err, s.end(tx, a, Refused))
}

// end keeps of an application only that it ended.
func (s *Service) end(tx *store.Tx, a *Application, how State) error {
	return applications.Put(tx, a.ID, Application{ID: a.ID, State: how, Group: a.Group, Person: a.Person, By: a.By,
		Created: a.Created, Ended: s.Now().UTC()})
}

// Move has another group decide, for whoever chose the wrong one, or one that is gone.
func (s *Service) Move(ctx context.Context, id, admin, group string) error {
	a, err := s.mayChange(ctx, id, admin)
	if err != nil {
		return err
	}
	if _, err := s.existing(ctx, group); err != nil {
		return err
	}
	a.Group = group
	ask, err := s.prepareToAsk(ctx, &a)
	if err != nil {
		return err
	}
	return s.DB.Update(func(tx *store.Tx) error {
		if a, err = get(tx, id); err != nil {
			return err
		}
		if a.State != Waiting {
			return ErrDecided
		}
		a.Group, a.Asked, a.Reminded, a.Escalated = group, s.Now().UTC(), time.Time{}, time.Time{}
		return errors.Join(applications.Put(tx, id, a), ask(tx), s.record(tx, admin, "moved", &a))
	})
}

func get(tx *store.Tx, id string) (Application, error) {
	a, err := applications.Get(tx, id)
	if errors.Is(err, store.ErrNotFound) {
		err = ErrNotFound
	}
	return a, err
}

// Find returns an application, an ended one too.
func (s *Service) Find(id string) (a Application, err error) {
	err = s.DB.View(func(tx *store.Tx) error {
		a, err = get(tx, id)
		return err
	})
	return a, err
}

// record writes into the audit log.
func (s *Service) record(tx *store.Tx, actor, what string, a *Application) error {
	subject := a.Person
	if subject == "" {
		subject = a.FullName()
	}
	return s.audit.RecordIn(tx, audit.Entry{Kind: "onboard." + what, Actor: actor, Subject: subject,
		Args: map[string]string{"group": a.Group}})
}
