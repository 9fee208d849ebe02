// Package journal keeps the latest events of the box in memory, for those who ask what happened and what happens next.
package journal

import (
	"context"
	"iter"
	"sync"
	"time"

	"allotment/api"
)

// Size is how many events are kept.
const Size = 1024

// Journal is a bounded list of events. It is safe for concurrent use.
type Journal struct {
	mu     sync.Mutex
	events []api.Event   // oldest first
	next   uint64        // number of the next one
	more   chan struct{} // closed at the next one
}

// New returns a journal whose first event has that number.
func New(first uint64) *Journal { return &Journal{next: first, more: make(chan struct{})} }

// Add numbers the event, dates it with now, and keeps it.
func (j *Journal) Add(e api.Event, now time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e.Number, e.Time = j.next, now
	j.next++
	if len(j.events) == Size {
		copy(j.events, j.events[1:])
		j.events = j.events[:Size-1]
	}
	j.events = append(j.events, e)
	close(j.more)
	j.more = make(chan struct{})
}

// Events yields the events that the query asks for, until ctx ends or there are no more.
func (j *Journal) Events(ctx context.Context, q api.EventQuery) iter.Seq2[api.Event, error] {
	return func(yield func(api.Event, error) bool) {
		for after := q.After; ; {
			events, more := j.after(after)
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
				after = e.Number
			}
			if !q.Follow {
				return
			}
			select {
			case <-more:
			case <-ctx.Done():
				return
			}
		}
	}
}

// after are the events with greater numbers, and what is closed when there is one more.
func (j *Journal) after(number uint64) ([]api.Event, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, e := range j.events {
		if e.Number > number {
			return append([]api.Event(nil), j.events[i:]...), j.more
		}
	}
	return nil, j.more
}
