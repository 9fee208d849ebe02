package box

import (
	"context"
	"fmt"
	"sync"
	"time"

	"allotment/api"
	"allotment/portal/store"
)

// How the history is taken and kept.
const (
	sampleEvery = time.Minute
	keepSamples = 7 * 24 * time.Hour
	flushEvery  = 10 // samples; a crash loses no more, and the disk is written to as seldom
)

// Sample is what the box used at a moment. Sizes are MiB, CPU is per cent of all processors since the sample before.
type Sample struct {
	Time    time.Time      `json:"time"`
	CPU     int            `json:"cpu"`
	Memory  int            `json:"memory"`
	Disk    int            `json:"disk"`
	Modules map[string]int `json:"modules,omitempty"` // memory of each
}

// hours are the samples of each hour; the key is its beginning in RFC 3339, UTC.
var hours = store.NewBucket[[]Sample]("box-samples")

// History keeps what the box used in the last week. Its methods may be called from several goroutines.
type History struct {
	db *store.DB

	mu      sync.Mutex
	last    api.Resources
	pending []Sample
}

// NewHistory is the history in db.
func NewHistory(db *store.DB) *History { return &History{db: db} }

// Run asks the box every minute until ctx ends. A box that does not answer leaves a gap.
func (h *History) Run(ctx context.Context, box *api.Client) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		if r, err := box.Resources(ctx); err == nil {
			_ = h.Take(r) // the next one may fit on the disk again
		}
		select {
		case <-ctx.Done():
			h.mu.Lock()
			defer h.mu.Unlock()
			_ = h.flush()
			return
		case <-tick.C:
		}
	}
}

// Take adds what the box uses now.
func (h *History) Take(r api.Resources) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Sample{Time: r.Time.UTC(), Memory: mib(r.Memory - r.Available), Disk: mib(r.Disk - r.DiskFree), Modules: map[string]int{}}
	if wall := (r.Uptime - h.last.Uptime) * float64(max(r.CPUs, 1)); wall > 0 && r.Uptime > h.last.Uptime {
		s.CPU = min(100, max(0, int(100*(r.CPU-h.last.CPU)/wall+0.5)))
	}
	for _, m := range r.Modules {
		if m.Usage.Memory > 0 {
			s.Modules[m.Name] = mib(m.Usage.Memory)
		}
	}
	h.last = r
	h.pending = append(h.pending, s)
	if len(h.pending) < flushEvery {
		return nil
	}
	return h.flush()
}

func mib(bytes int64) int { return int(bytes >> 20) }

func hourOf(t time.Time) string { return t.UTC().Truncate(time.Hour).Format(time.RFC3339) }

// flush writes what is pending, and forgets what is too old. The caller holds the lock.
func (h *History) flush() error {
	err := h.db.Update(func(tx *store.Tx) error {
		for _, s := range h.pending {
			all, err := hours.Get(tx, hourOf(s.Time))
			if err != nil && err != store.ErrNotFound {
				return err
			}
			if err := hours.Put(tx, hourOf(s.Time), append(all, s)); err != nil {
				return err
			}
		}
		if len(h.pending) == 0 {
			return nil
		}
		return forget(tx, h.pending[len(h.pending)-1].Time)
	})
	if err == nil || len(h.pending) > 6*flushEvery { // a full disk must not fill the memory too
		h.pending = nil
	}
	if err != nil {
		return fmt.Errorf("cannot keep what the box uses: %w", err)
	}
	return nil
}

// forget removes what is too old; and what is of the future, which a clock that was wrong left.
func forget(tx *store.Tx, now time.Time) error {
	oldest, newest := hourOf(now.Add(-keepSamples)), hourOf(now.Add(24*time.Hour))
	var failed error
	err := hours.All(tx, "", func(key string, _ []Sample) bool {
		if key < oldest || key > newest {
			failed = hours.Delete(tx, key)
		}
		return failed == nil
	})
	if failed != nil {
		return failed
	}
	return err
}

// Since are the kept samples from a moment on, the oldest first.
func (h *History) Since(from time.Time) ([]Sample, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []Sample
	err := h.db.View(func(tx *store.Tx) error {
		return hours.All(tx, "", func(key string, all []Sample) bool {
			if key < hourOf(from) {
				return true
			}
			for _, s := range all {
				if !s.Time.Before(from) {
					found = append(found, s)
				}
			}
			return true
		})
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read what the box used: %w", err)
	}
	for _, s := range h.pending {
		if !s.Time.Before(from) {
			found = append(found, s)
		}
	}
	return found, nil
}
