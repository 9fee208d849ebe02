package supervisor

import (
	"context"
	"fmt"
	"time"

	"allotment/api"
	"allotment/image"
	"allotment/updater/attempt"
)

// standTime bounds the wait for all modules to stand still.
const standTime = 5 * time.Minute

// baselineTime bounds what is tried before an update.
const baselineTime = 15 * time.Minute

// RestartUpdate implements apiserver.Box.
func (b *Box) RestartUpdate(ctx context.Context) error {
	s, ctx := b.supervisor, context.WithoutCancel(ctx)
	s.changing.Lock()
	defer s.changing.Unlock()
	version, err := s.staged()
	if err != nil {
		return err
	}
	if err := s.config.Gate.Prepare(); err != nil {
		return api.Errorf(api.Conflict, "version %s cannot be tried: %v", version, err)
	}
	s.log.Info("trying all that works before the update", "version", version)
	limited, cancel := context.WithTimeout(ctx, baselineTime)
	baseline := s.examine(limited, func(attempt.Result) bool { return true })
	cancel()
	if err = s.standStill(ctx); err == nil {
		err = s.config.Gate.Arm(baseline)
	}
	if err != nil {
		_ = s.call(s.goOn)
		s.record(api.Event{Level: api.Bad, Kind: "update",
			Text: fmt.Sprintf("version %s could not be tried: %v", version, err)}, nil)
		return api.Errorf(api.Conflict, "version %s could not be tried: %v", version, err)
	}
	_ = s.call(func(context.Context) { // unless the box ends already
		s.config.Console.Print("UPDATE-ARMED version=%s", version)
		s.reset(fmt.Sprintf("to try version %s", version))
	})
	return nil
}

// TidyUpdates implements apiserver.Box.
func (b *Box) TidyUpdates() error {
	if b.supervisor.config.Gate == nil {
		return errNoUpdates
	}
	return b.supervisor.config.Gate.Tidy()
}

// staged is the version that can be tried now.
func (s *Supervisor) staged() (image.Version, error) {
	if s.config.Gate == nil {
		return "", errNoUpdates
	}
	var err error
	failed := s.call(func(context.Context) {
		switch {
		case s.ending || s.stranded:
			err = errEnding
		case s.trial != nil:
			err = api.Errorf(api.Conflict, "version %s is on trial", s.config.Manifest.Version)
		}
		for _, m := range s.modules {
			if !m.settled {
				err = api.Errorf(api.Conflict, "the box is starting")
			}
		}
	})
	if failed != nil || err != nil {
		return "", firstOf(failed, err)
	}
	a := s.config.Gate.Attempt()
	if a == nil || a.Stage != attempt.Staged {
		return "", api.Errorf(api.Conflict, "no new version is ready to be tried")
	}
	return a.To.Version, nil
}

var errNoUpdates = api.Errorf(api.Conflict, "this box has no updates")

// standStill stops all modules in order, and the portal. The gateway tells visitors to wait.
func (s *Supervisor) standStill(ctx context.Context) error {
	err := s.call(func(ctx context.Context) {
		s.hold(true)
		if s.portal != nil {
			s.perform(ctx, s.portal, s.portal.machine.stop(s.now()))
		}
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, standTime)
	defer cancel()
	return s.await(ctx, func() bool {
		for _, m := range s.modules {
			if !m.standsStill() {
				return false
			}
		}
		return s.portal == nil || s.portal.machine.state == stopped
	})
}

func (s *Supervisor) hold(held bool) {
	for _, m := range s.modules {
		m.held = held
	}
}

// goOn starts again what standStill has stopped.
func (s *Supervisor) goOn(context.Context) {
	s.hold(false)
	if s.portal != nil {
		s.allow(s.portal)
	}
	for _, m := range s.modules {
		if !m.on {
			continue
		}
		for _, u := range m.units {
			s.allow(u)
		}
	}
}

// GoBack implements apiserver.Box.
func (b *Box) GoBack(_ context.Context, confirmed bool) (api.GoBack, error) {
	s := b.supervisor
	if s.config.Gate == nil {
		return api.GoBack{}, errNoUpdates
	}
	a, err := s.config.Gate.CanGoBack()
	if err != nil {
		return api.GoBack{}, api.Errorf(api.Conflict, "cannot go back: %v", err)
	}
	losses, err := s.config.Gate.Losses(a)
	if err != nil {
		return api.GoBack{}, err
	}
	answer := api.GoBack{From: a.To.Version, To: a.From.Version, Since: marked(a, attempt.Armed), Begun: confirmed}
	for _, l := range losses {
		answer.Losses = append(answer.Losses, api.Loss{Module: l.Module, Volume: l.Volume, Files: l.Files, Newest: l.Newest, Bytes: l.Bytes})
	}
	if !confirmed {
		return answer, nil
	}
	if err := s.config.Gate.Back(); err != nil {
		return api.GoBack{}, api.Errorf(api.Conflict, "cannot go back: %v", err)
	}
	_ = s.call(func(context.Context) { // unless the box ends already
		s.config.Console.Print("UPDATE-BACK version=%s", a.From.Version)
		s.reset("an officer wants the version of before back")
	})
	return answer, nil
}

// marked is when the attempt reached the stage last.
func marked(a *attempt.Attempt, stage attempt.Stage) (t time.Time) {
	for _, m := range a.Marks {
		if m.Stage == stage {
			t = m.Time
		}
	}
	return t
}
