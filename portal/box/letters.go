package box

import (
	"context"
	"fmt"
	"slices"
	"time"

	"allotment/api"
	"allotment/portal/directory"
	"allotment/portal/mail"
	"allotment/portal/store"
)

// How letters about updates go out.
const (
	lettersEvery = 10 * time.Minute
	freshLetter  = 7 * 24 * time.Hour // older ones were for officers of then
)

// letters are those that were mailed, by number of the update and whether it was taken back by hand, and when.
var letters = store.NewBucket[time.Time]("box-letters")

func letterKey(a api.UpdateAttempt) string { return fmt.Sprintf("%06d-%t", a.Number, a.ByHand) }

// mailLettersOften mails the letters about updates to all officers, until ctx ends.
func (p *Pages) mailLettersOften(ctx context.Context) {
	tick := time.NewTicker(lettersEvery)
	defer tick.Stop()
	for {
		if err := p.mailLetters(ctx); err != nil {
			p.deps.Log.Warn("cannot mail the letters about updates", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// mailLetters mails each letter once, in the language of each officer. What is kept of that goes back with all data when an
// update is undone, so the letter that the update had come is not mailed any more once there is one that it was taken back.
func (p *Pages) mailLetters(ctx context.Context) error {
	all, err := p.deps.Box.UpdateHistory(ctx)
	if err != nil || len(all) == 0 {
		return err
	}
	now := p.deps.Clock()
	officers, err := p.deps.Directory.Officers(ctx, now)
	officers = slices.DeleteFunc(officers, func(o directory.Person) bool {
		_, err := mail.CheckAddress(o.Address())
		return err != nil
	})
	if err != nil || len(officers) == 0 { // a box without officers has nobody to tell yet
		return err
	}
	return p.deps.DB.Update(func(tx *store.Tx) error {
		for _, a := range slices.Backward(all) { // the newest is the first
			over := slices.ContainsFunc(all, func(b api.UpdateAttempt) bool { return b.Number == a.Number && b.ByHand && !a.ByHand })
			if _, err := letters.Get(tx, letterKey(a)); err == nil || over || now.Sub(a.Ended) > freshLetter {
				continue
			}
			for _, o := range officers {
				m := mail.Message{To: o.Address(), Language: o.Language,
					Subject: p.Say(o.Language, a.Subject), Text: p.Say(o.Language, a.Letter)}
				if err := p.mail.SendIn(tx, m); err != nil {
					return fmt.Errorf("cannot mail %q to %q: %w", a.Subject, o.Name, err)
				}
			}
			if err := letters.Put(tx, letterKey(a), now); err != nil {
				return err
			}
		}
		return nil
	})
}
