package updater

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/image"
	"allotment/init/state/btrfs"
	"allotment/updater/attempt"
	"allotment/updater/config"
	"allotment/updater/fetch"
	"allotment/updater/gate"
	"allotment/updater/history"
	"allotment/updater/install"
	"allotment/updater/install/installtest"
	"allotment/updater/schedule"
	"allotment/updater/snapshot"
	"allotment/updater/trust/trusttest"
)

// noon is when these tests begin: far from the night's window.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// world is a box with its daemon, and a publisher.
type world struct {
	*installtest.Box
	*Daemon
	t        *testing.T
	repo     *trusttest.Repo
	now      time.Time
	restarts int
	refuse   error // of the supervisor
}

// RestartUpdate implements Supervisor.
func (w *world) RestartUpdate(context.Context) error {
	if a := w.record(); a.Stage != attempt.Staged {
		w.t.Errorf("asked to restart at stage %q", a.Stage)
	}
	w.restarts++
	return w.refuse
}

// TidyUpdates implements Supervisor, as the real one does.
func (w *world) TidyUpdates(context.Context) error {
	return gate.New(gate.Config{Dir: w.dir, Running: w.Running, Snapshots: gate.Data{Root: w.State},
		Now: func() time.Time { return w.now }, Log: w.Box.Log}).Tidy()
}

func onWorld(t *testing.T, body func(w *world)) {
	t.Helper()
	installtest.Run(t, func(b *installtest.Box) {
		w := &world{Box: b, t: t, repo: trusttest.New(t, noon), now: noon}
		b.Manifest.Update = image.Update{Channel: "stable", Root: string(w.repo.RootFile(1))}
		w.start()
		body(w)
	})
}

// start makes the daemon as if it had just begun.
func (w *world) start() {
	d, err := New(Options{Install: w.Box.Config, Folder: w.t.TempDir(), Supervisor: w,
		Source: func(p schedule.Policy) fetch.Source { return fetch.Dir(w.Dir) },
		Zone:   func() *time.Location { return time.UTC }, Now: func() time.Time { return w.now }, Log: w.Box.Log})
	if err != nil {
		w.t.Error(err)
	}
	w.Daemon = d
}

// offerRelease publishes a release to all at once.
func (w *world) offerRelease(r image.Release) {
	w.repo.AddRelease(r, image.Wave{Start: w.now.Add(-time.Hour).Unix(), Kind: "fast"})
	w.publish()
}

func (w *world) publish() {
	for name, text := range w.repo.Files {
		path := filepath.Join(w.Dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, text, 0o644)); err != nil {
			w.t.Error(err)
		}
	}
}

// do has the daemon work until there is nothing more to do before at, and returns what it tells.
func (w *world) do() (config.Status, time.Time) {
	w.t.Helper()
	at := w.Daemon.round(context.Background(), w.policy())
	var s config.Status
	b, err := os.ReadFile(filepath.Join(w.Folder, config.StatusFile))
	if err := errors.Join(err, json.Unmarshal(b, &s)); err != nil {
		w.t.Error(err)
	}
	return s, at
}

func (w *world) want(state config.State, part string) config.Status {
	w.t.Helper()
	s, at := w.do()
	if s.State != state || !strings.Contains(s.Text+" "+s.Reason, part) || !at.After(w.now) {
		w.t.Errorf("at %v: %+v, next at %v; want %s with %q", w.now, s, at, state, part)
	}
	return s
}

func (w *world) record() *attempt.Attempt {
	a, err := attempt.Load(w.dir)
	if err != nil || a == nil {
		w.t.Errorf("record is %v, %v", a, err)
		return &attempt.Attempt{}
	}
	return a
}

// pass lets time pass.
func (w *world) pass(d time.Duration) { w.now = w.now.Add(d) }

func TestNightlyUpdate(t *testing.T) {
	onWorld(t, func(w *world) {
		w.publish()
		w.want(config.Idle, "nothing newer than version 1.0")
		c := installtest.NewContent(0)
		r := w.Publish(t, "2.0", c, true)
		w.offerRelease(r)
		w.want(config.Idle, "") // it is not asked again so soon
		w.pass(6 * time.Hour)
		s := w.want(config.Ready, "Version 2.0 is ready")
		due := time.Unix(s.Due+1, 0).UTC()
		if due.Hour() < 2 || due.Hour() > 4 || due.Sub(w.now) > 12*time.Hour || w.restarts != 0 {
			t.Errorf("due is %v, after %d restarts", due, w.restarts)
		}
		a := w.record()
		w.WantStaged(t, a.To, r, c)
		if a.Number != 1 || a.Stage != attempt.Staged || a.From != w.Running || len(a.Marks) != 2 {
			t.Errorf("record is %+v", a)
		}
		w.start() // a daemon that begins anew knows all that from the record
		w.want(config.Ready, "")
		w.refuse = errors.New("the calendar is busy")
		w.now = due
		if w.want(config.Failed, "the calendar is busy"); w.restarts != 1 {
			t.Errorf("asked %d times", w.restarts)
		}
		w.refuse = nil
		w.pass(24 * time.Hour) // the night after
		if w.want(config.Restarting, "2.0"); w.restarts != 2 {
			t.Errorf("asked %d times", w.restarts)
		}
	})
}

func TestOfficersDecide(t *testing.T) {
	onWorld(t, func(w *world) {
		w.offerRelease(w.Publish(t, "2.0", installtest.NewContent(0), true))
		for _, c := range []struct {
			p     schedule.Policy
			state config.State
			part  string
		}{
			{schedule.Policy{Paused: true}, config.Waiting, "paused"},
			{schedule.Policy{Metered: true}, config.Waiting, "metered"},
			{schedule.Policy{DeferUntil: noon.AddDate(0, 0, 3)}, config.Ready, "deferred"},
			{schedule.Policy{Window: schedule.Window{From: "11:00", To: "11:30"}}, config.Ready, "window"},
			{schedule.Policy{Now: true}, config.Restarting, "2.0"},
		} {
			if err := c.p.Save(w.dir); err != nil {
				t.Error(err)
			}
			w.want(c.state, c.part)
		}
		if p := w.policy(); p.Now || w.restarts != 1 {
			t.Errorf("now is %t still, after %d restarts", p.Now, w.restarts)
		}
	})
}

func TestPolicyThatCannotBeReadPauses(t *testing.T) {
	onWorld(t, func(w *world) {
		w.offerRelease(w.Publish(t, "2.0", installtest.NewContent(0), true))
		if err := os.WriteFile(filepath.Join(w.dir, "policy.json"), []byte("{"), 0o600); err != nil {
			t.Error(err)
		}
		w.want(config.Waiting, "paused")
	})
}

func TestWave(t *testing.T) {
	onWorld(t, func(w *world) {
		w.repo.AddRelease(w.Publish(t, "2.0", installtest.NewContent(0), true),
			image.Wave{Start: w.now.Add(time.Hour).Unix(), Hours: 100, Kind: "default"})
		w.publish()
		for tries := 0; ; tries++ {
			s, at := w.do()
			if s.State == config.Ready {
				break
			}
			if s.State != config.Waiting || tries > 100 || !at.After(w.now) {
				t.Errorf("%+v at %v, next at %v", s, w.now, at)
				return
			}
			w.now = at
		}
		if turn := w.turn(); w.now.Before(turn) || w.now.After(turn.Add(time.Second)) {
			t.Errorf("fetched at %v, its turn was %v", w.now, turn)
		}
	})
}

// A newer release takes the place of one that is ready or half there.
func TestNewerReleaseMeanwhile(t *testing.T) {
	onWorld(t, func(w *world) {
		w.offerRelease(w.Publish(t, "2.0", installtest.NewContent(0), true))
		w.want(config.Ready, "2.0")
		c := installtest.NewContent(7)
		r := w.Publish(t, "2.1", c, false)
		w.offerRelease(r)
		w.pass(6 * time.Hour)
		w.want(config.Ready, "2.1")
		a := w.record()
		w.WantStaged(t, a.To, r, c)
		if a.Number != 1 || len(w.ESP.Placed) != 2 {
			t.Errorf("record is %+v, placed are %d", a, len(w.ESP.Placed))
		}
		// Withdrawn: it is not tried, though it is ready.
		clear(w.repo.Targets["stable"].Signed.Targets)
		w.repo.Publish("stable")
		w.publish()
		w.pass(6 * time.Hour)
		w.want(config.Idle, "nothing newer")
		if a := w.record(); a.Stage != attempt.Fetching {
			t.Errorf("what was withdrawn is still %q", a.Stage)
		}
	})
}

func TestNotOffered(t *testing.T) {
	onWorld(t, func(w *world) {
		good := w.Publish(t, "2.0", installtest.NewContent(0), true)
		w.offerRelease(good)
		if err := w.Daemon.check(context.Background(), w.policy(), fetch.Dir(w.Dir)); err != nil {
			t.Error(err)
		}
		if err := history.AddBad(w.dir, history.Bad{Release: w.offer.Digest, Version: "2.0", Time: noon, Why: "the calendar did not start"}); err != nil {
			t.Error(err)
		}
		w.want(config.Idle, "Version 2.0 was tried on 22 November 2026 and is not tried again: the calendar did not start.")
		for part, change := range map[string]func(r *image.Release){
			"version 1.0 runs.":    func(r *image.Release) { r.Version = "1.0" },
			"newer than the 0.9":   func(r *image.Release) { r.Version = "0.9" },
			"contents are older":   func(r *image.Release) { r.Epoch = 1 },
			"its root is the one":  func(r *image.Release) { r.RootHash = w.Running.RootHash.String() },
			"not those of a layer": func(r *image.Release) { r.Layers[0].Verity = r.Layers[1].Verity },
		} {
			r := good
			r.Layers, r.Deltas = slices.Clone(good.Layers), nil // deltas lead to the good version
			change(&r)
			w.offerRelease(r)
			w.pass(6 * time.Hour)
			w.want(config.Idle, part)
		}
		w.WantNoAttempt()
	})
}

// WantNoAttempt checks that nothing was begun.
func (w *world) WantNoAttempt() {
	w.t.Helper()
	if a, err := attempt.Load(w.dir); a != nil || err != nil {
		w.t.Errorf("record is %+v, %v", a, err)
	}
	if len(w.ESP.Entries) != 2 {
		w.t.Errorf("entries are %q", w.ESP.Entries)
	}
}

func TestPublisherIsGone(t *testing.T) {
	onWorld(t, func(w *world) {
		w.want(config.Failed, "metadata/timestamp.json")
		w.offerRelease(w.Publish(t, "2.0", installtest.NewContent(0), true))
		w.pass(time.Hour)
		s := w.want(config.Ready, "2.0")
		if err := os.RemoveAll(filepath.Join(w.Dir, "metadata")); err != nil {
			t.Error(err)
		}
		w.now = time.Unix(s.Due+1, 0).UTC() // what it said lately holds
		w.want(config.Restarting, "2.0")
		w.pass(48 * time.Hour)
		w.want(config.Failed, "metadata/timestamp.json")
		if w.restarts != 1 {
			t.Errorf("%d restarts", w.restarts)
		}
	})
}

func TestNoRoom(t *testing.T) {
	onWorld(t, func(w *world) {
		r := w.Publish(t, "2.0", installtest.NewContent(0), false)
		r.Layers[0].Size = 1 << 40
		w.offerRelease(r)
		w.want(config.Failed, "MiB are missing on the state partition")
		if a := w.record(); a.Stage != attempt.Fetching {
			t.Errorf("record is %+v", a)
		}
	})
}

// After a commit old snapshots, layers and downloads go, but nothing that the way back needs.
func TestTidy(t *testing.T) {
	onWorld(t, func(w *world) {
		w.publish()
		older := attempt.System{Version: "0.9", Slot: image.SlotB, RootHash: [32]byte{9}}
		a := &attempt.Attempt{Number: 4, From: older, To: w.Running, Release: image.NewDigest([32]byte{1})}
		a.Reach(attempt.Committed, noon)
		d := image.NewDigest([32]byte{2})
		err := errors.Join(a.Save(w.dir), btrfs.EnableQuota(w.State), snapshot.Take(w.State, "1.0"), snapshot.Take(w.State, "0.9"),
			w.KeepNeeds("0.9", install.Needs{RootHash: older.RootHash, Layers: []image.Layer{{Name: "old", Digest: d, Size: 1}}}),
			os.WriteFile(w.LayerPath(d), []byte("old"), 0o444))
		if err != nil {
			t.Error(err)
		}
		there := func() (layer, back, other bool) {
			_, err := os.Stat(w.LayerPath(d))
			return err == nil, snapshot.Exists(w.State, "1.0"), snapshot.Exists(w.State, "0.9")
		}
		w.want(config.Idle, "")
		if layer, back, other := there(); !layer || !back || other {
			t.Errorf("layer %t, snapshots %t %t", layer, back, other)
		}
		w.pass(7*24*time.Hour + time.Minute)
		w.want(config.Idle, "")
		if layer, back, _ := there(); !layer || back {
			t.Errorf("after a week: layer %t, snapshot %t", layer, back)
		}
		w.ESP.Entries = []image.Version{"1.0"}
		w.pass(6 * time.Hour)
		w.want(config.Idle, "")
		if layer, _, _ := there(); layer {
			t.Error("a layer stays that nobody needs")
		}
		w.WantRunningWhole(t)
	})
}

// stuck is a source that does not answer.
type stuck struct {
	asked chan struct{} // gets a value for each file
}

func (s stuck) Get(ctx context.Context, path string, from, to int64) (io.ReadCloser, error) {
	s.asked <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

// What officers want holds at once, also while the daemon waits for a server; and it ends when it is told to. This box has no
// btrfs, which only one thread would see.
func TestRun(t *testing.T) {
	esp := &installtest.ESP{Placed: map[image.Version][]byte{}, Entries: []image.Version{"1.0"}}
	w := &world{t: t, now: noon, Box: &installtest.Box{ESP: esp}, repo: trusttest.New(t, noon)}
	w.Config = install.Config{State: t.TempDir(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Manifest: &image.Manifest{Name: "test", Version: "1.0", Arch: image.AMD64, Update: image.Update{Root: string(w.repo.RootFile(1))}},
		Running:  attempt.System{Version: "1.0", Slot: image.SlotA, RootHash: [32]byte{1}},
		Boot:     func() (install.Boot, error) { return esp, nil },
	}
	w.start()
	source := stuck{make(chan struct{})}
	w.Daemon.Source = func(p schedule.Policy) fetch.Source {
		if p.Source != "" {
			return nil
		}
		return source
	}
	ctx, stop := context.WithCancel(t.Context())
	wake, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		w.Daemon.Run(ctx, wake)
	}()
	<-source.asked
	wake <- struct{}{} // nothing has changed
	if err := (schedule.Policy{Source: "/stick"}).Save(w.dir); err != nil {
		t.Error(err)
	}
	wake <- struct{}{}
	w.await(config.Off)
	if err := (schedule.Policy{}).Save(w.dir); err != nil {
		t.Error(err)
	}
	wake <- struct{}{}
	<-source.asked
	stop()
	<-ended
}

// await waits until the status file says that the daemon is at a state.
func (w *world) await(want config.State) {
	w.t.Helper()
	for limit := time.Now().Add(time.Minute); ; {
		b, err := os.ReadFile(filepath.Join(w.Folder, config.StatusFile))
		if err == nil && strings.Contains(string(b), `"state":"`+string(want)+`"`) {
			return
		}
		if time.Now().After(limit) {
			w.t.Fatalf("status is %s, %v", b, err)
		}
		runtime.Gosched()
	}
}

// While the supervisor has the update, the daemon touches nothing.
func TestSupervisorsTurn(t *testing.T) {
	onWorld(t, func(w *world) {
		w.offerRelease(w.Publish(t, "2.0", installtest.NewContent(0), true))
		w.want(config.Ready, "")
		if err := errors.Join(btrfs.EnableQuota(w.State), snapshot.Take(w.State, "2.0")); err != nil {
			t.Error(err)
		}
		for _, stage := range []attempt.Stage{attempt.Armed, attempt.Trial, attempt.Undoing} {
			a := w.record()
			a.Reach(stage, w.now)
			if err := a.Save(w.dir); err != nil {
				t.Error(err)
			}
			w.pass(24 * time.Hour)
			w.do()
			if got := w.record(); got.Stage != stage || w.restarts != 0 || !snapshot.Exists(w.State, "2.0") {
				t.Errorf("at stage %q: record %+v, %d restarts", stage, got, w.restarts)
			}
		}
	})
}
