package ticket

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestTickets(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	all := New[string](func() time.Time { return now }, time.Minute)
	first := all.Put("first")
	if !all.Change(first, func(v *string) { *v += "!" }) {
		t.Error("cannot be changed")
	}
	for range 2 {
		if v, ok := all.Get(first); !ok || v != "first!" {
			t.Errorf("%q, %v", v, ok)
		}
	}
	if v, ok := all.Take(first); !ok || v != "first!" {
		t.Errorf("%q, %v", v, ok)
	}
	late := all.Put("late")
	now = now.Add(time.Minute)
	for _, name := range []string{first, late, "", "nothing"} {
		if v, ok := all.Get(name); ok || v != "" {
			t.Errorf("Get(%q) = %q", name, v)
		}
		if v, ok := all.Take(name); ok || v != "" {
			t.Errorf("Take(%q) = %q", name, v)
		}
		if all.Change(name, func(*string) {}) {
			t.Errorf("%q was changed", name)
		}
	}
}

// TestTakeOnce has many take one ticket at the same time.
func TestTakeOnce(t *testing.T) {
	all := New[int](time.Now, time.Minute)
	name := all.Put(1)
	var got atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, ok := all.Take(name); ok {
				got.Add(1)
			}
		})
	}
	wg.Wait()
	if got.Load() != 1 {
		t.Errorf("%d have taken it", got.Load())
	}
}

func TestBounded(t *testing.T) {
	all := New[int](time.Now, time.Minute)
	var names []string
	for i := range most + 10 {
		names = append(names, all.Put(i))
	}
	if len(all.open) > most || len(all.order) > most {
		t.Errorf("%d are kept", len(all.open))
	}
	if _, ok := all.Get(names[len(names)-1]); !ok {
		t.Error("the newest is gone")
	}
	if _, ok := all.Get(names[0]); ok {
		t.Error("the oldest is there")
	}
}
