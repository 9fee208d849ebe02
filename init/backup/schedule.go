package backup

import (
	"context"
	"fmt"
	"time"

	"allotment/api"
)

const (
	nightly     = 1 // o'clock, before the window of updates
	retryAfter  = time.Hour
	proveEvery  = 7 * 24 * time.Hour
	proveRetry  = 20 * time.Hour
	lookEvery   = time.Minute
	settleTime  = 10 * time.Minute // after the start, before the first that is due
	fairAfter   = 36 * time.Hour   // from where on the last good backup is old
	badAfter    = 72 * time.Hour
	proofBadAge = 15 * 24 * time.Hour
	longestRun  = 20 * time.Hour
)

// due is when the next backup is: each night, an hour after one that failed. It is for who holds the lock.
func (s *Service) due(now time.Time, zone *time.Location) time.Time {
	last := s.history.Last
	if last == nil {
		return now
	}
	if !last.OK {
		return last.Time.Add(retryAfter)
	}
	local := last.Time.In(zone)
	next := time.Date(local.Year(), local.Month(), local.Day(), nightly, 0, 0, 0, local.Location()).Add(s.config.Spread)
	for !next.After(last.Time) {
		next = next.AddDate(0, 0, 1)
	}
	return next
}

// proofDue tells whether a proof is to be made, which follows a good backup.
func (s *Service) proofDue(now time.Time) bool {
	h := s.history
	if s.target == nil || h.Good == nil {
		return false
	}
	if h.Proof != nil && now.Sub(h.Proof.Time) < proveRetry {
		return false
	}
	return now.Sub(h.Proven) >= proveEvery
}

// lamp is the backup in one line of health.
func lamp(t *api.BackupTarget, h history, now time.Time) api.Lamp {
	l := api.Lamp{What: "backup"}
	good := h.Since // as old as the wish for one
	if h.Good != nil {
		good = h.Good.Time
	}
	proven := h.Since
	if !h.Proven.IsZero() {
		proven = h.Proven
	}
	switch age := now.Sub(good); {
	case t == nil:
		l.Level, l.Text = api.Fair, "There are no backups: say where they shall go."
	case age >= badAfter:
		l.Level, l.Text = api.Bad, "The last good backup is from "+days(age)+"."
	case h.Proof != nil && !h.Proof.OK:
		l.Level, l.Text = api.Bad, "The newest backup could not be proven: "+h.Proof.Problem
	case now.Sub(proven) >= proofBadAge:
		l.Level, l.Text = api.Bad, fmt.Sprintf("No backup has been proven for %d days.", now.Sub(proven)/(24*time.Hour))
	case h.Last != nil && !h.Last.OK:
		l.Level, l.Text = api.Fair, "The last backup failed, and is tried again: "+h.Last.Problem
	case h.Good == nil:
		l.Level, l.Text = api.Fair, "The first backup has not been made yet."
	case !h.Printed:
		l.Level, l.Text = api.Fair, "The sheet with the backup's key was not printed: without it nobody can restore."
	case age >= fairAfter:
		l.Level, l.Text = api.Fair, "The last good backup is from "+days(age)+"."
	default:
		l.Level, l.Text = api.Good, "The last backup is from "+days(age)+"."
		if !h.Proven.IsZero() {
			l.Text = "The last backup is from " + days(age) + "; one was restored and proven " + days(now.Sub(proven)) + "."
		}
	}
	return l
}

// days says how long ago something was.
func days(age time.Duration) string {
	switch n := int(age / (24 * time.Hour)); {
	case n >= 2:
		return fmt.Sprintf("%d days ago", n)
	case n == 1:
		return "a day ago"
	}
	return "today"
}

// ask has Run do something as soon as it can.
func (s *Service) ask(f func(context.Context)) error {
	select {
	case s.wanted <- f:
		return nil
	default:
		return api.Errorf(api.Conflict, "another backup or restore is about to begin")
	}
}

// SaveNow begins a backup.
func (s *Service) SaveNow() error { return s.askWithTarget(s.saveAndWarn) }

// ProveNow begins a proof.
func (s *Service) ProveNow() error { return s.askWithTarget(s.proveAndWarn) }

func (s *Service) askWithTarget(f func(context.Context)) error {
	s.mu.Lock()
	state := s.state
	s.mu.Unlock()
	switch state {
	case api.BackupOff:
		return errNoTarget
	case api.BackupIdle:
		return s.ask(f)
	}
	return api.Errorf(api.Conflict, "another backup or restore is under way")
}

func (s *Service) saveAndWarn(ctx context.Context) {
	if _, err := s.Save(ctx); err != nil {
		s.config.Warn(err)
	}
}

func (s *Service) proveAndWarn(ctx context.Context) {
	if _, err := s.Prove(ctx); err != nil {
		s.config.Warn(err)
	}
}

// Run finishes a restore, does what officers ask for, and backs up each night, until ctx ends. Modules have been started when
// it is called.
func (s *Service) Run(ctx context.Context) {
	s.finish(ctx)
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	begun := s.config.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-s.wanted:
			limited, cancel := withinADay(ctx)
			f(limited)
			cancel()
		case <-look.C:
			if now := s.config.Now(); now.Sub(begun) >= settleTime {
				s.nightly(ctx, now)
			}
		}
	}
}

// withinADay keeps what hangs from being in the way of the next night's.
func withinADay(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, longestRun, fmt.Errorf("it took longer than %v", longestRun))
}

// nightly does what is due.
func (s *Service) nightly(ctx context.Context, now time.Time) {
	zone := s.config.Zone()
	s.mu.Lock()
	save := s.target != nil && !s.due(now, zone).After(now)
	prove := s.proofDue(now)
	s.mu.Unlock()
	if !save && !prove || s.config.Box.Busy() != nil {
		return
	}
	limited, cancel := withinADay(ctx)
	defer cancel()
	if save {
		s.saveAndWarn(limited)
	} else {
		s.proveAndWarn(limited)
	}
}
