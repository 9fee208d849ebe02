package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"allotment/api"
	"allotment/updater/attempt"
	"allotment/updater/config"
	"allotment/updater/history"
	"allotment/updater/schedule"
)

// updateDir is where supervisor and updater remember.
func (s *Supervisor) updateDir() string { return filepath.Join(s.config.State, "update") }

// Update implements apiserver.Box.
func (b *Box) Update() (api.Update, error) {
	s := b.supervisor
	u := api.Update{Running: s.config.Manifest.Version, State: "off", Text: "this box gets no updates"}
	var onTrial, open, looks bool
	err := s.call(func(context.Context) {
		onTrial, open, looks = s.trial != nil, s.state != nil, s.updater != nil && s.updater.prepared
	})
	if err != nil {
		return u, err
	}
	if s.config.Gate == nil || !open {
		return u, nil
	}
	if looks {
		s.addStatus(&u)
	}
	if onTrial {
		u.State, u.Text = "trial", fmt.Sprintf("version %s is on trial; nobody is let in before it has passed", u.Running)
	}
	if a, err := s.config.Gate.CanGoBack(); err == nil {
		u.Back = a.From.Version
	}
	p, err := schedule.LoadPolicy(s.updateDir())
	if err != nil {
		s.warn(err)
	}
	u.Policy = api.UpdatePolicy{Paused: &p.Paused, From: &p.Window.From, To: &p.Window.To, Metered: &p.Metered,
		Channel: &p.Channel, Source: &p.Source}
	if !p.DeferUntil.IsZero() {
		u.Policy.DeferUntil = &p.DeferUntil
	}
	if all, err := b.UpdateHistory(); err == nil && len(all) > 0 {
		u.Last = &all[0]
	}
	return u, nil
}

// addStatus adds what the updater says of itself.
func (s *Supervisor) addStatus(u *api.Update) {
	u.State, u.Text = string(config.Idle), "the updater has not begun yet"
	var st config.Status
	b, err := os.ReadFile(filepath.Join(s.config.Update.Run, config.StatusFile))
	if err == nil {
		err = json.Unmarshal(b, &st)
	}
	if err != nil {
		return
	}
	u.State, u.Text, u.Offered, u.Reason = string(st.State), st.Text, st.Version, st.Reason
	u.Done, u.Total, u.Checked, u.Due = st.Done, st.Total, moment(st.Checked), moment(st.Due)
}

// moment is the time of so many seconds of Unix time; the zero time for none.
func moment(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

// UpdateHistory implements apiserver.Box. Entries that cannot be read are left out.
func (b *Box) UpdateHistory() ([]api.UpdateAttempt, error) {
	entries, err := history.All(b.supervisor.updateDir())
	if err != nil {
		b.supervisor.warn(err)
	}
	all := []api.UpdateAttempt{}
	for _, e := range entries {
		a := e.Attempt
		out := api.UpdateAttempt{
			Number: a.Number, From: a.From.Version, To: a.To.Version, Ended: e.Ended, Stays: a.Stage == attempt.Committed,
			ByHand: a.ByHand, Subject: e.Letter.Subject, Letter: e.Letter.Text,
		}
		if f := a.Failure; f != nil {
			out.Check, out.Module, out.Journey, out.Problem = f.Check, f.Module, f.Journey, f.Problem
		}
		all = append(all, out)
	}
	return all, nil
}

// SetUpdatePolicy implements apiserver.Box.
func (b *Box) SetUpdatePolicy(changes api.UpdatePolicy) error {
	return b.supervisor.changePolicy(changes.Source != nil, func(p *schedule.Policy) {
		set(&p.Paused, changes.Paused)
		set(&p.DeferUntil, changes.DeferUntil)
		set(&p.Window.From, changes.From)
		set(&p.Window.To, changes.To)
		set(&p.Metered, changes.Metered)
		set(&p.Channel, changes.Channel)
		set(&p.Source, changes.Source)
	})
}

func set[T any](field *T, to *T) {
	if to != nil {
		*field = *to
	}
}

// CheckUpdate implements apiserver.Box.
func (b *Box) CheckUpdate(now bool) error {
	return b.supervisor.changePolicy(true, func(p *schedule.Policy) { p.Now = p.Now || now })
}

// changePolicy keeps another policy and has the updater look at it, which makes it ask the publisher, too. If the source is
// needed, nothing changes unless it is there.
func (s *Supervisor) changePolicy(needed bool, change func(*schedule.Policy)) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	var err error
	failed := s.call(func(context.Context) {
		switch {
		case s.updater == nil:
			err = errNoUpdates
		case s.state == nil || s.trial != nil:
			err = api.Errorf(api.Conflict, "the box is starting")
		}
	})
	if failed != nil || err != nil {
		return firstOf(failed, err)
	}
	p, err := schedule.LoadPolicy(s.updateDir())
	if err != nil {
		s.warn(err) // and begin anew
	}
	change(&p)
	if err := p.Check(); err != nil {
		return api.Errorf(api.Invalid, "%v", err)
	}
	if err := s.mountSource(p); err != nil && needed {
		return api.Errorf(api.Conflict, "updates cannot be taken from %q: %v", p.Source, err)
	}
	if err := p.Save(s.updateDir()); err != nil {
		return err
	}
	return s.call(func(ctx context.Context) {
		s.startUpdater(ctx)
		if s.updater.machine.state != ready {
			return // it looks when it starts
		}
		if err := s.updater.job.reload(s.updater.process); err != nil {
			s.warn(err)
		}
	})
}
