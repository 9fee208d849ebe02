package supervisor

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"allotment/api"
	"allotment/image"
	"allotment/image/verity"
	"allotment/updater/attempt"
	"allotment/updater/gate"
	"allotment/updater/letter"
	"allotment/updater/snapshot"
)

var (
	oldSystem = attempt.System{Version: "1.0", RootHash: verity.RootHash{1}, Slot: image.SlotA}
	newSystem = attempt.System{Version: "2.0", RootHash: verity.RootHash{2}, Slot: image.SlotB}
)

// bench is a boot loader and copies of data that note in what order they are used.
type bench struct {
	mu     sync.Mutex
	did    []string
	broken string // what fails
	note   func() string
	meet   chan struct{} // unless nil, taken before and after a commit
}

func (b *bench) do(what string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.note != nil {
		what += " after " + b.note()
	}
	b.did = append(b.did, what)
	if b.broken != "" && strings.HasPrefix(what, b.broken) {
		return errors.New("no space left on device")
	}
	return nil
}

func (b *bench) all() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.did, ", ")
}

func (b *bench) Entries() ([]attempt.Entry, error) {
	return []attempt.Entry{{Version: "2.0"}, {Version: "1.0"}}, nil
}
func (b *bench) Commit(v image.Version, _ string) error {
	if b.meet != nil {
		<-b.meet
		defer func() { <-b.meet }()
	}
	return b.do("commit " + string(v))
}
func (b *bench) Arm(v image.Version) error             { return b.do("arm " + string(v)) }
func (b *bench) Place(v image.Version, _ string) error { return b.do("place " + string(v)) }
func (b *bench) Drop(v image.Version) error            { return b.do("drop " + string(v)) }
func (b *bench) Close() error                          { return nil }
func (b *bench) Take(name string) error                { return b.do("take " + name) }
func (b *bench) Restore(name string) error             { return b.do("restore " + name) }
func (b *bench) Remove(name string) error              { return b.do("remove " + name) }
func (b *bench) Exists(string) bool                    { return true }
func (b *bench) List() ([]string, error)               { return []string{"1.0", "2.0", snapshot.Backup}, nil }
func (b *bench) Changes(string) ([]snapshot.Change, error) {
	return []snapshot.Change{{Module: "web", Volume: "data", Files: 2, Bytes: 10}}, nil
}

// record writes the record of an update from 1.0 to 2.0, which is running, and makes the gate to it.
func (b *bench) record(t *testing.T, dir string, running attempt.System, a attempt.Attempt) *gate.Gate {
	t.Helper()
	a.Number, a.From, a.To = 1, oldSystem, newSystem
	a.Release = image.Digest("sha256:" + strings.Repeat("2", 64))
	folder := filepath.Join(dir, "state", "update")
	if err := a.Save(folder); err != nil {
		t.Fatal(err)
	}
	return gate.New(gate.Config{
		Dir: folder, Running: running, Loader: func() (gate.Loader, error) { return b, nil }, Snapshots: b,
		Names: func() letter.Names { return letter.Names{} }, Now: time.Now, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
}

// journeying is a module whose journey look runs the script.
func journeying(script string) *image.Manifest {
	return &image.Manifest{Version: "2.0", Modules: []image.Module{{
		Name: "web", Services: []image.Service{trueService("php"), trueService("page", "php")},
		Journeys: []image.Journey{{Name: "look", Title: "Look at a page", Steps: []image.Step{
			{Title: "look", Task: &image.Task{Command: sh(script), User: "root"}}}}},
	}}}
}

var (
	webReady    = attempt.Result{Module: "web", Title: "web", OK: true}
	lookWorks   = attempt.Result{Module: "web", Journey: "look", Title: "Look at a page", OK: true}
	lookIsWrong = attempt.Result{Module: "web", Journey: "look", Title: "Look at a page"}
)

func armed(baseline ...attempt.Result) attempt.Attempt {
	return attempt.Attempt{Stage: attempt.Armed, Baseline: baseline}
}

// awaitRules waits until the firewall is told to be closed, or open.
func (b *declared) awaitRules(t *testing.T, closed bool) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case r := <-b.rules:
			if r.Closed == closed {
				return
			}
		case <-limit:
			t.Fatalf("the firewall is never closed=%t", closed)
		}
	}
}

func TestTrialIsCommitted(t *testing.T) {
	for name, c := range map[string]struct {
		script   string
		baseline []attempt.Result
	}{
		"all works":                       {"true", []attempt.Result{webReady, lookWorks}},
		"what failed before fails":        {"false", []attempt.Result{webReady, lookIsWrong}},
		"a journey that was not there":    {"false", []attempt.Result{webReady}},
		"a module that was not there":     {"false", nil},
		"a journey that is there no more": {"true", []attempt.Result{webReady, {Module: "web", Journey: "gone", OK: true}}},
		"a module that is there no more":  {"true", []attempt.Result{webReady, {Module: "gone", OK: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			w, dir := &bench{meet: make(chan struct{})}, t.TempDir()
			g := w.record(t, dir, newSystem, armed(c.baseline...))
			b := newGated(t, dir, journeying(c.script), nil, g)
			b.awaitRules(t, true)
			if !b.Info().Trial {
				t.Error("nobody is told of the trial")
			}
			b.lines.await(t, "UPDATE-OK version=2.0")
			b.awaitRules(t, false)
			if a := g.Attempt(); a.Stage != attempt.Committed || w.all() != "" {
				t.Errorf("stage %s, done %q before members are let in", a.Stage, w.all())
			}
			w.meet <- struct{}{}
			w.meet <- struct{}{}
			if w.all() != "commit 2.0" {
				t.Errorf("done %q", w.all())
			}
			all, err := b.UpdateHistory()
			if err != nil || len(all) != 1 || !all[0].Stays {
				t.Errorf("history: %+v, %v", all, err)
			}
			if b.Info().Trial {
				t.Error("the trial goes on")
			}
		})
	}
}

func TestTrialIsUndone(t *testing.T) {
	migrates := withMigrations("echo no such table; exit 3")
	migrates.Version = "2.0"
	never := map[string]func(context.Context) error{"web.php": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
	slow := armed(webReady)
	slow.Budget = 1
	for name, c := range map[string]struct {
		manifest *image.Manifest
		asks     map[string]func(context.Context) error
		attempt  attempt.Attempt
		want     attempt.Failure
	}{
		"journey": {journeying("echo status 500; exit 1"), nil, armed(webReady, lookWorks), attempt.Failure{Check: attempt.CheckJourney,
			Module: "web", Journey: "look", Problem: "Look at a page failed: exit code 1", Output: "status 500"}},
		"migration": {migrates, nil, armed(webReady), attempt.Failure{Check: attempt.CheckMigration, Module: "web",
			Problem: "migration of volume data of web to format 2 failed: exit code 3: no such table"}},
		"time": {journeying("true"), never, slow, attempt.Failure{Check: attempt.CheckTime, Module: "web"}},
	} {
		t.Run(name, func(t *testing.T) {
			w, dir := &bench{}, t.TempDir()
			g := w.record(t, dir, newSystem, c.attempt)
			b := newGated(t, dir, c.manifest, c.asks, g)
			b.awaitRules(t, true)
			b.lines.await(t, "UPDATE-UNDONE check="+c.want.Check+" module=web")
			select {
			case <-b.done:
			case <-time.After(20 * time.Second):
				t.Fatal("the box does not end")
			}
			if b.exit != Reboot || strings.Contains(b.lines.text(), "UPDATE-OK") {
				t.Errorf("exit %d\n%s", b.exit, b.lines.text())
			}
			a := g.Attempt()
			f := a.Failure
			if a.Stage != attempt.Undoing || w.all() != "drop 2.0" || f == nil {
				t.Fatalf("stage %s, done %s, failure %+v", a.Stage, w.all(), f)
			}
			if f.Check != c.want.Check || f.Module != c.want.Module || f.Journey != c.want.Journey ||
				c.want.Problem != "" && f.Problem != c.want.Problem || c.want.Output != "" && f.Output != c.want.Output {
				t.Errorf("failure %+v, want %+v", f, c.want)
			}
			select {
			case r := <-b.rules:
				if !r.Closed {
					t.Error("the outside was let in")
				}
			default:
			}
		})
	}
}

// What the box cannot do without ends the trial at once.
func TestCoreFailureEndsTheTrial(t *testing.T) {
	w, dir := &bench{}, t.TempDir()
	m := journeying("true")
	m.Modules[0].Importance = "core"
	m.Modules[0].Services[0].Command = []string{"/nonexistent"}
	g := w.record(t, dir, newSystem, armed(webReady))
	b := newGated(t, dir, m, nil, g)
	if err := b.call(func(context.Context) { b.fail("network", errors.New("no such device")) }); err != nil {
		t.Fatal(err)
	}
	b.lines.await(t, "UPDATE-UNDONE check=core module= reason=network: no such device")
	<-b.done
	if f := g.Attempt().Failure; f == nil || f.Check != attempt.CheckCore {
		t.Errorf("failure %+v", f)
	}
}

// TestRestartForUpdate: baseline, all stands still, copy, boot loader, reset.
func TestRestartForUpdate(t *testing.T) {
	w, dir := &bench{}, t.TempDir()
	g := w.record(t, dir, oldSystem, attempt.Attempt{Stage: attempt.Staged})
	b := newGated(t, dir, journeying("true"), nil, g)
	b.awaitState(t, "web.page", ready)
	w.note = b.diary.String
	if err := b.RestartUpdate(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.lines.await(t, "UPDATE-ARMED version=2.0")
	<-b.done
	before := "+web.php +web.page +web.task-journey-look-1 -web.page -web.php"
	want := "place 2.0 after +web.php +web.page, take 2.0 after " + before + ", arm 2.0 after " + before
	if w.all() != want {
		t.Errorf("done: %s\nwant: %s", w.all(), want)
	}
	a := g.Attempt()
	if a.Stage != attempt.Armed || b.exit != Reboot || !slices.Equal(a.Baseline, []attempt.Result{webReady, lookWorks}) {
		t.Errorf("stage %s, exit %d, baseline %+v", a.Stage, b.exit, a.Baseline)
	}
}

// A release that cannot be armed leaves the box as it was.
func TestRestartThatCannotBe(t *testing.T) {
	for _, broken := range []string{"place", "take", "arm"} {
		t.Run(broken, func(t *testing.T) {
			w, dir := &bench{broken: broken}, t.TempDir()
			g := w.record(t, dir, oldSystem, attempt.Attempt{Stage: attempt.Staged})
			b := newGated(t, dir, journeying("true"), nil, g)
			b.awaitState(t, "web.page", ready)
			err := b.RestartUpdate(t.Context())
			if !isCode(err, api.Conflict) || !strings.Contains(err.Error(), "no space left on device") {
				t.Errorf("error: %v", err)
			}
			b.awaitState(t, "web.page", ready)
			if a := g.Attempt(); a.Stage != attempt.Staged {
				t.Errorf("stage %s", a.Stage)
			}
			stopped := strings.Contains(b.diary.String(), "-web")
			if told := strings.Contains(b.told(), "bad update version 2.0 could not be tried"); told != stopped || stopped != (broken != "place") {
				t.Errorf("did %s\ntold:\n%s", b.diary, b.told())
			}
		})
	}
}

func TestRestartWantsAStagedRelease(t *testing.T) {
	w, dir := &bench{}, t.TempDir()
	b := newGated(t, dir, journeying("true"), nil, w.record(t, dir, oldSystem, attempt.Attempt{Stage: attempt.Undone}))
	b.awaitState(t, "web.page", ready)
	if err := b.RestartUpdate(t.Context()); !isCode(err, api.Conflict) {
		t.Errorf("error: %v", err)
	}
	b.end(t)
	without := newDeclared(t, t.TempDir(), journeying("true"), nil)
	if err := without.RestartUpdate(t.Context()); !isCode(err, api.Conflict) {
		t.Errorf("without a gate: %v", err)
	}
}

func TestGoBack(t *testing.T) {
	w, dir := &bench{}, t.TempDir()
	g := w.record(t, dir, newSystem, attempt.Attempt{Stage: attempt.Committed})
	b := newGated(t, dir, journeying("true"), nil, g)
	b.awaitState(t, "web.page", ready)
	for _, confirmed := range []bool{false, true} {
		got, err := b.GoBack(t.Context(), confirmed)
		if err != nil || got.To != "1.0" || got.Begun != confirmed || len(got.Losses) != 1 || got.Losses[0].Files != 2 {
			t.Errorf("confirmed %t: %+v, %v", confirmed, got, err)
		}
		want := attempt.Committed
		if confirmed {
			want = attempt.Undoing
		}
		if a := g.Attempt(); a.Stage != want || a.ByHand != confirmed {
			t.Errorf("confirmed %t: stage %s", confirmed, a.Stage)
		}
	}
	<-b.done
	if b.exit != Reboot || w.all() != "drop 2.0" {
		t.Errorf("exit %d, done %s", b.exit, w.all())
	}
}

// A release that shall not run resets the box before anything starts.
func TestAnotherReleaseIsToRun(t *testing.T) {
	w, dir := &bench{}, t.TempDir()
	b := newGated(t, dir, journeying("true"), nil, w.record(t, dir, newSystem, attempt.Attempt{Stage: attempt.Undoing}))
	<-b.done
	if b.exit != Reboot || w.all() != "drop 2.0" || b.diary.String() != "" || b.state == nil {
		t.Errorf("exit %d, boot loader: %s, modules: %s, state %v", b.exit, w.all(), b.diary, b.state)
	}
}

// A start that brings the data back says so, and modules start then.
func TestRestored(t *testing.T) {
	w, dir := &bench{}, t.TempDir()
	g := w.record(t, dir, oldSystem, attempt.Attempt{Stage: attempt.Undoing, Failure: &attempt.Failure{Check: attempt.CheckJourney}})
	b := newGated(t, dir, journeying("true"), nil, g)
	b.lines.await(t, "UPDATE-RESTORED version=1.0 undone=2.0 check=journey")
	b.awaitState(t, "web.page", ready)
	if w.all() != "drop 2.0, restore 2.0" || g.Attempt().Stage != attempt.Undone {
		t.Errorf("done %s, stage %s", w.all(), g.Attempt().Stage)
	}
	if !strings.Contains(b.told(), "fair update version 2.0 is undone") {
		t.Errorf("told:\n%s", b.told())
	}
}

// Modules that must not touch the data do not start.
func TestStranded(t *testing.T) {
	w, dir := &bench{broken: "restore"}, t.TempDir()
	b := newGated(t, dir, journeying("true"), nil, w.record(t, dir, oldSystem, attempt.Attempt{Stage: attempt.Undoing}))
	b.lines.await(t, "UPDATE-STRANDED version=2.0")
	b.lines.await(t, strandedText)
	if h := b.Health(); h.Level != api.Bad {
		t.Errorf("health is %s", h.Level)
	}
	b.end(t)
	if b.diary.String() != "" {
		t.Errorf("it did %s", b.diary)
	}
}

func TestUpdatePolicy(t *testing.T) {
	w, dir := &bench{}, t.TempDir()
	b := newGated(t, dir, journeying("true"), nil, w.record(t, dir, newSystem, attempt.Attempt{Stage: attempt.Committed}))
	if err := b.SetUpdatePolicy(api.UpdatePolicy{}); !isCode(err, api.Conflict) {
		t.Errorf("without an updater: %v", err)
	}
	yes, from, to, bad := true, "01:00", "04:00", "quarter past"
	err := b.call(func(context.Context) {
		b.updater = &unit{name: "updater", machine: machine{state: waiting}, job: &programJob{name: "updater", args: forever}}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.SetUpdatePolicy(api.UpdatePolicy{Paused: &yes, From: &from, To: &to}); err != nil {
		t.Fatal(err)
	}
	if err := b.SetUpdatePolicy(api.UpdatePolicy{From: &bad}); !isCode(err, api.Invalid) {
		t.Errorf("a bad time is taken: %v", err)
	}
	missing := "usb:NOT THERE"
	if err := b.SetUpdatePolicy(api.UpdatePolicy{Source: &missing}); !isCode(err, api.Conflict) || !strings.Contains(err.Error(), "no disk of that name") {
		t.Errorf("a disk that is not there: %v", err)
	}
	u, err := b.Update()
	if err != nil || !*u.Policy.Paused || *u.Policy.From != from || *u.Policy.To != to || *u.Policy.Source != "" || u.Back != "1.0" || u.Last == nil {
		t.Errorf("update: %+v, %v", u, err)
	}
}
