package onboard

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"allotment/portal/audit"
	"allotment/portal/directory"
	"allotment/portal/store"
)

// Invitation is a link that leads to the form of registration with a group chosen. One with an address is personal: who
// registers with that address needs no further yes, since By has said it.
type Invitation struct {
	Token   string    `json:"token"`
	Group   string    `json:"group"`
	By      string    `json:"by"`             // who may decide about the group
	Mail    string    `json:"mail,omitempty"` // of the one who is invited; empty: everybody who has the link, such as on a poster
	Name    string    `json:"name,omitempty"` // of the one who is invited
	Uses    int       `json:"uses"`           // left; of a poster, 0 is any number
	Until   time.Time `json:"until"`
	Created time.Time `json:"created"`
}

var invitations = store.NewBucket[Invitation]("onboard-invitations")

// longestInvitation bounds what hangs on a wall somewhere.
const longestInvitation = 366 * 24 * time.Hour

// Invite makes an invitation and returns its link; a personal one is mailed too. Token and Created are not looked at.
func (s *Service) Invite(ctx context.Context, i Invitation) (string, error) {
	may, err := s.MayDecide(ctx, i.By, i.Group)
	if err == nil && !may {
		err = ErrForbidden
	}
	if err != nil {
		return "", err
	}
	title, err := s.existing(ctx, i.Group)
	if err != nil {
		return "", err
	}
	now := s.Now().UTC()
	i.Token, i.Created = strings.ToLower(rand.Text()), now
	if i.Mail, err = directory.CleanMail(i.Mail); err != nil {
		return "", err
	}
	if i.Name, err = directory.CleanText(i.Name); err != nil {
		return "", err
	}
	if i.Until.IsZero() || i.Until.After(now.Add(longestInvitation)) {
		i.Until = now.Add(longestInvitation)
	}
	if i.Mail != "" {
		i.Uses = 1
	}
	if i.Uses < 0 || !i.Until.After(now) {
		return "", fmt.Errorf("cannot invite %d times until %s", i.Uses, i.Until)
	}
	p, err := s.Directory.Person(ctx, i.By)
	if err != nil {
		return "", err
	}
	link := s.InvitationLink(i.Token)
	return link, s.DB.Update(func(tx *store.Tx) error {
		var sent error
		if i.Mail != "" {
			sent = s.mail(tx, i.Mail, p.Language, "invitation", i.Until, map[string]string{"name": cmp.Or(i.Name, i.Mail),
				"member": p.Display, "group": title, "link": link})
		}
		return errors.Join(sent, invitations.Put(tx, i.Token, i), s.audit.RecordIn(tx, audit.Entry{Kind: "onboard.invited",
			Actor: i.By, Subject: cmp.Or(i.Name, i.Mail), Args: map[string]string{"group": i.Group}}))
	})
}

// InvitationLink is the address of an invitation.
func (s *Service) InvitationLink(token string) string { return s.link(PathInvite, "invitation", token) }

// Invitation returns one that is still good. ErrLink: it is not.
func (s *Service) Invitation(token string) (i Invitation, err error) {
	err = s.DB.View(func(tx *store.Tx) error {
		i, err = s.good(tx, token)
		return err
	})
	return i, err
}

func (s *Service) good(tx *store.Tx, token string) (Invitation, error) {
	if token == "" {
		return Invitation{}, ErrLink
	}
	i, err := invitations.Get(tx, token)
	if errors.Is(err, store.ErrNotFound) || err == nil && (s.Now().After(i.Until) || i.Uses < 0) {
		return Invitation{}, ErrLink
	}
	return i, err
}

// Invitations lists those of the groups that a person decides about, the newest first.
func (s *Service) Invitations(ctx context.Context, person string) ([]Invitation, error) {
	officer, err := s.Directory.HoldsOffice(ctx, person, s.Now())
	if err != nil {
		return nil, err
	}
	owned, err := s.Directory.GroupsOwnedBy(ctx, person)
	if err != nil {
		return nil, err
	}
	var found []Invitation
	err = s.DB.View(func(tx *store.Tx) error {
		return invitations.All(tx, "", func(token string, i Invitation) bool {
			mine := officer || slices.ContainsFunc(owned, func(g directory.Group) bool { return g.Name == i.Group })
			if _, err := s.good(tx, token); mine && err == nil {
				found = append(found, i)
			}
			return true
		})
	})
	slices.SortFunc(found, func(a, b Invitation) int { return b.Created.Compare(a.Created) })
	return found, err
}

// Withdraw ends an invitation.
func (s *Service) Withdraw(ctx context.Context, person, token string) error {
	i, err := s.Invitation(token)
	if err != nil {
		return err
	}
	may, err := s.MayDecide(ctx, person, i.Group)
	if err == nil && !may {
		err = ErrForbidden
	}
	if err != nil {
		return err
	}
	return s.DB.Update(func(tx *store.Tx) error { return invitations.Delete(tx, token) })
}

// vouched tells whether somebody who may decide about the group has invited this very address to it.
func (s *Service) vouched(ctx context.Context, token string, a *Application) (bool, error) {
	i, err := s.Invitation(token)
	if errors.Is(err, ErrLink) { // too late for it: she asks like others
		return false, nil
	}
	if err != nil {
		return false, err
	}
	a.Invited = i.By
	if !strings.EqualFold(i.Mail, a.Mail) || i.Group != a.Group {
		return false, nil
	}
	by, err := s.Directory.Person(ctx, i.By)
	if errors.Is(err, directory.ErrNotFound) || err == nil && !by.Active {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return s.MayDecide(ctx, i.By, i.Group)
}

// useInvitation counts one use. The last one ends it.
func (s *Service) useInvitation(tx *store.Tx, token string) error {
	i, err := s.good(tx, token)
	if err != nil || i.Uses == 0 {
		return err
	}
	if i.Uses--; i.Uses == 0 {
		return invitations.Delete(tx, token)
	}
	return invitations.Put(tx, token, i)
}

// Join lets a member whom a personal invitation to her own address names into the group. ErrForbidden: it is for
// another address; she may ask by JoinAsk.
func (s *Service) Join(ctx context.Context, person, token string) error {
	p, err := s.Directory.Person(ctx, person)
	if err != nil {
		return err
	}
	a := Application{ID: newID(), State: Accepted, Person: person, Given: p.Display, Mail: p.Address(), Language: p.Language,
		Created: s.Now().UTC()}
	i, err := s.Invitation(token)
	if err != nil {
		return err
	}
	a.Group = i.Group
	vouched, err := s.vouched(ctx, token, &a)
	if err == nil && !vouched {
		err = ErrForbidden
	}
	if err != nil {
		return err
	}
	a.By = i.By
	err = s.DB.Update(func(tx *store.Tx) error {
		return errors.Join(s.useInvitation(tx, token), applications.Put(tx, a.ID, a))
	})
	if err == nil {
		s.carryOutOrLater(ctx, a.ID)
	}
	return err
}
