package supervisor

import (
	"context"

	"allotment/api"
	"allotment/init/plan"
	"allotment/updater/attempt"
)

// tries is how often a journey is tried before it counts as failed: a service that is just ready may still be slow.
const tries = 2

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
	for range tries {
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
