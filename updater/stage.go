package updater

import (
	"context"
	"fmt"
	"strings"
	"time"

	"allotment/image"
	"allotment/updater/attempt"
	"allotment/updater/config"
	"allotment/updater/fetch"
	"allotment/updater/history"
	"allotment/updater/install"
)

// refusal says why nothing is to be done about what is offered; empty if something is.
func (d *Daemon) refusal() string {
	runs := d.Install.Running.Version
	if d.offer == nil {
		return fmt.Sprintf("This system is up to date: the publisher has nothing newer than version %s.", runs)
	}
	r := d.offer.Release
	switch newer := r.Version.Compare(runs); {
	case newer == 0:
		return fmt.Sprintf("This system is up to date: version %s runs.", runs)
	case newer < 0:
		return fmt.Sprintf("Version %s runs, which is newer than the %s that the publisher offers.", runs, r.Version)
	}
	bad, err := history.BadReleases(d.dir)
	if err != nil {
		d.Log.Error("releases that failed may be tried again", "error", err)
	}
	for _, b := range bad {
		if b.Release == d.offer.Digest {
			return fmt.Sprintf("Version %s was tried on %s and is not tried again: %s.", r.Version,
				b.Time.In(d.Zone()).Format("2 January 2006"), strings.TrimSuffix(b.Why, "."))
		}
	}
	if _, err := install.Check(d.Install, r); err != nil {
		return fmt.Sprintf("Version %s cannot be installed: %v.", r.Version, err)
	}
	return ""
}

// forget takes back what was staged of a release that is not wanted any more.
func (d *Daemon) forget(a *attempt.Attempt) error {
	if a == nil || a.Stage != attempt.Staged {
		return nil
	}
	a.Stage = attempt.Fetching
	return a.Save(d.dir)
}

// stage installs the release that is offered, unless it is ready.
func (d *Daemon) stage(ctx context.Context, a *attempt.Attempt, source fetch.Source) error {
	if d.same(a) && a.Stage == attempt.Staged {
		return nil
	}
	a, err := d.begin(a)
	if err != nil {
		return err
	}
	s := config.Status{State: config.Fetching, Text: fmt.Sprintf("Version %s is being fetched and written.", d.offered()), Version: d.offered()}
	d.show(s)
	shown := d.Now()
	to, err := install.Stage(ctx, d.Install, d.offer.Release, source, func(done, total int64) {
		if s.Done, s.Total = done, total; d.Now().Sub(shown) >= time.Second {
			shown = d.Now()
			d.show(s)
		}
	})
	if err != nil {
		return err
	}
	a.To = to
	a.Reach(attempt.Staged, d.Now())
	return a.Save(d.dir)
}

// same tells whether the record is of the release that is offered, coming from what runs.
func (d *Daemon) same(a *attempt.Attempt) bool {
	return a != nil && (a.Stage == attempt.Fetching || a.Stage == attempt.Staged) && a.Release == d.offer.Digest &&
		a.From == d.Install.Running
}

// begin records that the release is being had. From now on there is no way back from the update before this one.
func (d *Daemon) begin(a *attempt.Attempt) (*attempt.Attempt, error) {
	if d.same(a) {
		return a, nil
	}
	r := d.offer.Release
	root, err := install.Check(d.Install, r)
	if err != nil {
		return nil, err
	}
	running := d.Install.Running
	next := &attempt.Attempt{Number: d.number(a), From: running, Release: d.offer.Digest, Budget: r.Trial.Seconds,
		To: attempt.System{Version: r.Version, RootHash: root, Slot: install.Other(running.Slot)}}
	next.Reach(attempt.Fetching, d.Now())
	return next, next.Save(d.dir)
}

// number is that of the next attempt. One that came to no end gives its own to the next.
func (d *Daemon) number(a *attempt.Attempt) int {
	switch {
	case a != nil && (a.Stage == attempt.Fetching || a.Stage == attempt.Staged):
		return a.Number
	case a != nil:
		return a.Number + 1
	}
	entries, err := history.All(d.dir)
	if err != nil {
		d.Log.Warn("the history of updates has gaps", "error", err)
	}
	if len(entries) == 0 {
		return 1
	}
	return entries[0].Attempt.Number + 1
}

// tidy removes what is not needed any more. What cannot be removed is no reason to stop.
func (d *Daemon) tidy(ctx context.Context, a *attempt.Attempt) {
	d.warn(d.Supervisor.TidyUpdates(ctx))
	if a != nil && (a.Stage == attempt.Fetching || a.Stage == attempt.Staged) {
		return // staging tidies for itself
	}
	others, err := d.startable()
	if err == nil {
		err = install.Tidy(d.Install, others...)
	}
	d.warn(err)
}

// startable lists the versions that the machine could start.
func (d *Daemon) startable() ([]image.Version, error) {
	b, err := d.Install.Boot()
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return b.Versions()
}

func (d *Daemon) warn(err error) {
	if err != nil {
		d.Log.Warn("cannot tidy up after updates", "error", err)
	}
}
