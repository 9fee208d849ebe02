// Package ticket keeps what has begun under names that nobody can guess: a login in several steps, a code for one use.
package ticket

import (
	"crypto/rand"
	"sync"
	"time"
)

// most bounds the memory of what has begun.
const most = 4096

// Tickets keep values for some time, in memory: they do not outlive the portal. They may be used by several goroutines
// at once.
type Tickets[T any] struct {
	now  func() time.Time
	life time.Duration

	mu    sync.Mutex
	open  map[string]entry[T]
	order []string // the oldest first; some may have gone
}

type entry[T any] struct {
	value   T
	expires time.Time
}

// New makes Tickets that each last for life.
func New[T any](now func() time.Time, life time.Duration) *Tickets[T] {
	return &Tickets[T]{now: now, life: life, open: map[string]entry[T]{}}
}

// Put keeps a value.
func (t *Tickets[T]) Put(value T) (name string) {
	name = rand.Text()
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for len(t.order) > 0 {
		oldest, ok := t.open[t.order[0]]
		if ok && now.Before(oldest.expires) && len(t.order) < most {
			break
		}
		delete(t.open, t.order[0])
		t.order = t.order[1:]
	}
	t.open[name] = entry[T]{value, now.Add(t.life)}
	t.order = append(t.order, name)
	return name
}

// Get returns a value that stays.
func (t *Tickets[T]) Get(name string) (value T, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v, ok := t.open[name]
	if !ok || !t.now().Before(v.expires) {
		return value, false
	}
	return v.value, true
}

// Take returns a value for the only time.
func (t *Tickets[T]) Take(name string) (value T, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v, ok := t.open[name]
	delete(t.open, name)
	if !ok || !t.now().Before(v.expires) {
		return value, false
	}
	return v.value, true
}

// Change lets f change a value that stays, while nobody else does.
func (t *Tickets[T]) Change(name string, f func(*T)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	v, ok := t.open[name]
	if !ok || !t.now().Before(v.expires) {
		return false
	}
	f(&v.value)
	t.open[name] = v
	return true
}
