package vm

import (
	"context"
	"sync"
)

// journal is a list that only grows and that several goroutines can wait on.
type journal[T any] struct {
	mu      sync.Mutex
	items   []T
	ended   error         // why nothing more will come
	changed chan struct{} // closed, and replaced, at every change
}

func newJournal[T any]() *journal[T] {
	return &journal[T]{changed: make(chan struct{})}
}

// add appends an item and wakes those who wait.
func (j *journal[T]) add(item T) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.items = append(j.items, item)
	j.wake()
}

// end says that nothing more will come, and why.
func (j *journal[T]) end(why error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ended = why
	j.wake()
}

func (j *journal[T]) wake() {
	close(j.changed)
	j.changed = make(chan struct{})
}

// all returns the items so far; the slice is shared and must not be changed.
func (j *journal[T]) all() []T {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.items[:len(j.items):len(j.items)]
}

// wait returns the first item at or after index from that fits, and the index after it. It fails when ctx ends or when
// the journal ends without one.
func (j *journal[T]) wait(ctx context.Context, from int, fits func(T) bool) (T, int, error) {
	for i := from; ; {
		j.mu.Lock()
		items, ended, changed := j.items, j.ended, j.changed
		j.mu.Unlock()
		for ; i < len(items); i++ {
			if fits(items[i]) {
				return items[i], i + 1, nil
			}
		}
		var none T
		if ended != nil {
			return none, i, ended
		}
		select {
		case <-ctx.Done():
			return none, i, context.Cause(ctx)
		case <-changed:
		}
	}
}
