package supervisor

import (
	"context"
	"time"

	"allotment/api"
	"allotment/init/plan"
	"allotment/updater/attempt"
)

// tries is how often a journey is tried before it counts as failed: a service that is just ready may still be slow.
const tries = 2

// retryPause is what it is left for that.
const retryPause = 3 * time.Second

// examine tells how every module does that is on, and how those of its journeys do that are wanted.
func (s *Supervisor) examine(ctx context.Context, wanted func(attempt.Result) bool) []attempt.Result {
	var all, journeys []attempt.Result
	err := s.call(func(context.Context) {
		for _, m := range s.modules {
			if !m.on {
				continue
			}
			r := attempt.Result{Module: m.plan.Name, Title: m.plan.Title, OK: m.state() == "ready", Problem: m.trouble()}
			all = append(all, r)
			if r.OK {
				journeys = append(journeys, journeysOf(m.plan)...)
			}
		}
	})
	if err != nil {
		return nil
	}
	for _, r := range journeys {
		if wanted(r) {
			all = append(all, s.travel(ctx, r))
		}
	}
	return all
}

func journeysOf(m *plan.Module) []attempt.Result {
	var all []attempt.Result
	for _, j := range m.Declared.Journeys {
		all = append(all, attempt.Result{Module: m.Name, Journey: j.Name, Title: j.Title})
	}
	return all
}

// travel runs a journey.
func (s *Supervisor) travel(ctx context.Context, r attempt.Result) attempt.Result {
	for i := range tries {
		if i > 0 {
			pause(ctx, retryPause)
		}
		for p, err := range (&Box{s}).RunTask(ctx, api.Task{Module: r.Module, Kind: api.Journey, Name: r.Journey}) {
			r.OK, r.Problem, r.Output = p.OK, p.Problem, p.Output
			if err != nil {
				r.OK, r.Problem = false, err.Error()
			}
		}
		if r.OK || ctx.Err() != nil {
			break
		}
	}
	if r.OK {
		r.Problem, r.Output = "", ""
	}
	return r
}

// pause waits, at most until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
