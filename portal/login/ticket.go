package login

import (
	"crypto/rand"
	"sync"
	"time"
)

// mostTickets bounds the memory of what has begun.
const mostTickets = 4096

// tickets keep what has begun for ticketTime, under names that nobody can guess. They do not outlive the portal.
type tickets[T any] struct {
	now func() time.Time

	mu    sync.Mutex
	open  map[string]ticket[T]
	order []string // the oldest first; some may have gone
}

type ticket[T any] struct {
	value   T
	expires time.Time
}

// put keeps a value.
func (t *tickets[T]) put(value T) (name string) {
	name = rand.Text()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = map[string]ticket[T]{}
	}
	now := t.now()
	for len(t.order) > 0 {
		oldest, ok := t.open[t.order[0]]
		if ok && now.Before(oldest.expires) && len(t.order) < mostTickets {
			break
		}
		delete(t.open, t.order[0])
		t.order = t.order[1:]
	}
	t.open[name] = ticket[T]{value, now.Add(ticketTime)}
	t.order = append(t.order, name)
	return name
}

// get returns a value that stays.
func (t *tickets[T]) get(name string) (value T, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v, ok := t.open[name]
	if !ok || !t.now().Before(v.expires) {
		return value, false
	}
	return v.value, true
}

// take returns a value for the only time.
func (t *tickets[T]) take(name string) (value T, ok bool) {
	value, ok = t.get(name)
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, still := t.open[name]; !still { // somebody else took it between the two locks
		var none T
		return none, false
	}
	delete(t.open, name)
	return value, ok
}
