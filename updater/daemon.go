package updater

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"path/filepath"
	"time"

	"allotment/image"
	"allotment/updater/attempt"
	"allotment/updater/config"
	"allotment/updater/fetch"
	"allotment/updater/install"
	"allotment/updater/schedule"
	"allotment/updater/trust"
)

// How often things are done.
const (
	checkEvery = 4 * time.Hour    // the repository is asked; a quarter more or less
	retryAfter = 20 * time.Minute // after something failed; a quarter more or less
	stageTime  = 6 * time.Hour    // of staging, until it is asked whether there is a newer release; then it goes on
	believed   = 24 * time.Hour   // an offer holds while the repository cannot be asked
)

// Supervisor does what touches modules: an api.Client.
type Supervisor interface {
	// RestartUpdate tries the release that is staged: it returns why it cannot be, or the machine resets.
	RestartUpdate(context.Context) error
	// TidyUpdates removes the copies of data that no way back needs any more.
	TidyUpdates(context.Context) error
}

// Options are what a daemon works with.
type Options struct {
	Install    install.Config
	Folder     string // of the status file: Config.Run
	Supervisor Supervisor
	Source     func(schedule.Policy) fetch.Source // where releases come from; nil if from nowhere
	Zone       func() *time.Location              // the organisation's
	Now        func() time.Time
	Log        *slog.Logger
}

// Daemon finds, fetches and stages releases, and asks for the restart.
type Daemon struct {
	Options
	dir     string // of the updater on the state partition
	seed    []byte
	status  config.Status
	offer   *trust.Offer // of the last check that succeeded; nil: nothing was offered
	checked time.Time    // when that was
	next    time.Time    // when the repository is to be asked again
}

// New makes a daemon. A device that has no place in the waves yet draws it.
func New(o Options) (*Daemon, error) {
	d := &Daemon{Options: o, dir: install.Dir(o.Install.State)}
	var err error
	d.seed, err = schedule.Seed(d.dir, rand.Reader)
	return d, err
}

// Run works until ctx ends. A value of wake has it look at once whether something is to be done, and ask the repository; it ends
// what is being fetched if officers do not want that any more.
func (d *Daemon) Run(ctx context.Context, wake <-chan struct{}) {
	for ctx.Err() == nil {
		at := d.guarded(ctx, wake)
		t := time.NewTimer(max(at.Sub(d.Now()), time.Second))
		select {
		case <-ctx.Done():
		case <-wake:
			d.next = time.Time{}
		case <-t.C:
		}
		t.Stop()
	}
}

// guarded does a round, and ends it early if officers do not want any more what it does. If they want anything else, there is
// another round at once.
func (d *Daemon) guarded(ctx context.Context, wake <-chan struct{}) time.Time {
	ctx, stop := context.WithTimeout(ctx, stageTime)
	defer stop()
	policy, done, again := d.policy(), make(chan time.Time, 1), false
	go func() { done <- d.round(ctx, policy) }()
	for {
		select {
		case <-wake:
			again = true
			if unwanted(policy, d.policy()) {
				stop()
			}
		case at := <-done:
			if again {
				d.next = time.Time{}
				return d.Now()
			}
			return at
		}
	}
}

// unwanted tells whether a round that was begun under a policy must not go on under the next.
func unwanted(was, is schedule.Policy) bool {
	return is.Paused || is.Metered && !is.Now && !was.Now || is.Source != was.Source || is.Channel != was.Channel
}

// policy is what officers want. What cannot be read is what is usual, but nothing is fetched by it.
func (d *Daemon) policy() schedule.Policy {
	p, err := schedule.LoadPolicy(d.dir)
	if err != nil {
		d.Log.Error("updates are paused", "error", err)
		p.Paused = true
	}
	return p
}

// round does all that is to be done now, and returns when there is more.
func (d *Daemon) round(ctx context.Context, p schedule.Policy) time.Time {
	at, err := d.work(ctx, p)
	switch {
	case ctx.Err() != nil:
		return d.Now()
	case err == nil:
		return at
	}
	d.Log.Warn("no update for now", "error", err)
	at = d.Now().Add(vary(retryAfter))
	d.show(config.Status{State: config.Failed, Text: "The last try to update did not succeed; there will be another.", Version: d.offered(),
		Reason: sentence(err), NextCheck: at.Unix()})
	return at
}

// work is the life of an update on this side of the restart.
func (d *Daemon) work(ctx context.Context, p schedule.Policy) (time.Time, error) {
	a, err := attempt.Load(d.dir)
	switch {
	case err != nil:
		d.Log.Error("beginning a new record of updates", "error", err)
	case a != nil && (a.Stage == attempt.Armed || a.Stage == attempt.Trial || a.Stage == attempt.Undoing):
		return d.later(), nil // it is the supervisor's turn
	default:
		d.tidy(ctx, a)
	}
	if err := install.Describe(d.Install); err != nil {
		return d.later(), err
	}
	source := d.Source(p)
	if source == nil {
		d.show(config.Status{State: config.Off, Text: "This system does not know where updates come from."})
		return d.later(), nil
	}
	if err := d.check(ctx, p, source); err != nil {
		return d.later(), err
	}
	if why := d.refusal(); why != "" {
		d.show(config.Status{State: config.Idle, Text: why})
		return d.later(), errors.Join(d.forget(a), d.served(p))
	}
	due, why := d.due(p)
	if !d.mayFetch(p, due) {
		d.show(config.Status{State: config.Waiting, Text: fmt.Sprintf("Version %s can be had.", d.offered()), Version: d.offered(), Due: unix(due),
			Reason: why})
		return d.soonest(d.turn(), due), nil
	}
	if err := d.stage(ctx, a, source); err != nil {
		return d.later(), err
	}
	p = d.policy() // staging may have taken hours
	if due, why = d.due(p); due.IsZero() || due.After(d.Now()) {
		d.show(config.Status{State: config.Ready, Text: fmt.Sprintf("Version %s is ready to be tried.", d.offered()), Version: d.offered(),
			Due: unix(due), Reason: why})
		return d.soonest(due), nil
	}
	return d.restart(ctx, p)
}

// check asks the repository which release this box shall have, if it is time to. If it cannot be asked, what it said lately holds.
func (d *Daemon) check(ctx context.Context, p schedule.Policy, source fetch.Source) error {
	if d.Now().Before(d.next) {
		return nil
	}
	d.show(config.Status{State: config.Checking, Text: "The publisher is asked for a new version.", Version: d.offered()})
	offer, err := d.ask(ctx, p, source)
	if err != nil {
		if d.offer != nil && d.Now().Sub(d.checked) < believed {
			d.Log.Warn("going by what the publisher said before", "error", err)
			d.next = d.Now().Add(vary(retryAfter))
			return nil
		}
		return err
	}
	d.offer, d.checked, d.next = offer, d.Now(), d.Now().Add(vary(checkEvery))
	return nil
}

func (d *Daemon) ask(ctx context.Context, p schedule.Policy, source fetch.Source) (*trust.Offer, error) {
	m := d.Install.Manifest
	client, err := trust.New(trust.Config{Dir: filepath.Join(d.dir, "trust"), Root: []byte(m.Update.Root), Source: source, Now: d.Now})
	if err == nil {
		err = client.Refresh(ctx)
	}
	if err != nil {
		return nil, err
	}
	channel := m.Update.Channel
	if p.Channel != "" {
		channel = p.Channel
	}
	return client.Offer(ctx, channel, m.Name, m.Arch)
}

// due is when the release is to be tried, and why then; zero if only officers can say.
func (d *Daemon) due(p schedule.Policy) (time.Time, string) {
	return schedule.Due(p, d.offer.Wave, d.seed, d.offer.Digest, d.Now(), d.Zone())
}

func (d *Daemon) turn() time.Time { return schedule.Turn(d.offer.Wave, d.seed, d.offer.Digest) }

// mayFetch tells whether the release may be fetched and written: from the box's turn on, so that it is ready when the night
// comes.
func (d *Daemon) mayFetch(p schedule.Policy, due time.Time) bool {
	return !due.IsZero() && (!due.After(d.Now()) || !d.turn().After(d.Now()))
}

// restart asks for the restart in which the release is tried.
func (d *Daemon) restart(ctx context.Context, p schedule.Policy) (time.Time, error) {
	d.show(config.Status{State: config.Restarting, Text: fmt.Sprintf("The system restarts to try version %s.", d.offered()), Version: d.offered()})
	if err := d.served(p); err != nil {
		return d.later(), err
	}
	if err := d.Supervisor.RestartUpdate(ctx); err != nil {
		return d.later(), fmt.Errorf("cannot restart to try version %s: %w", d.offered(), err)
	}
	return d.Now().Add(retryAfter), nil // the reset comes before
}

// served takes back the wish for an update now, which holds once.
func (d *Daemon) served(p schedule.Policy) error {
	if !p.Now {
		return nil
	}
	p.Now = false
	return p.Save(d.dir)
}

// offered is the version that is offered, if any.
func (d *Daemon) offered() image.Version {
	if d.offer == nil {
		return ""
	}
	return d.offer.Release.Version
}

// later is when the repository is to be asked again.
func (d *Daemon) later() time.Time {
	if d.next.After(d.Now()) {
		return d.next
	}
	return d.Now().Add(vary(checkEvery))
}

// soonest is the first of some times that are to come, or when the repository is to be asked again.
func (d *Daemon) soonest(times ...time.Time) time.Time {
	at := d.later()
	for _, t := range times {
		if t.After(d.Now()) && t.Before(at) {
			at = t
		}
	}
	return at
}

// vary is d, a quarter more or less, so that not all boxes do the same at the same time.
func vary(d time.Duration) time.Duration {
	return d - d/4 + mathrand.N(d/2)
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}
