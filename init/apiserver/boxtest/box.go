// Package boxtest is a box that lives in memory, for tests of what talks to the API. It runs nothing: it keeps what it is
// told, and tells what it keeps.
package boxtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"allotment/api"
	"allotment/image"
	"allotment/image/layer"
)

// Box implements apiserver.Box and apiserver.Developer. Its fields may be changed before it is used.
type Box struct {
	State   api.Health
	Things  []api.Module
	Use     api.Resources
	Log     []api.Line
	History []api.Event
	Forms   map[string]api.Settings // by module; empty: of the organisation
	Jobs    []api.Task
	Failing map[string]string // tasks that fail, as MODULE.NAME, and why
	Updates api.Update
	Tried   []api.UpdateAttempt
	Back    api.GoBack
	Saved   api.BackupStatus
	Net     api.Network
	Claims  api.Claim

	Snapshots []api.BackupSnapshot

	mu       sync.Mutex
	done     []string // what it was told
	layers   map[image.Digest][]byte
	watching chan struct{} // closed at the next event
}

// New returns a box with module page, which is as good as can be.
func New(now time.Time) *Box {
	return &Box{
		State: api.Health{Level: api.Good, Summary: "everything works", Uptime: 200, Lamps: []api.Lamp{
			{What: "Welcome page", Module: "page", Level: api.Good, Text: "ready"},
			{What: "disk", Level: api.Good, Text: "7.0 GiB free"},
		}},
		Things: []api.Module{{
			Name: "page", Title: "Welcome page", Importance: "normal", On: true, State: "ready", IPv4: "127.0.0.1", IPv6: "::1",
			Services: []api.Service{{Name: "nginx", State: "ready", Since: now, Restarts: 1}},
		}},
		Use: api.Resources{Time: now, Uptime: 200, CPUs: 1, CPU: 30, Memory: 1 << 30, Available: 700 << 20, Disk: 8 << 30,
			DiskFree: 7 << 30, System: api.Usage{Memory: 30 << 20, File: 12 << 20, MemoryPeak: 32 << 20, CPU: 2, Processes: 3},
			Modules: []api.ModuleResources{{Name: "page", Usage: api.Usage{Memory: 12 << 20, MemoryPeak: 13 << 20,
				MemoryMax: 64 << 20, CPU: 1.5, Processes: 2}, Volumes: []api.Volume{{Name: "data", Used: 1 << 20, Quota: 1 << 30}}}}},
		Log: []api.Line{{Time: now, Module: "page", Service: "nginx", Text: "first line"},
			{Time: now, Module: "page", Service: "nginx", Text: "second line"}},
		History: []api.Event{{Number: 1, Time: now, Level: api.Good, Kind: "service", Module: "page", Service: "nginx", Text: "page.nginx is ready"}},
		Forms: map[string]api.Settings{
			"": {Form: []image.Setting{{Name: "domain", Title: "Domain", Type: "host"}}, Values: map[string]any{"domain": "allotment.internal"}},
			"page": {Form: []image.Setting{{Name: "posts", Title: "Posts on a page", Type: "integer"}, {Name: "open", Title: "Open", Type: "boolean"}},
				Values: map[string]any{"posts": 10, "open": true}},
		},
		Jobs: []api.Task{{Module: "page", Kind: api.Journey, Name: "read", Title: "Read the page"},
			{Module: "page", Kind: api.Repair, Name: "empty-cache", Title: "Empty the cache", Help: "It fills again."}},
		Updates: api.Update{Text: "version 1.1 is ready", Running: "1.0", Offered: "1.1", State: "ready", Back: "0.9"},
		Tried: []api.UpdateAttempt{{Number: 1, From: "0.9", To: "1.0", Ended: now, Stays: true,
			Subject: "Garden Club: the server was updated to version 1.0", Letter: "All is well.\n"}},
		Back: api.GoBack{From: "1.0", To: "0.9", Since: now, Losses: []api.Loss{
			{Module: "page", Volume: "data", Files: 2, Newest: now, Bytes: 3 << 20}}},
		Saved:   api.BackupStatus{State: api.BackupOff},
		Failing: map[string]string{"page.empty-cache": "status 1"}, layers: map[image.Digest][]byte{}, watching: make(chan struct{}),
	}
}

// Done lists what the box was told to do, in order.
func (b *Box) Done() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.done)
}

func (b *Box) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done = append(b.done, fmt.Sprintf(format, args...))
}

// Happen adds an event, which those who follow see.
func (b *Box) Happen(e api.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.Number = uint64(len(b.History) + 1)
	b.History = append(b.History, e)
	close(b.watching)
	b.watching = make(chan struct{})
}

// Info implements apiserver.Box.
func (b *Box) Info() api.Info {
	return api.Info{Name: "small", Title: "Small", Version: "1.0", Slot: "a"}
}

// Health implements apiserver.Box.
func (b *Box) Health() api.Health { return b.State }

// Modules implements apiserver.Box.
func (b *Box) Modules() []api.Module { return b.Things }

// Resources implements apiserver.Box.
func (b *Box) Resources() api.Resources { return b.Use }

// Switch implements apiserver.Box; it switches every module but page.
func (b *Box) Switch(_ context.Context, module string, on bool) error {
	if module == "page" && !on {
		return api.Errorf(api.Conflict, "Welcome page is needed by Calendar")
	}
	b.note("switch %s %t", module, on)
	return nil
}

// Restart implements apiserver.Box.
func (b *Box) Restart(_ context.Context, module, service string) error {
	b.note("restart %s.%s", module, service)
	return nil
}

// Logs implements apiserver.Box.
func (b *Box) Logs(ctx context.Context, q api.LogQuery) iter.Seq2[api.Line, error] {
	return func(yield func(api.Line, error) bool) {
		var fit []api.Line
		for _, l := range b.Log {
			if l.Module == q.Module && (q.Service == "" || l.Service == q.Service) {
				fit = append(fit, l)
			}
		}
		if q.Lines >= 0 && len(fit) > q.Lines {
			fit = fit[len(fit)-q.Lines:]
		}
		for _, l := range fit {
			if !yield(l, nil) {
				return
			}
		}
		if q.Follow {
			<-ctx.Done()
		}
	}
}

// Events implements apiserver.Box.
func (b *Box) Events(ctx context.Context, q api.EventQuery) iter.Seq2[api.Event, error] {
	return func(yield func(api.Event, error) bool) {
		for {
			b.mu.Lock()
			news, change := b.History[min(int(q.After), len(b.History)):], b.watching
			b.mu.Unlock()
			for _, e := range news {
				q.After = e.Number
				if !yield(e, nil) {
					return
				}
			}
			if !q.Follow {
				return
			}
			select {
			case <-change:
			case <-ctx.Done():
				return
			}
		}
	}
}

// Settings implements apiserver.Box.
func (b *Box) Settings(module string) (api.Settings, error) { return b.Forms[module], nil }

// SetSettings implements apiserver.Box.
func (b *Box) SetSettings(_ context.Context, module string, values map[string]any) error {
	e := api.Errorf(api.Invalid, "the settings do not fit")
	for key := range values {
		if !slices.ContainsFunc(b.Forms[module].Form, func(s image.Setting) bool { return s.Name == key }) {
			e.Faults = append(e.Faults, api.Fault{Field: key, Text: "there is no such setting"})
		}
	}
	if e.Faults != nil {
		return e
	}
	b.note("set %q %v", module, values)
	return nil
}

// Tasks implements apiserver.Box.
func (b *Box) Tasks() []api.Task { return b.Jobs }

// RunTask implements apiserver.Box.
func (b *Box) RunTask(_ context.Context, t api.Task) iter.Seq2[api.Progress, error] {
	return func(yield func(api.Progress, error) bool) {
		why := b.Failing[t.Module+"."+t.Name]
		_ = yield(api.Progress{Step: 1, Title: "the only step"}, nil) &&
			yield(api.Progress{Step: 1, Title: "the only step", Done: true, OK: why == "", Problem: why, Output: "said\n", Seconds: 1}, nil) &&
			yield(api.Progress{Done: true, OK: why == "", Problem: why, Seconds: 1}, nil)
	}
}

// Update implements apiserver.Box.
func (b *Box) Update() (api.Update, error) { return b.Updates, nil }

// UpdateHistory implements apiserver.Box.
func (b *Box) UpdateHistory() ([]api.UpdateAttempt, error) { return b.Tried, nil }

// SetUpdatePolicy implements apiserver.Box.
func (b *Box) SetUpdatePolicy(p api.UpdatePolicy) error {
	text, err := json.Marshal(p)
	b.note("update policy %s", text)
	return err
}

// CheckUpdate implements apiserver.Box.
func (b *Box) CheckUpdate(now bool) error {
	b.note("update check, now %t", now)
	return nil
}

// GoBack implements apiserver.Box.
func (b *Box) GoBack(_ context.Context, confirmed bool) (api.GoBack, error) {
	b.note("update back, confirmed %t", confirmed)
	back := b.Back
	back.Begun = confirmed
	return back, nil
}

// RestartUpdate implements apiserver.Box.
func (b *Box) RestartUpdate(context.Context) error {
	return api.Errorf(api.Conflict, "no new version is ready to be tried")
}

// TidyUpdates implements apiserver.Box.
func (b *Box) TidyUpdates() error {
	b.note("update tidy")
	return nil
}

// Provision implements apiserver.Box.
func (b *Box) Provision(_ context.Context, p api.Provision) iter.Seq2[api.Account, error] {
	return func(yield func(api.Account, error) bool) {
		for i := range p.Users {
			if !yield(api.Account{Name: fmt.Sprintf("user%02d", i+1), Password: "secret"}, nil) {
				return
			}
		}
		b.note("provision %d %s", p.Users, p.Group)
	}
}

// HasLayer implements apiserver.Developer.
func (b *Box) HasLayer(d image.Digest) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.layers[d] != nil
}

// AddLayer implements apiserver.Developer.
func (b *Box) AddLayer(_ context.Context, d image.Digest, r io.Reader) error {
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	got, _, err := layer.Digest(bytes.NewReader(content))
	if err != nil || got != d {
		return api.Errorf(api.Invalid, "the layer's digest is %s, not %s", got, d)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.layers[d] = content
	return nil
}

// Replace implements apiserver.Developer.
func (b *Box) Replace(_ context.Context, m image.Module) error {
	b.note("replace %s %v", m.Name, m.Layers)
	return nil
}

// Processes implements apiserver.Developer.
func (b *Box) Processes() ([]api.Process, error) {
	return []api.Process{{PID: 1, Command: "/sbin/init"}}, nil
}

// Signal implements apiserver.Developer.
func (b *Box) Signal(pid int, sig unix.Signal) error {
	b.note("signal %d %s", pid, unix.SignalName(sig))
	return nil
}

// Run implements apiserver.Developer: it prints the command.
func (b *Box) Run(_ context.Context, module, service string, command []string) iter.Seq2[api.Output, error] {
	return func(yield func(api.Output, error) bool) {
		exit := 0
		_ = yield(api.Output{Text: fmt.Sprintln(command)}, nil) && yield(api.Output{Exit: &exit}, nil)
	}
}
