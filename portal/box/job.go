package box

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"allotment/api"
)

// patience is how long a page waits for what it started before it shows a page that refreshes itself.
const patience = 5 * time.Second

// mostJobs is how many are remembered.
const mostJobs = 20

// About is what a job is for.
type About struct {
	Key   string // there is one job at a time of each
	Title string // in the officer's language
	Back  string // path of the page to go back to
}

// Job is something that the box does for an officer and that can take long.
type Job struct {
	About
	ID    string
	Begun time.Time

	mu    sync.Mutex
	steps []api.Progress
	ended bool
	err   error
	done  chan struct{}
}

// Steps are those that have begun, each as it stands; the last one with Step 0 is the whole, if it has ended.
func (j *Job) Steps() []api.Progress {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.steps)
}

// Ended tells whether it is over, and with what error.
func (j *Job) Ended() (bool, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ended, j.err
}

// add notes progress: the end of a step replaces its beginning.
func (j *Job) add(p api.Progress) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if n := len(j.steps); n > 0 && j.steps[n-1].Step == p.Step {
		j.steps[n-1] = p
		return
	}
	j.steps = append(j.steps, p)
}

// Jobs are those under way and the last ones. They go on when the officer's browser is closed, and end with the portal.
type Jobs struct {
	now func() time.Time

	mu  sync.Mutex
	all []*Job // oldest first
}

// NewJobs makes an empty list.
func NewJobs(now func() time.Time) *Jobs { return &Jobs{now: now} }

// Find finds a job; nil: it was long ago, or never.
func (l *Jobs) Find(id string) *Job {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.IndexFunc(l.all, func(j *Job) bool { return j.ID == id }); i >= 0 {
		return l.all[i]
	}
	return nil
}

// Start begins a job, unless one about the same goes on: then that is returned, and false. f tells how it goes.
func (l *Jobs) Start(about About, actor string, f func(ctx context.Context, tell func(api.Progress)) error) (*Job, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, j := range l.all {
		if ended, _ := j.Ended(); j.Key == about.Key && !ended {
			return j, false
		}
	}
	j := &Job{About: about, ID: rand.Text(), Begun: l.now(), done: make(chan struct{})}
	l.all = append(l.all, j)
	if len(l.all) > mostJobs {
		l.all = l.all[1:]
	}
	go func() {
		err := f(api.WithActor(context.Background(), actor), j.add)
		j.mu.Lock()
		j.ended, j.err = true, err
		j.mu.Unlock()
		close(j.done)
	}()
	return j, true
}

// Await waits a moment for the job's end and tells whether it has come.
func (j *Job) Await(ctx context.Context) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-j.done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}
