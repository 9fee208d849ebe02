package mail

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"allotment/portal/audit"
	"allotment/portal/store"
)

const (
	firstPause   = time.Minute // after the first failure; each further one doubles it
	longestPause = 4 * time.Hour
	giveUp       = 3 * 24 * time.Hour  // after the first attempt
	attempts     = 20                  // at least, before that, should the clock be put right meanwhile
	keepFailed   = 30 * 24 * time.Hour // for the officers
	perHour      = 20                  // messages to one recipient
	attemptTime  = time.Minute
	longestWait  = 15 * time.Minute // of Run, whatever the clock says
	perRound     = 100
)

// ErrNotFound says that there is no such message in the queue.
var ErrNotFound = store.ErrNotFound

// Item is a message in the queue.
type Item struct {
	ID        string    `json:"id"` // later ones have greater ones
	Message   Message   `json:"message"`
	MessageID string    `json:"message_id"` // without angle brackets
	Queued    time.Time `json:"queued"`
	First     time.Time `json:"first,omitzero"` // first attempt
	Next      time.Time `json:"next"`           // not before then
	Attempts  int       `json:"attempts"`
	Error     string    `json:"error,omitempty"` // of the last attempt
	Failed    time.Time `json:"failed,omitzero"` // when it was given up
}

var (
	waiting = store.NewBucket[Item]("mail-waiting")
	failed  = store.NewBucket[Item]("mail-failed")
	sent    = store.NewBucket[time.Time]("mail-sent") // recipient, NUL, ID of the message: what was handed over in the last hour
)

// Queue is the queue of outgoing mail. It may be used by several goroutines at once; one calls Run.
type Queue struct {
	db      *store.DB
	audit   *audit.Log
	relay   func() Relay
	now     func() time.Time
	log     *slog.Logger
	wake    chan struct{}
	roots   *x509.CertPool // nil: those of the system
	timeout time.Duration

	// Of the goroutine of Run alone.
	failures int       // of the relay, one after the other
	pause    time.Time // until then the relay is left alone
	used     Relay     // by the last round
}

// New is the queue in db. It asks relay before each round, so that a change of the settings counts at once.
func New(db *store.DB, relay func() Relay, now func() time.Time, log *slog.Logger) *Queue {
	return &Queue{db: db, audit: audit.New(db, now), relay: relay, now: now, log: log, wake: make(chan struct{}, 1),
		timeout: attemptTime}
}

// Send puts a message into the queue. ErrMessage: it can never be sent.
func (q *Queue) Send(ctx context.Context, m Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return q.db.Update(func(tx *store.Tx) error { return q.SendIn(tx, m) })
}

// SendIn is Send as a part of a transaction: the message is sent if that counts.
func (q *Queue) SendIn(tx *store.Tx, m Message) error {
	if err := m.check(); err != nil {
		return fmt.Errorf("cannot send mail: %w", err)
	}
	n, err := waiting.Next(tx)
	if err != nil {
		return err
	}
	now := q.now().UTC()
	item := Item{ID: fmt.Sprintf("%016x", n), Message: m, MessageID: newMessageID(q.relay().From), Queued: now, Next: now}
	if err := waiting.Put(tx, item.ID, item); err != nil {
		return err
	}
	q.Wake() // Run begins with a transaction that writes, so it waits until this one has ended
	return nil
}

// Wake has Run look at the queue and at the relay's settings now.
func (q *Queue) Wake() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Pending lists what waits, the oldest first.
func (q *Queue) Pending() ([]Item, error) { return q.list(waiting) }

// Failed lists what was given up in the last 30 days, the oldest first.
func (q *Queue) Failed() ([]Item, error) { return q.list(failed) }

func (q *Queue) list(b store.Bucket[Item]) ([]Item, error) {
	var items []Item
	err := q.db.View(func(tx *store.Tx) error {
		return b.All(tx, "", func(_ string, i Item) bool {
			items = append(items, i)
			return true
		})
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list mail: %w", err)
	}
	return items, nil
}

// Retry tries a message again now, whether it waits or was given up.
func (q *Queue) Retry(id string) error {
	err := q.db.Update(func(tx *store.Tx) error {
		item, err := waiting.Get(tx, id)
		if errors.Is(err, store.ErrNotFound) {
			if item, err = failed.Get(tx, id); err == nil {
				err = failed.Delete(tx, id)
			}
		}
		if err != nil {
			return err
		}
		item.Next, item.First, item.Failed = q.now().UTC(), time.Time{}, time.Time{}
		return waiting.Put(tx, id, item)
	})
	if err != nil {
		return fmt.Errorf("cannot try mail %q again: %w", id, err)
	}
	q.Wake()
	return nil
}

// Remove forgets a message, whether it waits or was given up: somebody has printed it, or nobody wants it any more.
func (q *Queue) Remove(id string) error {
	err := q.db.Update(func(tx *store.Tx) error {
		return errors.Join(waiting.Delete(tx, id), failed.Delete(tx, id))
	})
	if err != nil {
		return fmt.Errorf("cannot remove mail %q: %w", id, err)
	}
	return nil
}

// Run delivers until ctx ends.
func (q *Queue) Run(ctx context.Context) {
	for {
		next, err := q.deliver(ctx)
		if err != nil && ctx.Err() == nil {
			q.log.Error("the queue of mail", "error", err)
			next = q.now().Add(firstPause)
		}
		wait := longestWait
		if !next.IsZero() {
			wait = min(max(next.Sub(q.now()), time.Second), longestWait)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-q.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// deliver is one round: it hands over what is due and says when the next round is; the zero time: when woken.
func (q *Queue) deliver(ctx context.Context) (time.Time, error) {
	due, next, err := q.due()
	relay := q.relay()
	if err != nil || relay.Host == "" {
		return time.Time{}, err
	}
	if relay != q.used {
		q.used, q.failures, q.pause = relay, 0, time.Time{}
	}
	if len(due) == 0 {
		return next, nil
	}
	if q.now().Before(q.pause) {
		return q.pause, nil
	}
	var c *connection
	defer func() {
		if c != nil {
			c.close()
		}
	}()
	for n, item := range due {
		if c == nil {
			if c, err = connect(ctx, relay, q.roots, q.timeout); err != nil {
				return q.isDown(ctx, due[n:], err)
			}
		}
		m, err := item.compose(relay)
		what := refused
		if err == nil {
			what, err = c.send(m)
		}
		if what == down {
			return q.isDown(ctx, due[n:], err)
		}
		q.failures = 0
		if err := q.settle(what, err, item); err != nil {
			return time.Time{}, err
		}
		if what != delivered {
			c.close()
			c = nil
		}
	}
	return q.now(), nil // there may be more
}

// isDown leaves the relay alone for a while, and says until when.
func (q *Queue) isDown(ctx context.Context, due []Item, why error) (time.Time, error) {
	if ctx.Err() != nil {
		return time.Time{}, ctx.Err()
	}
	q.pause = q.now().Add(pauseAfter(q.failures))
	q.failures++
	q.log.Warn("the mail relay does not take mail", "error", why, "next", q.pause)
	return q.pause, q.settle(down, why, due...)
}

func pauseAfter(failures int) time.Duration {
	return min(firstPause<<min(failures, 10), longestPause)
}

// due clears away what is over, and returns what is to be handed over now, and when the next is.
func (q *Queue) due() (due []Item, next time.Time, err error) {
	now := q.now().UTC()
	err = q.db.Update(func(tx *store.Tx) error {
		if err := q.clear(tx, now); err != nil {
			return err
		}
		var failure error
		recent := map[string]int{}
		err := waiting.All(tx, "", func(_ string, i Item) bool {
			switch {
			case !i.Message.Until.IsZero() && now.After(i.Message.Until):
				failure = q.fail(tx, i, "its time is over", now)
				return failure == nil
			case i.Next.After(now) && i.Next.Sub(now) <= longestPause: // further away: the clock was wrong
			default:
				if failure = count(tx, recent, i.Message.To); failure != nil {
					return false
				}
				if recent[recipient(i.Message.To)]++; recent[recipient(i.Message.To)] <= perHour {
					due = append(due, i)
					return len(due) < perRound
				}
				i.Next = now.Add(time.Hour / perHour)
			}
			if next.IsZero() || i.Next.Before(next) {
				next = i.Next
			}
			return true
		})
		return errors.Join(failure, err)
	})
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("cannot see which mail is due: %w", err)
	}
	return due, next, nil
}

// recipient is an address as the limit counts it.
func recipient(to string) string { return strings.ToLower(to) + "\x00" }

// count adds up, once, what a recipient got in the last hour.
func count(tx *store.Tx, recent map[string]int, to string) error {
	to = recipient(to)
	if _, known := recent[to]; known {
		return nil
	}
	recent[to] = 0
	return sent.All(tx, to, func(string, time.Time) bool {
		recent[to]++
		return true
	})
}

// clear forgets what was handed over an hour ago or more, and failures that officers have had time to see. Times in the
// future are of a wrong clock.
func (q *Queue) clear(tx *store.Tx, now time.Time) error {
	var failure error
	if err := sent.All(tx, "", func(key string, at time.Time) bool {
		if now.Sub(at) >= time.Hour || at.After(now) {
			failure = sent.Delete(tx, key)
		}
		return failure == nil
	}); err != nil || failure != nil {
		return errors.Join(err, failure)
	}
	err := failed.All(tx, "", func(id string, i Item) bool {
		if now.Sub(i.Failed) >= keepFailed {
			failure = failed.Delete(tx, id)
		}
		return failure == nil
	})
	return errors.Join(err, failure)
}

// settle keeps what became of an attempt to hand the items over.
func (q *Queue) settle(what fate, why error, items ...Item) error {
	err := q.db.Update(func(tx *store.Tx) error {
		for _, i := range items {
			if err := q.settleOne(tx, what, why, i); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot keep what became of mail: %w", err)
	}
	return nil
}

func (q *Queue) settleOne(tx *store.Tx, what fate, why error, i Item) error {
	now := q.now().UTC()
	if _, err := waiting.Get(tx, i.ID); errors.Is(err, store.ErrNotFound) {
		return nil // removed meanwhile
	}
	if what == delivered {
		return errors.Join(waiting.Delete(tx, i.ID), sent.Put(tx, recipient(i.Message.To)+i.ID, now))
	}
	if i.First.IsZero() {
		i.First = now
	}
	i.Next = now.Add(pauseAfter(i.Attempts))
	i.Attempts++
	i.Error = why.Error()
	if what == refused || now.Sub(i.First) >= giveUp && i.Attempts >= attempts {
		return q.fail(tx, i, i.Error, now)
	}
	return waiting.Put(tx, i.ID, i)
}

// fail gives a message up and tells the officers.
func (q *Queue) fail(tx *store.Tx, i Item, why string, now time.Time) error {
	i.Failed, i.Error = now, why
	return errors.Join(waiting.Delete(tx, i.ID), failed.Put(tx, i.ID, i),
		q.audit.RecordIn(tx, audit.Entry{Kind: "mail.failed", Subject: i.Message.To,
			Args: map[string]string{"line": i.Message.Subject}}))
}
