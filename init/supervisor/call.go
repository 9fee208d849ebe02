package supervisor

import (
	"context"
	"errors"

	"allotment/api"
)

// eventCall has the loop call f, which may read and change all state.
type eventCall struct {
	f    func(context.Context)
	done chan struct{}
}

// wait is for something that the loop brings about: done is closed once is holds or ctx has ended.
type wait struct {
	ctx  context.Context
	is   func() bool
	done chan struct{}
}

// over closes done if the wait is over.
func (w wait) over() bool {
	if w.ctx.Err() == nil && !w.is() {
		return false
	}
	close(w.done)
	return true
}

var errEnding = api.Errorf(api.Conflict, "the box is shutting down")

// call has the loop call f and waits until it has. It must not be called in the loop.
func (s *Supervisor) call(f func(ctx context.Context)) error {
	e := eventCall{f, make(chan struct{})}
	s.send(e)
	select {
	case <-e.done:
		return nil
	case <-s.over:
		return errEnding
	}
}

// await waits until is, which the loop calls after every event, holds.
func (s *Supervisor) await(ctx context.Context, is func() bool) error {
	w := wait{ctx, is, make(chan struct{})}
	s.send(w)
	select {
	case <-w.done:
	case <-ctx.Done():
	case <-s.over:
		return errEnding
	}
	if ctx.Err() != nil {
		return errors.Join(api.Errorf(api.Busy, "that takes too long"), context.Cause(ctx))
	}
	return nil
}
