package onboard

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"allotment/portal/directory"
	"allotment/portal/store"
)

// every is how often Run looks at what has become old.
const every = 10 * time.Minute

// Run does what is due without anybody asking, until ctx ends.
func (s *Service) Run(ctx context.Context) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		if err := s.Tick(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, directory.ErrUnavailable) {
			s.Log.Error("cannot see to all newcomers", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Tick reminds those who have not answered, asks the officers, finishes what a power cut interrupted, and forgets what is
// over.
func (s *Service) Tick(ctx context.Context) error {
	all, err := s.list(func(*Application) bool { return true })
	if err != nil {
		return err
	}
	errs := []error{s.DB.Update(s.forget)}
	for _, a := range all {
		switch a.State {
		case Accepted:
			errs = append(errs, s.carryOut(ctx, a.ID))
		case Waiting, Ready:
			gone, err := s.gone(ctx, a.Person)
			switch {
			case err != nil:
				errs = append(errs, err)
			case gone:
				errs = append(errs, s.Forget(a.Person))
			case a.State == Waiting:
				errs = append(errs, s.hurry(ctx, a))
			}
		}
	}
	return errors.Join(errs...)
}

// gone tells whether the directory does not know a person any more.
func (s *Service) gone(ctx context.Context, person string) (bool, error) {
	if person == "" {
		return false, nil
	}
	_, err := s.Directory.Person(ctx, person)
	if errors.Is(err, directory.ErrNotFound) {
		return true, nil
	}
	return false, err
}

// Forget removes what a person who is deleted has asked for, and her link for a first password, so that neither serves whoever
// gets her name later.
func (s *Service) Forget(person string) error {
	return s.DB.Update(func(tx *store.Tx) error {
		var errs []error
		err := applications.All(tx, "", func(id string, a Application) bool {
			if a.Person == person && (a.State == Waiting || a.State == Ready) {
				errs = append(errs, applications.Delete(tx, id))
				if a.Link != "" {
					errs = append(errs, tickets.Delete(tx, a.Link))
				}
			}
			return true
		})
		return errors.Join(append(errs, err)...)
	})
}

// hurry does what the age of a question asks for.
func (s *Service) hurry(ctx context.Context, a Application) error {
	now := s.Now().UTC()
	age := now.Sub(a.Asked)
	switch {
	case age >= answerWithin:
		return s.giveUp(ctx, a)
	case age >= escalateAfter && a.Escalated.IsZero():
		officers, err := s.officers(ctx)
		if err != nil {
			return err
		}
		return s.askAgain(ctx, a, "escalated", officers, func(a *Application) { a.Escalated, a.Reminded = now, now })
	case age >= remindAfter && a.Reminded.IsZero():
		owners, err := s.owners(ctx, a.Group)
		if err != nil {
			return err
		}
		return s.askAgain(ctx, a, "remind", owners, func(a *Application) { a.Reminded = now })
	}
	return nil
}

func (s *Service) askAgain(ctx context.Context, a Application, mail string, people []directory.Person, note func(*Application)) error {
	ask, err := s.question(ctx, &a, mail, people)
	if err != nil {
		return err
	}
	return s.whileWaiting(a, func(tx *store.Tx, a *Application) error {
		note(a)
		return errors.Join(ask(tx), applications.Put(tx, a.ID, *a))
	})
}

// giveUp ends what nobody has answered.
func (s *Service) giveUp(ctx context.Context, a Application) error {
	title, err := s.title(ctx, a.Group)
	if err != nil {
		return err
	}
	return s.whileWaiting(a, func(tx *store.Tx, a *Application) error {
		return errors.Join(s.record(tx, "", "unanswered", a), s.refuse(tx, a, "unanswered", title, ""))
	})
}

// whileWaiting calls f if nobody has decided or moved the application since it was read.
func (s *Service) whileWaiting(read Application, f func(*store.Tx, *Application) error) error {
	return s.DB.Update(func(tx *store.Tx) error {
		a, err := get(tx, read.ID)
		if errors.Is(err, ErrNotFound) || err == nil && (a.State != Waiting || !a.Asked.Equal(read.Asked)) {
			return nil
		}
		if err != nil {
			return err
		}
		return f(tx, &a)
	})
}

// forget removes what is over: links, applications, invitations.
func (s *Service) forget(tx *store.Tx) error {
	now := s.Now()
	return errors.Join(
		removeIf(tx, tickets, func(t ticket) bool { return now.After(t.Until) }),
		removeIf(tx, invitations, func(i Invitation) bool { return now.Sub(i.Until) > keepEnded }),
		removeIf(tx, applications, func(a Application) bool {
			switch a.State {
			case Unconfirmed:
				return now.Sub(a.Created) > confirmWithin
			case Ready:
				return now.Sub(a.LinkUntil) > keepEnded // the account stays
			case Done, Refused:
				return now.Sub(a.Ended) > keepEnded
			}
			return false
		}))
}

func removeIf[T any](tx *store.Tx, b store.Bucket[T], over func(T) bool) error {
	var failure error
	err := b.All(tx, "", func(key string, v T) bool {
		if over(v) {
			failure = b.Delete(tx, key)
		}
		return failure == nil
	})
	return errors.Join(err, failure)
}

// list returns those that are wanted, the oldest first.
func (s *Service) list(wanted func(*Application) bool) ([]Application, error) {
	var found []Application
	err := s.DB.View(func(tx *store.Tx) error {
		return applications.All(tx, "", func(_ string, a Application) bool {
			if wanted(&a) {
				found = append(found, a)
			}
			return true
		})
	})
	slices.SortStableFunc(found, func(a, b Application) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return found, err
}

// Pending lists what waits for a yes or no that a person may give, the oldest first: for officers all of it.
func (s *Service) Pending(ctx context.Context, person string) ([]Application, error) {
	officer, err := s.Directory.HoldsOffice(ctx, person, s.Now())
	if err != nil {
		return nil, err
	}
	owned, err := s.Directory.GroupsOwnedBy(ctx, person)
	if err != nil {
		return nil, err
	}
	return s.list(func(a *Application) bool {
		return a.State == Waiting && (officer || slices.ContainsFunc(owned, func(g directory.Group) bool { return g.Name == a.Group }))
	})
}

// Unfinished lists, for officers, those who have a link for their first password and have not used it.
func (s *Service) Unfinished() ([]Application, error) {
	return s.list(func(a *Application) bool { return a.State == Ready })
}

// AskedBy lists what a member has asked for and nobody has answered yet.
func (s *Service) AskedBy(person string) ([]Application, error) {
	return s.list(func(a *Application) bool { return a.State == Waiting && a.Person == person })
}
