package onboard

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"allotment/portal/directory"
	"allotment/portal/store"
)

// carryOutOrLater tells the directory of a yes. If it is not there, Tick does so once it is.
func (s *Service) carryOutOrLater(ctx context.Context, id string) {
	if err := s.carryOut(ctx, id); err != nil {
		s.Log.Warn("cannot let somebody in who was accepted; trying again", "application", id, "error", err)
	}
}

// everybody is the group of all members: what modules let it do, each of them may.
const everybody = "members"

// carryOut does what was decided: the account, the group, the link for the first password. Each step can be done twice.
func (s *Service) carryOut(ctx context.Context, id string) error {
	s.one.Lock()
	defer s.one.Unlock()
	a, err := s.Find(id)
	if err != nil || a.State != Accepted {
		return err
	}
	if a.New {
		if err := s.account(ctx, &a); err != nil {
			return err
		}
	}
	groups := []string{a.Group}
	if a.New {
		groups = append(groups, everybody)
	}
	for _, g := range groups {
		err := s.Directory.AddMember(ctx, g, a.Person)
		if err != nil && !errors.Is(err, directory.ErrExists) && !errors.Is(err, directory.ErrNotFound) { // a group that is gone
			return err
		}
	}
	title, err := s.title(ctx, a.Group)
	if err != nil {
		return err
	}
	return s.DB.Update(func(tx *store.Tx) error {
		if a.New {
			_, err := s.offerSetUp(tx, &a, "accepted", title)
			return err
		}
		var err error
		if a.Mail != "" {
			err = s.mail(tx, a.Mail, a.Language, "joined", time.Time{}, map[string]string{"name": a.FullName(), "group": title,
				"link": s.link(PathHome)})
		}
		return errors.Join(err, s.record(tx, a.By, "joined", &a), s.end(tx, &a, Done))
	})
}

// account makes the account of an application. Its name is in the database before it is in the directory, so that after
// a power cut between the two it is known to be hers.
func (s *Service) account(ctx context.Context, a *Application) error {
	if a.Person == "" {
		same, err := s.samePerson(ctx, a)
		if err != nil {
			return err
		}
		if same != "" { // somebody has made her an account meanwhile: its password is not ours to give away
			a.Person, a.New = same, false
			return s.keep(a)
		}
	}
	const choices = 1000
	for n := 1; n <= choices; n++ {
		if a.Person == "" {
			name := loginName(a.Given, a.Family, a.Mail, n)
			if _, err := s.Directory.Person(ctx, name); err == nil {
				continue
			} else if !errors.Is(err, directory.ErrNotFound) {
				return err
			}
			a.Person = name
			if err := s.keep(a); err != nil {
				return err
			}
		}
		p := directory.Person{Name: a.Person, Given: a.Given, Family: a.Family, OutsideMail: a.Mail, Language: a.Language,
			Mail: s.Address(a.Person)}
		err := s.Directory.AddPerson(ctx, p)
		if !errors.Is(err, directory.ErrExists) {
			return err
		}
		there, err := s.Directory.Person(ctx, a.Person)
		if err == nil && isSame(&there, a) {
			return nil
		}
		a.Person = ""
	}
	return fmt.Errorf("cannot find a name to log in with for %q", a.FullName())
}

func isSame(p *directory.Person, a *Application) bool {
	return p.Given == a.Given && strings.EqualFold(p.OutsideMail, a.Mail) && (p.Family == a.Family || a.Family == "")
}

// samePerson finds the account of somebody with the same names and address.
func (s *Service) samePerson(ctx context.Context, a *Application) (string, error) {
	people, err := s.Directory.People(ctx)
	if err != nil {
		return "", err
	}
	for _, p := range people {
		if isSame(&p, a) {
			return p.Name, nil
		}
	}
	return "", nil
}

func (s *Service) keep(a *Application) error {
	return s.DB.Update(func(tx *store.Tx) error { return applications.Put(tx, a.ID, *a) })
}

// offerSetUp sends the link for the first password; an earlier one serves no more. It returns the link.
func (s *Service) offerSetUp(tx *store.Tx, a *Application, mail, title string) (string, error) {
	if a.Link != "" {
		if err := tickets.Delete(tx, a.Link); err != nil {
			return "", err
		}
	}
	a.State, a.LinkUntil = Ready, s.Now().UTC().Add(setUpWithin)
	token, err := s.newToken(tx, a.ID, toSetUp, a.LinkUntil)
	if err != nil {
		return "", err
	}
	a.Link = hashed(token)
	link := s.link(PathSetUp, "token", token)
	if a.Mail != "" {
		err = s.mail(tx, a.Mail, a.Language, mail, a.LinkUntil, map[string]string{"name": a.FullName(), "group": title,
			"login": a.Person, "link": link})
	}
	return link, errors.Join(err, applications.Put(tx, a.ID, *a))
}

// Welcome sends a person who is in the directory, such as by an import, a link for her first password, or another one
// if the first was too old. Officers may. It returns the link too, for a letter to whoever has no mail.
func (s *Service) Welcome(ctx context.Context, officer, person string) (string, error) {
	holds, err := s.Directory.HoldsOffice(ctx, officer, s.Now())
	if err == nil && !holds {
		err = ErrForbidden
	}
	if err != nil {
		return "", err
	}
	p, err := s.Directory.Person(ctx, person)
	if err != nil {
		return "", err
	}
	var link string
	err = s.DB.Update(func(tx *store.Tx) error {
		a := Application{ID: newID(), Created: s.Now().UTC(), By: officer}
		err := applications.All(tx, "", func(_ string, other Application) bool {
			if other.State == Ready && other.Person == person {
				a = other
			}
			return a.Person == ""
		})
		if err != nil {
			return err
		}
		a.Person, a.Given, a.Family, a.Mail, a.Language = p.Name, p.Display, "", p.Address(), p.Language
		a.New = false // the officer sees the link too
		if link, err = s.offerSetUp(tx, &a, "welcome", ""); err != nil {
			return err
		}
		return s.record(tx, officer, "welcomed", &a)
	})
	return link, err
}

// WelcomeAdded welcomes everybody whom an import has added. It returns the names of those who have no address, and need a
// letter.
func (s *Service) WelcomeAdded(ctx context.Context, officer string, r directory.Report) ([]string, error) {
	var letters []string
	for _, l := range r.Lines {
		if l.Fate != directory.Added || l.Group {
			continue
		}
		if _, err := s.Welcome(ctx, officer, l.Name); err != nil {
			return letters, err
		}
		p, err := s.Directory.Person(ctx, l.Name)
		if err != nil {
			return letters, err
		}
		if p.Address() == "" {
			letters = append(letters, l.Name)
		}
	}
	return letters, nil
}

// SetUpFor returns the name of the person whose link for the first password it is. ErrLink: used, too old, or her account
// is not active.
func (s *Service) SetUpFor(ctx context.Context, token string) (string, error) {
	var a Application
	err := s.DB.View(func(tx *store.Tx) (err error) {
		a, err = s.find(tx, token, toSetUp)
		return err
	})
	if err != nil {
		return "", err
	}
	p, err := s.Directory.Person(ctx, a.Person)
	if errors.Is(err, directory.ErrNotFound) || err == nil && !p.Active {
		return "", ErrLink
	}
	return a.Person, err
}

// ProvenMail is the address that a link for the first password was sent to; empty if others have seen the link too.
func (s *Service) ProvenMail(token string) (address string, err error) {
	err = s.DB.View(func(tx *store.Tx) error {
		a, err := s.find(tx, token, toSetUp)
		if a.New {
			address = a.Mail
		}
		return err
	})
	return address, err
}

// SetUp sets the first password, and ends the way in. It returns whose it is. directory.ErrWeak: another one is needed.
func (s *Service) SetUp(ctx context.Context, token, password string) (string, error) {
	return s.SetUpWith(ctx, token, func(person string) error { return s.Directory.SetPassword(ctx, person, password) })
}

// SetUpWith calls give, which gives the person whose link it is something to log in with, and ends the way in. Then the link
// serves no more; after an error of give it does.
func (s *Service) SetUpWith(ctx context.Context, token string, give func(person string) error) (string, error) {
	s.one.Lock()
	defer s.one.Unlock()
	person, err := s.SetUpFor(ctx, token)
	if err == nil {
		err = give(person)
	}
	if err != nil {
		return "", err
	}
	return person, s.DB.Update(func(tx *store.Tx) error {
		a, err := s.find(tx, token, toSetUp)
		if err != nil {
			return err
		}
		return errors.Join(tickets.Delete(tx, hashed(token)), s.record(tx, a.Person, "ready", &a), s.end(tx, &a, Done))
	})
}
