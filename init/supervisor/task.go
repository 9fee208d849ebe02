package supervisor

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"allotment/api"
	"allotment/init/plan"
	"allotment/init/servicelog"
)

// task is a container of a module that runs to its end, beside the services.
type task struct {
	ctx     context.Context // ends with the module, too
	service *plan.Service
	network string
	state   State
	end     func() // must be called once the task has ended
}

// eventTaskEnded takes a task off its module's list.
type eventTaskEnded struct {
	module *module
	id     string
}

// begin puts a task on the module's list. There can be one of each name.
func (s *Supervisor) begin(ctx context.Context, m *module, service *plan.Service) (*task, error) {
	switch {
	case m.network == "" || !m.runs() || s.ending:
		return nil, api.Errorf(api.Conflict, "%s is not running", m.plan.Title)
	case m.tasks[service.ID] != nil:
		return nil, api.Errorf(api.Conflict, "%s is running already", service.ID)
	}
	ctx, cancel := context.WithCancel(ctx)
	m.tasks[service.ID] = cancel
	return &task{ctx: ctx, service: service, network: m.network, state: s.state, end: func() {
		cancel()
		s.send(eventTaskEnded{m, service.ID})
	}}, nil
}

// mostOutput is how much of a task's output is kept to tell, in bytes.
const mostOutput = 4 << 10

// drainTime bounds the wait for the rest of its output: something that it has started may hold the pipe.
const drainTime = 2 * time.Second

// runTask runs a task to its end and returns the last that it printed. All of it goes to a log of the module.
func (s *Supervisor) runTask(t *task) (string, error) {
	m := t.service.Module
	file, err := servicelog.Open(filepath.Join(s.config.State, "logs", m.Name, t.service.Name+".log"))
	if err != nil {
		return "", err
	}
	defer file.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	defer w.Close()
	// So that the task can open /dev/stderr.
	if err := w.Chown(int(m.FirstID+t.service.UID), int(m.FirstID+t.service.GID)); err != nil {
		return "", err
	}
	last := &tail{}
	copied := make(chan error, 1)
	go func() { copied <- servicelog.Copy(file, io.TeeReader(r, last), time.Now) }()
	err = s.runs(t.ctx, t.service, t.network, w)
	w.Close()
	r.SetReadDeadline(time.Now().Add(drainTime))
	if copyErr := <-copied; err == nil && !errors.Is(copyErr, os.ErrDeadlineExceeded) {
		err = copyErr
	}
	return last.String(), err
}

// runWithout runs a task while the named services of its module stand still.
func (s *Supervisor) runWithout(t *task, m *module, stops []string) (output string, err error) {
	if len(stops) == 0 {
		return s.runTask(t)
	}
	var units []*unit
	failed := s.call(func(ctx context.Context) { units, err = s.stopServices(ctx, m, stops, t.service.ID) })
	if failed != nil || err != nil {
		return "", firstOf(failed, err)
	}
	defer func() {
		err = firstOf(err, s.call(func(context.Context) {
			for _, u := range units {
				s.allow(u)
			}
		}))
	}()
	if err := s.await(t.ctx, func() bool { return allIn(units, stopped) }); err != nil {
		return "", err
	}
	return s.runTask(t)
}

// stopServices stops services of the module for the task, until they are allowed again.
func (s *Supervisor) stopServices(ctx context.Context, m *module, names []string, task string) ([]*unit, error) {
	var units []*unit
	for _, name := range names {
		u := s.unit(m.plan.Name + "." + name)
		if u == nil {
			return nil, api.Errorf(api.Invalid, "%s is to stop %q, which is no service of the module", task, name)
		}
		units = append(units, u)
	}
	for _, u := range units {
		s.log.Info("stopping for a task", "unit", u.name, "task", task)
		s.perform(ctx, u, u.machine.stop(s.now()))
	}
	return units, nil
}

// tail keeps the last bytes that are written to it.
type tail struct{ kept []byte }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	t.kept = t.kept[max(0, len(t.kept)-mostOutput):]
	return len(p), nil
}

// String is what is kept, from the first whole line on if there is one.
func (t *tail) String() string {
	text := strings.ToValidUTF8(string(t.kept), "?")
	if first, rest, ok := strings.Cut(text, "\n"); ok && len(t.kept) == mostOutput && len(first) < len(text)-1 {
		text = rest
	}
	return strings.TrimSpace(text)
}
