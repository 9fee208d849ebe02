package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"allotment/api"
	"allotment/gateway"
	"allotment/image"
	"allotment/init/console"
	"allotment/init/journal"
	"allotment/init/network"
	"allotment/init/plan"
	"allotment/init/reaper"
	"allotment/init/state"
	"allotment/updater/gate"
)

// hostJob runs a service's command as an ordinary program of this machine.
type hostJob struct {
	box *declared

	mu      sync.Mutex
	service *plan.Service
}

func (j *hostJob) set(s *plan.Service) { j.mu.Lock(); j.service = s; j.mu.Unlock() }

func (j *hostJob) get() *plan.Service {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.service
}

func (j *hostJob) open(string, string, func(error)) error { return nil }
func (j *hostJob) close()                                 {}
func (j *hostJob) find() *reaper.Process                  { return nil }

func (j *hostJob) start(context.Context) (*reaper.Process, error) {
	s := j.get()
	j.box.diary.note("+" + s.ID)
	return j.box.reaper.Start(reaper.Spec{Path: s.Command[0], Args: s.Command[1:]})
}

func (j *hostJob) check(ctx context.Context) error {
	if ask := j.box.asks[j.get().ID]; ask != nil {
		return ask(ctx)
	}
	return nil
}

func (j *hostJob) live(ctx context.Context) error { <-ctx.Done(); return nil }

func (j *hostJob) reload(p *reaper.Process) error {
	j.box.diary.note("~" + j.get().ID)
	return p.Signal(unix.SIGUSR1)
}

func (j *hostJob) signal(p *reaper.Process) (time.Duration, error) {
	return j.get().StopTimeout, p.Signal(unix.SIGTERM)
}

func (j *hostJob) kill(p *reaper.Process)         { p.Signal(unix.SIGKILL) }
func (j *hostJob) cleanup(context.Context) string { j.box.diary.note("-" + j.get().ID); return "" }

// formats is a state partition that knows nothing but formats.
type formats struct {
	mu  sync.Mutex
	now map[string]int
}

func (*formats) Layer(image.Digest) (string, error)         { return "", nil }
func (*formats) Volume(string, plan.Volume) (string, error) { return "", nil }
func (*formats) Usage(string, string) (state.Usage, error) {
	return state.Usage{Used: 95, Limit: 100}, nil
}
func (*formats) Disk() (state.Disk, error) { return roomy, nil }
func (*formats) Close() error              { return nil }

func (f *formats) Format(module, volume string) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now[module+"/"+volume], nil
}

func (f *formats) SetFormat(module, volume string, format int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now[module+"/"+volume] = format
	return nil
}

// declared is a box of declared modules, whose commands are programs of this machine.
type declared struct {
	*Supervisor
	*Box
	dir    string
	diary  *diary
	lines  *lines
	asks   map[string]func(context.Context) error // by the services' ids
	rules  chan network.Rules                     // the latest
	stop   context.CancelFunc
	closed sync.Once
	done   chan struct{}
}

// newDeclared starts a box with the state in dir.
func newDeclared(t *testing.T, dir string, m *image.Manifest, asks map[string]func(context.Context) error) *declared {
	t.Helper()
	return newGated(t, dir, m, asks, nil)
}

// boxRuns: each box has a reaper, and of two in one process each would take ends of processes away from the other.
var boxRuns atomic.Bool

// newGated is newDeclared with a gate for updates.
func newGated(t *testing.T, dir string, m *image.Manifest, asks map[string]func(context.Context) error, g *gate.Gate) *declared {
	t.Helper()
	if !boxRuns.CompareAndSwap(false, true) {
		t.Fatal("another box runs still: end it first")
	}
	m.Organisation = image.Organisation{Name: "Club", Domain: "allotment.internal", Language: "en", TimeZone: "Etc/UTC"}
	for i := range m.Modules {
		m.Modules[i].Layers = []image.Digest{""}
		m.Modules[i].Memory.Max = 64
		if m.Modules[i].Title == "" {
			m.Modules[i].Title = m.Modules[i].Name
		}
	}
	p, err := plan.New(m)
	if err != nil {
		t.Fatal(err)
	}
	_, beat, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "state", "system"), 0o755); err != nil {
		t.Fatal(err)
	}
	b := &declared{dir: dir, diary: &diary{}, lines: &lines{new: make(chan struct{}, 1)}, asks: asks,
		rules: make(chan network.Rules, 1), done: make(chan struct{})}
	screen := console.New(nil, []io.Writer{b.lines})
	log := NewLog(screen)
	s := &Supervisor{
		reaper: reaper.New(), events: make(chan any, 64), over: make(chan struct{}), ends: make(chan struct{}),
		log: log.Logger(), manifest: m, journal: journal.New(1), booted: true,
		config: Config{Manifest: m, Slot: "a", Run: filepath.Join(dir, "run"), State: filepath.Join(dir, "state"),
			Heartbeat: beat, Console: screen, Log: log, Gate: g},
		began: time.Now(),
	}
	b.Supervisor, b.Box = s, &Box{s}
	s.newJob = func() containerJob { return &hostJob{box: b} }
	s.prepares = b.parts
	s.dismiss = func(*plan.Module) error { return nil }
	s.follows = func(context.Context, gateway.Config) error { return nil }
	s.runs = b.task
	s.rule = func(r network.Rules) error {
		select {
		case <-b.rules:
		default:
		}
		b.rules <- r
		return nil
	}
	s.gateway = &unit{name: "gateway", prepared: true, machine: machine{state: waiting, since: s.now()},
		job: &programJob{name: "gateway", args: forever, reaper: s.reaper, diary: &diary{}, patience: time.Minute}}
	s.daemons = []*unit{s.gateway}
	s.wire(p)
	ctx, cancel := context.WithCancel(context.Background())
	b.stop = cancel
	t.Cleanup(func() {
		b.end(t)
		log.Close()
		screen.Close()
		beat.Close()
	})
	go func() { s.loop(ctx, context.Background(), nil); close(b.done) }()
	goesOn, err := s.admit(&formats{now: map[string]int{}})
	if err != nil {
		t.Fatal(err)
	}
	if goesOn {
		s.send(eventModules{})
	}
	return b
}

// parts are what a module needs, without making anything.
func (b *declared) parts(st State, m *plan.Module) (parts, error) {
	out := parts{network: "/run/net", formats: map[string]int{}}
	for _, v := range m.Volumes {
		out.formats[v.Name], _ = st.Format(m.Name, v.Name)
	}
	if slices.Contains(m.Services[0].Env, "BROKEN=yes") {
		return out, errors.New("its layers do not fit together")
	}
	if left, err := os.ReadFile(b.flaws()); err == nil && len(left) > 0 {
		return out, errors.Join(errors.New("no such device"), os.WriteFile(b.flaws(), left[1:], 0o644))
	}
	return out, nil
}

// flaws is a file with a byte for each time that modules cannot be prepared from now on.
func (b *declared) flaws() string { return filepath.Join(b.dir, "flaws") }

// task runs a task as a program.
func (b *declared) task(ctx context.Context, s *plan.Service, _ string, output *os.File) error {
	b.diary.note("+" + s.ID)
	p, err := b.reaper.Start(reaper.Spec{Path: s.Command[0], Args: s.Command[1:], Stdout: output, Stderr: output})
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
		return p.Err()
	case <-ctx.Done():
		p.Signal(unix.SIGKILL)
		<-p.Done()
		return ctx.Err()
	}
}

// awaitState waits until the service, such as web.php, is in that state.
func (b *declared) awaitState(t *testing.T, service string, want phase) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := b.await(ctx, func() bool { return b.unit(service).machine.state == want }); err != nil {
		t.Fatalf("%s is never %s: %v\n%s", service, want, err, b.lines.text())
	}
}

// end stops the box and returns what it did.
func (b *declared) end(t *testing.T) string {
	t.Helper()
	b.stop()
	select {
	case <-b.done:
	case <-time.After(20 * time.Second):
		t.Fatal("the box does not end")
	}
	b.closed.Do(func() { b.reaper.Close(); boxRuns.Store(false) })
	return b.diary.String()
}

// told is what the events say, each on a line.
func (b *declared) told() string {
	var all []string
	for e := range b.Events(context.Background(), api.EventQuery{}) {
		all = append(all, fmt.Sprintf("%s %s %s", e.Level, e.Kind, e.Text))
	}
	return strings.Join(all, "\n")
}

func sh(script string) []string { return []string{"/bin/sh", "-c", script} }

// trueService is a service that runs until it is ended.
func trueService(name string, needs ...string) image.Service {
	return image.Service{Name: name, Command: []string{"/bin/sleep", "1000"}, User: "root", Needs: needs}
}

func TestNeedsAcrossModules(t *testing.T) {
	gate := make(chan struct{})
	b := newDeclared(t, t.TempDir(), &image.Manifest{Modules: []image.Module{
		{Name: "web", Services: []image.Service{trueService("php", "base.db")}},
		{Name: "base", Services: []image.Service{trueService("db")}},
	}}, map[string]func(context.Context) error{"base.db": func(context.Context) error { <-gate; return nil }})
	b.awaitState(t, "base.db", checking)
	if b.diary.String() != "+base.db" {
		t.Errorf("before base.db is ready: %s", b.diary)
	}
	close(gate)
	b.awaitState(t, "web.php", ready)
	if got := b.end(t); got != "+base.db +web.php -web.php -base.db" {
		t.Errorf("order: %s", got)
	}
}

// migrating is a module with a volume whose second migration runs the script.
func withMigrations(script string) *image.Manifest {
	task := func(s string) image.Task { return image.Task{Command: sh(s), User: "root"} }
	return &image.Manifest{Modules: []image.Module{{
		Name: "web", Services: []image.Service{trueService("db"), trueService("php", "db")},
		Volumes: []image.Volume{{Name: "data", Path: "/data", Class: "content", User: "root", Format: 2}},
		Migrations: []image.Migration{
			{Volume: "data", Format: 1, Task: task("echo made")},
			{Volume: "data", Format: 2, Needs: []string{"db"}, Task: task(script)},
		},
	}}}
}

func TestMigrationsRunOnceAndInOrder(t *testing.T) {
	dir := t.TempDir()
	b := newDeclared(t, dir, withMigrations("true"), nil)
	b.awaitState(t, "web.php", ready)
	want := "+web.migrate-data-1 +web.db +web.migrate-data-2 +web.php"
	if got := b.diary.String(); got != want {
		t.Errorf("order: %s", got)
	}
	if n, _ := b.state.Format("web", "data"); n != 2 {
		t.Errorf("the volume has format %d", n)
	}
	last := collectTask(t, b, api.Task{Module: "web", Kind: api.Migration, Name: "data-2"})
	if !isCode(last.err, api.Conflict) {
		t.Errorf("a migration that is done runs again: %v", last.err)
	}
}

func TestMigrationThatFails(t *testing.T) {
	mended := filepath.Join(t.TempDir(), "mended")
	b := newDeclared(t, t.TempDir(), withMigrations("echo looking; echo table wp_posts is damaged; test -e "+mended), nil)
	b.lines.await(t, "a migration failed")
	b.awaitState(t, "web.db", ready)
	why := "to format 2 failed: exit code 1: looking\ntable wp_posts is damaged"
	if s := b.Modules()[0]; s.State != "failed" || !strings.Contains(s.Problem, why) {
		t.Errorf("%s: %s", s.State, s.Problem)
	}
	if strings.Contains(b.diary.String(), "+web.php") {
		t.Error("a service started on data of the wrong format")
	}
	task := api.Task{Module: "web", Kind: api.Migration, Name: "data-2"}
	if last := collectTask(t, b, task); last.err != nil || last.OK {
		t.Errorf("once more: %+v", last)
	}
	if err := os.WriteFile(mended, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if last := collectTask(t, b, task); last.err != nil || !last.OK {
		t.Errorf("when it is mended: %+v", last)
	}
	b.awaitState(t, "web.php", ready)
}

// outcome is the last that a task tells.
type outcome struct {
	api.Progress
	err   error
	steps []string
}

func collectTask(t *testing.T, b *declared, task api.Task) (o outcome) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for p, err := range b.RunTask(ctx, task) {
		if p.Step > 0 && p.Done {
			o.steps = append(o.steps, fmt.Sprintf("%s: %v %s", p.Title, p.OK, p.Output))
		}
		o.Progress, o.err = p, err
	}
	return o
}

func isCode(err error, code api.Code) bool { return errors.Is(err, &api.Error{Code: code}) }

func TestTasks(t *testing.T) {
	task := func(script string) *image.Task { return &image.Task{Command: sh(script), User: "root"} }
	b := newDeclared(t, t.TempDir(), &image.Manifest{Modules: []image.Module{{
		Name: "web", Services: []image.Service{trueService("php")},
		Journeys: []image.Journey{
			{Name: "read", Steps: []image.Step{{Title: "one", Task: task("echo 1")}, {Title: "two", Task: task("echo 2")}}},
			{Name: "write", Steps: []image.Step{{Title: "one", Task: task("echo no; exit 4")}, {Title: "two", Task: task("true")}}},
		},
		Repairs: []image.Repair{{Name: "reindex", Title: "Index again", Help: "takes a minute", Task: *task("exec sleep 1000")}},
		Backup:  &image.Backup{Dump: task("true")},
	}}}, nil)
	b.awaitState(t, "web.php", ready)
	if n := len(b.Tasks()); n != 4 {
		t.Errorf("%d tasks", n)
	}
	o := collectTask(t, b, api.Task{Module: "web", Kind: api.Journey, Name: "read"})
	if !o.OK || strings.Join(o.steps, ", ") != "one: true 1, two: true 2" {
		t.Errorf("read: %+v", o)
	}
	o = collectTask(t, b, api.Task{Module: "web", Kind: api.Journey, Name: "write"})
	if o.OK || o.Problem != "exit code 4" || o.Output != "no" || len(o.steps) != 1 {
		t.Errorf("write: %+v", o)
	}
	if o := collectTask(t, b, api.Task{Module: "web", Kind: api.Backup, Name: "dump"}); !o.OK {
		t.Errorf("dump: %+v", o)
	}
	for _, x := range []api.Task{{Module: "gone", Kind: api.Repair, Name: "x"}, {Module: "web", Kind: api.Backup, Name: "verify"}} {
		if o := collectTask(t, b, x); !isCode(o.err, api.NotFound) {
			t.Errorf("%+v: %v", x, o.err)
		}
	}
	text := strings.Join(logTexts(t, b, api.LogQuery{Module: "web", Service: "task-journey-write-1", Lines: 9}), "|")
	if text != "no" {
		t.Errorf("the task's log has %q", text)
	}
	// A task ends with its module, and one of a name runs at a time.
	repair := api.Task{Module: "web", Kind: api.Repair, Name: "reindex"}
	ended := make(chan outcome, 1)
	go func() { ended <- collectTask(t, b, repair) }()
	if err := b.await(t.Context(), func() bool { return len(b.modules[0].tasks) == 1 }); err != nil {
		t.Fatal(err)
	}
	if o := collectTask(t, b, repair); !isCode(o.err, api.Conflict) {
		t.Errorf("twice at once: %v", o.err)
	}
	if err := b.Switch(t.Context(), "web", false); err != nil {
		t.Error(err)
	}
	if o := <-ended; o.OK {
		t.Error("a repair went on without its module")
	}
	if o := collectTask(t, b, repair); !isCode(o.err, api.Conflict) {
		t.Errorf("of a module that is off: %v", o.err)
	}
}

// A restore has the data for itself, goes on to its end when who asked for it leaves, and the services run again after it,
// even if it failed.
func TestRestoreStopsServices(t *testing.T) {
	dir := t.TempDir()
	runs, leave := filepath.Join(dir, "runs"), filepath.Join(dir, "leave")
	look := "test ! -e " + runs + " || exit 8"
	db := image.Service{Name: "db", User: "root", Command: sh("touch " + runs + "; trap 'rm " + runs + "; exit 0' TERM; " +
		"while true; do sleep 0.01; done")}
	restore := &image.Restore{Stops: []string{"db"}, Task: image.Task{User: "root",
		Command: sh(look + "; until test -e " + leave + "; do sleep 0.01; done; exit 4")}}
	b := newDeclared(t, dir, &image.Manifest{Modules: []image.Module{{
		Name: "web", Services: []image.Service{db, trueService("php")}, Backup: &image.Backup{Restore: restore},
		Repairs: []image.Repair{{Name: "look", Task: image.Task{User: "root", Command: sh(look)}}},
	}}}, map[string]func(context.Context) error{"web.db": func(ctx context.Context) error {
		for ctx.Err() == nil {
			if _, err := os.Stat(runs); err == nil {
				return nil
			}
		}
		return ctx.Err()
	}})
	b.awaitState(t, "web.db", ready)
	b.awaitState(t, "web.php", ready)
	if o := collectTask(t, b, api.Task{Module: "web", Kind: api.Repair, Name: "look"}); o.Problem != "exit code 8" {
		t.Errorf("beside a task that stops nothing the service does not run: %+v", o)
	}
	ctx, cancel := context.WithCancel(t.Context())
	last := make(chan outcome, 1)
	go func() {
		var o outcome
		for p, err := range b.RunTask(ctx, api.Task{Module: "web", Kind: api.Backup, Name: "restore"}) {
			o.Progress, o.err = p, err
		}
		last <- o
	}()
	b.awaitState(t, "web.db", stopped)
	cancel()
	if err := os.WriteFile(leave, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if o := <-last; o.err != nil || o.Problem != "exit code 4" {
		t.Errorf("restore: %+v", o)
	}
	b.awaitState(t, "web.db", ready)
	if d := b.diary.String(); strings.Count(d, "+web.db") != 2 || strings.Count(d, "+web.php") != 1 {
		t.Errorf("what was started: %s", d)
	}
}

// TestOwnLogs reads the log of a daemon that only some images have. A service that has none is no service.
func TestOwnLogs(t *testing.T) {
	dir := t.TempDir()
	b := newDeclared(t, dir, &image.Manifest{Modules: []image.Module{{Name: "web", Services: []image.Service{trueService("php")}}}}, nil)
	b.awaitState(t, "web.php", ready)
	folder := filepath.Join(b.supervisor.config.State, "logs", "system")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "portal.log"), []byte("2026-11-22T12:00:00.000Z hello\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := logTexts(t, b, api.LogQuery{Service: "portal", Lines: -1}); !slices.Equal(got, []string{"hello"}) {
		t.Errorf("lines %q", got)
	}
	for _, err := range b.Logs(t.Context(), api.LogQuery{Service: "../web/php", Lines: -1}) {
		if err == nil {
			t.Error("a log that is nowhere was read")
		}
	}
}

func logTexts(t *testing.T, b *declared, q api.LogQuery) (texts []string) {
	t.Helper()
	for l, err := range b.Logs(t.Context(), q) {
		if err != nil {
			t.Error(err)
		}
		texts = append(texts, l.Text)
	}
	return texts
}

func TestSwitch(t *testing.T) {
	dir := t.TempDir()
	m := func() *image.Manifest {
		return &image.Manifest{Modules: []image.Module{
			{Name: "base", Services: []image.Service{trueService("db")}},
			{Name: "core", Importance: "core", Services: []image.Service{trueService("x")}},
			{Name: "web", Services: []image.Service{trueService("php", "base.db"), trueService("nginx", "php")}},
		}}
	}
	b := newDeclared(t, dir, m(), nil)
	b.awaitState(t, "web.nginx", ready)
	for name, want := range map[string]string{"core": "belongs to the core", "base": "needed by web", "gone": "no module"} {
		if err := b.Switch(t.Context(), name, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("switching off %s: %v", name, err)
		}
	}
	if err := b.Switch(t.Context(), "web", false); err != nil {
		t.Fatal(err)
	}
	if s := b.Modules()[2]; s.State != "off" || s.Services[0].State != "stopped" {
		t.Errorf("web is %+v", s)
	}
	if r := <-b.rules; len(r.Modules) != 2 {
		t.Errorf("the rules are of %d modules", len(r.Modules))
	}
	if err := b.Restart(t.Context(), "web", "php"); !isCode(err, api.Conflict) {
		t.Errorf("a service of a module that is off starts: %v", err)
	}
	b.end(t)
	b = newDeclared(t, dir, m(), nil) // the next boot
	b.awaitState(t, "base.db", ready)
	b.awaitState(t, "web.php", stopped)
	if err := b.Switch(t.Context(), "base", false); err != nil {
		t.Errorf("nobody needs it now: %v", err)
	}
	if err := b.Switch(t.Context(), "web", true); err == nil || !strings.Contains(err.Error(), "needs what is off: base") {
		t.Errorf("switched on without what it needs: %v", err)
	}
	for _, name := range []string{"base", "web"} {
		if err := b.Switch(t.Context(), name, true); err != nil {
			t.Error(err)
		}
	}
	b.awaitState(t, "web.nginx", ready)
}

// configured is a module whose services php and db depend on a template each.
func configured(dir string) *image.Manifest {
	follow := func(name string) []string {
		file := filepath.Join(dir, "run/config/web", name)
		return sh("trap 'kill $!; exit 0' TERM; grep -q bad " + file + " && exit 9; sleep 1000 & wait")
	}
	return &image.Manifest{Modules: []image.Module{{
		Name: "web", Services: []image.Service{
			{Name: "php", Command: follow("php.ini"), User: "root"},
			{Name: "db", Command: follow("db.cnf"), User: "root", StopTimeout: 5},
		},
		Settings: []image.Setting{
			{Name: "title", Title: "Title", Type: "string", Default: "Club"},
			{Name: "cache", Title: "Cache", Type: "integer", Default: 5, Min: 1, Max: 10},
		},
		Templates: []image.Template{
			{Name: "php.ini", Source: "php.tmpl", User: "root", Services: []string{"php"}, Text: "title={{.Settings.title}}\n"},
			{Name: "db.cnf", Source: "db.tmpl", User: "root", Services: []string{"db"},
				Text: "cache={{.Settings.cache}}\n{{if eq .Settings.cache 9}}\n{{index .Settings.title 99}}{{end}}"},
		},
	}}}
}

func TestSettingRestartsWhatDependsOnIt(t *testing.T) {
	dir := t.TempDir()
	b := newDeclared(t, dir, configured(dir), nil)
	b.awaitState(t, "web.php", ready)
	b.awaitState(t, "web.db", ready)
	if err := b.SetSettings(t.Context(), "web", map[string]any{"title": "Garden"}); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(filepath.Join(dir, "run/config/web/php.ini")); string(got) != "title=Garden\n" {
		t.Errorf("php.ini is %q", got)
	}
	if d := b.diary.String(); strings.Count(d, "+web.php") != 2 || strings.Count(d, "+web.db") != 1 {
		t.Errorf("what was restarted: %s", d)
	}
	if v, err := b.Settings("web"); err != nil || v.Values["title"] != "Garden" {
		t.Errorf("%v, %v", v.Values, err)
	}
	if !strings.Contains(b.told(), "good settings settings of web were changed") {
		t.Errorf("events:\n%s", b.told())
	}
}

// Nobody has to wait for a change that has begun.
func TestSettingGoesOnWithoutItsClient(t *testing.T) {
	dir := t.TempDir()
	b := newDeclared(t, dir, configured(dir), nil)
	b.awaitState(t, "web.php", ready)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.SetSettings(gone, "web", map[string]any{"title": "Garden"}); err != nil {
		t.Fatal(err)
	}
	if v, err := b.Settings("web"); err != nil || v.Values["title"] != "Garden" {
		t.Errorf("%v, %v", v.Values, err)
	}
}

func TestSettingThatCannotBeRendered(t *testing.T) {
	dir := t.TempDir()
	b := newDeclared(t, dir, configured(dir), nil)
	b.awaitState(t, "web.db", ready)
	for _, c := range []struct {
		module string
		values map[string]any
		want   string
	}{
		{"web", map[string]any{"cache": 11}, "cache: must be"},
		{"web", map[string]any{"colour": "red"}, "colour: is no setting"},
		{"web", map[string]any{"cache": 9}, "db.tmpl:3"},
		{"", map[string]any{"domain": "no domain"}, "domain: "},
		{"", map[string]any{"motto": "dig"}, "motto: is no field"},
		{"gone", map[string]any{"x": 1}, "no module"},
	} {
		if err := b.SetSettings(t.Context(), c.module, c.values); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.values, err)
		}
	}
	if d := b.diary.String(); strings.Contains(d, "-web") {
		t.Errorf("something was restarted: %s", d)
	}
	if v, _ := b.Settings("web"); v.Values["cache"] != 5 {
		t.Errorf("something was kept: %v", v.Values)
	}
}

func TestSettingThatDoesNotWorkIsTakenBack(t *testing.T) {
	dir := t.TempDir()
	b := newDeclared(t, dir, configured(dir), nil)
	b.awaitState(t, "web.php", ready)
	b.awaitState(t, "web.db", ready)
	err := b.SetSettings(t.Context(), "web", map[string]any{"title": "bad"})
	if !isCode(err, api.Conflict) || !strings.Contains(err.Error(), "taken back, because with it web.php: exit code 9") {
		t.Fatalf("the error is %v", err)
	}
	if got, _ := os.ReadFile(filepath.Join(dir, "run/config/web/php.ini")); string(got) != "title=Club\n" {
		t.Errorf("php.ini is %q", got)
	}
	b.awaitState(t, "web.php", ready)
	if v, _ := b.Settings("web"); v.Values["title"] != "Club" {
		t.Errorf("the setting is %v", v.Values["title"])
	}
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	m := configured(dir)
	m.Developer = true
	b := newDeclared(t, dir, m, nil)
	b.awaitState(t, "web.db", ready)
	if err := os.MkdirAll(filepath.Join(dir, "state/developer"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.layerFile(image.Digest("")), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	next := m.Modules[0]
	next.Services = []image.Service{trueService("php"), trueService("cron", "php")}
	next.Templates = next.Templates[:1]
	if err := b.Replace(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	b.awaitState(t, "web.cron", ready)
	if names := b.Modules()[0].Services; len(names) != 2 || !strings.Contains(b.diary.String(), "-web.db") {
		t.Errorf("services %v after %s", names, b.diary)
	}
	broken := next
	broken.Services = []image.Service{{Name: "php", Command: sh("true"), User: "root", Env: []string{"BROKEN=yes"}}}
	if err := b.Replace(t.Context(), broken); err == nil || !strings.Contains(err.Error(), "layers do not fit") {
		t.Errorf("a module that cannot run: %v", err)
	}
	b.awaitState(t, "web.cron", ready)
	broken.Services = []image.Service{trueService("php", "gone")}
	if err := b.Replace(t.Context(), broken); !isCode(err, api.Invalid) {
		t.Errorf("a module that makes no sense: %v", err)
	}
	extra := image.Module{
		Name: "more", Title: "More", Layers: next.Layers, Memory: next.Memory, Services: []image.Service{trueService("x")},
	}
	if err := b.Replace(t.Context(), extra); err != nil {
		t.Errorf("a new module: %v", err)
	}
	b.awaitState(t, "more.x", ready)
}

// A service that dies at once, for ever, costs a handful of starts and a line each.
func TestRestartStorm(t *testing.T) {
	b := newDeclared(t, t.TempDir(), &image.Manifest{Modules: []image.Module{{
		Name: "web", Importance: "optional", Services: []image.Service{{Name: "php", Command: sh("exit 3"), User: "root"}},
	}}}, nil)
	b.awaitState(t, "web.php", backoff)
	if err := b.call(func(ctx context.Context) { b.unit("web.php").machine.failures = mostFailures - 1 }); err != nil {
		t.Fatal(err)
	}
	b.awaitState(t, "web.php", failed)
	starts := strings.Count(b.diary.String(), "+web.php")
	if starts > mostFailures {
		t.Errorf("%d starts", starts)
	}
	b.lines.awaitTimes(t, "unit=web.php", starts)
	if lines := strings.Count(b.lines.text(), "unit=web.php"); lines != starts {
		t.Errorf("%d starts, %d lines", starts, lines)
	}
	if s := b.Modules()[0]; s.State != "failed" || s.Problem != "php: exit code 3" || s.Services[0].Restarts != starts {
		t.Errorf("%+v", s)
	}
	h := b.Health() // the box has no network, which is bad; an optional module is not
	if lamp := h.Lamps[0]; h.Level != api.Bad || lamp.Level != api.Fair || lamp.Text != "does not work: php: exit code 3" {
		t.Errorf("%+v", h)
	}
	if err := b.Restart(t.Context(), "web", "php"); err != nil {
		t.Error(err)
	}
	b.awaitState(t, "web.php", backoff)
}

func TestStopTimeout(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "deaf")
	b := newDeclared(t, t.TempDir(), &image.Manifest{Modules: []image.Module{{
		Name: "web", Services: []image.Service{{Name: "php", User: "root", StopTimeout: 1,
			Command: sh("trap '' TERM; touch " + mark + "; while true; do sleep 1; done")}},
	}}}, map[string]func(context.Context) error{"web.php": func(ctx context.Context) error {
		for ctx.Err() == nil {
			if _, err := os.Stat(mark); err == nil {
				return nil
			}
		}
		return ctx.Err()
	}})
	b.awaitState(t, "web.php", ready)
	b.end(t)
	b.lines.await(t, "a service does not end in time unit=web.php")
}

// A signal that comes before the service has a handler is lost, as for the first process of a container.
func TestStopWhileStarting(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "asked")
	deafOnce := sh("trap 'touch " + mark + "' TERM; until test -e " + mark + "; do sleep 0.01; done; " +
		"trap 'exit 0' TERM; while true; do sleep 0.01; done")
	b := newDeclared(t, t.TempDir(), &image.Manifest{Modules: []image.Module{{
		Name: "web", Services: []image.Service{{Name: "php", User: "root", StopTimeout: 600, Command: deafOnce}},
	}}}, map[string]func(context.Context) error{"web.php": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
	b.awaitState(t, "web.php", checking)
	b.end(t)
}

func TestVolumesThatFill(t *testing.T) {
	b := newDeclared(t, t.TempDir(), withMigrations("true"), nil)
	b.awaitState(t, "web.php", ready)
	for range 2 { // it is told once
		b.send(eventVolumes{fullVolumes(b.plan, b.state)})
	}
	if err := b.await(t.Context(), func() bool { return len(b.fullVolumes) == 1 }); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.told(), "fair disk volume web/data is nearly full"); n != 1 {
		t.Errorf("told %d times:\n%s", n, b.told())
	}
}
