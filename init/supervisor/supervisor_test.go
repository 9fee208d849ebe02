package supervisor

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"allotment/gateway"
	"allotment/image"
	"allotment/init/console"
	"allotment/init/journal"
	"allotment/init/network"
	"allotment/init/plan"
	"allotment/init/reaper"
	"allotment/init/state"
)

// lines is a console that can be waited for.
type lines struct {
	mu  sync.Mutex
	all string
	new chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	l.all += string(p)
	l.mu.Unlock()
	select {
	case l.new <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}

// await waits until the console has shown what.
func (l *lines) await(t *testing.T, what string) {
	t.Helper()
	l.awaitTimes(t, what, 1)
}

// awaitTimes waits until the console has shown what n times.
func (l *lines) awaitTimes(t *testing.T, what string, n int) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for strings.Count(l.text(), what) < n {
		select {
		case <-l.new:
		case <-limit:
			t.Fatalf("%q never came:\n%s", what, l.text())
		}
	}
}

// programJob runs an ordinary program, and notes in the diary what happens to it.
type programJob struct {
	name     string
	args     []string
	reaper   *reaper.Reaper
	diary    *diary
	unready  chan struct{} // the check waits until it is closed; nil: passes at once
	dead     chan error    // why it does not live
	patience time.Duration // until it is killed
}

type diary struct {
	mu      sync.Mutex
	entries []string
}

func (j *diary) note(s string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, s)
}

func (j *diary) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.entries, " ")
}

func (p *programJob) find() *reaper.Process { return nil }

func (p *programJob) start(context.Context) (*reaper.Process, error) {
	p.diary.note("+" + p.name)
	return p.reaper.Start(reaper.Spec{Path: p.args[0], Args: p.args[1:]})
}

func (p *programJob) check(ctx context.Context) error {
	if p.unready == nil {
		return nil
	}
	select {
	case <-p.unready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *programJob) live(ctx context.Context) error {
	select {
	case why := <-p.dead:
		return why
	case <-ctx.Done():
		return nil
	}
}

func (p *programJob) reload(q *reaper.Process) error {
	p.diary.note("~" + p.name)
	return q.Signal(unix.SIGHUP)
}

func (p *programJob) signal(q *reaper.Process) (time.Duration, error) {
	return p.patience, q.Signal(unix.SIGTERM)
}

func (p *programJob) kill(q *reaper.Process)         { q.Signal(unix.SIGKILL) }
func (p *programJob) cleanup(context.Context) string { p.diary.note("-" + p.name); return "" }

// program is a service for tests.
type program struct {
	name     string
	args     []string
	needs    []string
	unready  chan struct{}
	failed   int // times already
	dead     chan error
	patience time.Duration // default a minute
}

var forever = []string{"/bin/sleep", "1000"}

// box is a supervisor of programs.
type box struct {
	*Supervisor
	lines *lines
	diary *diary
	push  chan struct{} // the power button
	done  chan struct{} // closed when the loop has ended
}

// newBox makes a supervisor of one module with the programs as services, and of a gateway that is a program as well.
func newBox(t *testing.T, importance plan.Importance, programs ...program) *box {
	t.Helper()
	out := &lines{new: make(chan struct{}, 1)}
	screen := console.New(nil, []io.Writer{out})
	log := NewLog(screen)
	beats, beat, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "system"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := &plan.Module{Name: "web", Title: "Web", Importance: importance, Declared: &image.Module{Name: "web"}}
	m := &module{plan: p, on: true, settled: true, network: "/run/net/web", tasks: map[string]context.CancelFunc{}}
	b := &box{lines: out, diary: &diary{}, push: make(chan struct{}), done: make(chan struct{}), Supervisor: &Supervisor{
		plan: &plan.Plan{Modules: []*plan.Module{p}}, modules: []*module{m}, reaper: reaper.New(), events: make(chan any, 64),
		over: make(chan struct{}), ends: make(chan struct{}), log: log.Logger(), journal: journal.New(1), state: openState{},
		rule:    func(network.Rules) error { return nil },
		follows: func(context.Context, gateway.Config) error { return nil },
		config: Config{Manifest: &image.Manifest{Title: "Test", Version: "1.2"}, Slot: "b", Run: dir, State: dir,
			Heartbeat: beat, Console: screen, Log: log},
	}}
	byName := map[string]*unit{}
	for _, p := range programs {
		u := b.program(p, importance)
		u.module = m
		m.plan.Services = append(m.plan.Services, &plan.Service{Module: m.plan, Name: p.name, ID: "web." + p.name})
		for _, n := range p.needs {
			u.needs = append(u.needs, byName[n])
			byName[n].under = append(byName[n].under, u)
		}
		byName[p.name] = u
		b.units = append(b.units, u)
		m.units = append(m.units, u)
	}
	signal.Ignore(unix.SIGHUP) // which programs inherit: the gateway's stand-in does not read its routes again
	t.Cleanup(func() { signal.Reset(unix.SIGHUP) })
	b.gateway = b.program(program{name: "gateway", args: forever}, plan.Core)
	for _, u := range b.units {
		u.under = append(u.under, b.gateway)
	}
	b.daemons = []*unit{b.gateway}
	b.units = append(b.units, b.gateway)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		<-b.done
		screen.Close()
		b.reaper.Close()
		beats.Close()
		beat.Close()
	})
	go func() { b.loop(ctx, context.Background(), b.push); close(b.done) }()
	b.send(nil) // so that the loop takes its first step
	return b
}

func (b *box) program(p program, importance plan.Importance) *unit {
	return &unit{
		name: "web." + p.name, importance: importance, prepared: true, machine: machine{state: waiting, since: b.now(), failures: p.failed},
		job: &programJob{name: p.name, args: p.args, reaper: b.reaper, diary: b.diary, unready: p.unready,
			dead: p.dead, patience: cmp.Or(p.patience, time.Minute)},
	}
}

// end pushes the power button and returns the exit code.
func (b *box) end(t *testing.T) int {
	t.Helper()
	b.push <- struct{}{}
	b.wait(t)
	return b.exit
}

func (b *box) wait(t *testing.T) {
	t.Helper()
	select {
	case <-b.done:
	case <-time.After(20 * time.Second):
		t.Fatal("the box does not end")
	}
}

func TestOrderOfStartAndStop(t *testing.T) {
	unready := make(chan struct{})
	b := newBox(t, plan.Normal,
		program{name: "db", args: forever, unready: unready},
		program{name: "app", args: forever, needs: []string{"db"}},
		program{name: "page", args: forever, needs: []string{"app"}})
	b.lines.await(t, "Web: db checking, app waiting, page waiting")
	if strings.Contains(b.diary.String(), "+app") {
		t.Error("app started before db was ready")
	}
	if strings.Contains(b.lines.text(), "BOOT-OK") {
		t.Error("BOOT-OK before all was ready")
	}
	close(unready)
	b.lines.await(t, "BOOT-OK slot=b version=1.2 trial=no secs=")
	if code := b.end(t); code != PowerOff {
		t.Errorf("exit code %d", code)
	}
	text := b.diary.String()
	if !strings.Contains(text, "+app +page") || !strings.HasSuffix(text, "-gateway -page -app -db") {
		t.Errorf("order: %s", text)
	}
	if n := strings.Count(b.lines.text(), "BOOT-OK"); n != 1 {
		t.Errorf("%d times BOOT-OK", n)
	}
}

// The box does not count as ready before the gateway leads to its modules.
func TestReadyWhenTheGatewayKnows(t *testing.T) {
	unready, asked, knows := make(chan struct{}), make(chan struct{}), make(chan error)
	b := newBox(t, plan.Normal, program{name: "page", args: forever, unready: unready})
	err := b.call(func(context.Context) {
		b.follows = func(context.Context, gateway.Config) error { asked <- struct{}{}; return <-knows }
	})
	if err != nil {
		t.Fatal(err)
	}
	close(unready)
	<-asked
	knows <- errors.New("it follows other routes")
	<-asked
	if strings.Contains(b.lines.text(), "BOOT-OK") {
		t.Error("BOOT-OK although the gateway does not lead to the page")
	}
	knows <- nil
	b.lines.await(t, "BOOT-OK")
	b.end(t)
}

func TestServiceThatEndsIsStartedAgain(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "mark")
	once := "if [ -e " + mark + " ]; then exec sleep 1000; fi; touch " + mark + "; exit 7"
	b := newBox(t, plan.Normal, program{name: "page", args: []string{"/bin/sh", "-c", once}})
	b.lines.await(t, "page restarting (exit code 7)")
	b.lines.awaitTimes(t, "Web: page starting", 2)
	b.end(t)
	if text := b.diary.String(); strings.Count(text, "+page") != 2 {
		t.Errorf("starts: %s", text)
	}
}

// A service that ends before it was ready is not said to have been killed for that.
func TestCheckOfServiceThatEnds(t *testing.T) {
	children := reaper.New()
	defer children.Close()
	p, err := children.Start(reaper.Spec{Path: "/bin/true"})
	if err != nil {
		t.Fatal(err)
	}
	s := &Supervisor{events: make(chan any, 1)}
	s.check(t.Context(), &unit{job: &programJob{unready: make(chan struct{})}}, p)
	if len(s.events) > 0 {
		t.Errorf("told %+v", <-s.events)
	}
}

// A service that answers no more is killed and started again, and the reason told.
func TestServiceThatAnswersNoMore(t *testing.T) {
	dead := make(chan error)
	b := newBox(t, plan.Normal, program{name: "page", args: forever, dead: dead})
	b.lines.await(t, "BOOT-OK")
	dead <- errors.New("no answer 3 times in a row: connection refused")
	b.lines.await(t, "page restarting (no answer 3 times in a row: connection refused)")
	b.lines.awaitTimes(t, "Web: page starting", 2)
	b.end(t)
	if text := b.diary.String(); strings.Count(text, "+page") != 2 {
		t.Errorf("starts: %s", text)
	}
}

// PID 1 is told with every beat whether the box is ending, and how.
func TestBeats(t *testing.T) {
	beats, beat, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer beats.Close()
	defer beat.Close()
	said := make([]byte, 3)
	s := &Supervisor{config: Config{Heartbeat: beat}}
	s.writeBeat()
	s.ending = true
	s.writeBeat()
	s.exit = Reboot
	s.writeBeat()
	if _, err := io.ReadFull(beats, said); err != nil || string(said) != "\x01or" {
		t.Errorf("it said %q, %v", said, err)
	}
}

func TestCoreServiceThatFailsResetsTheBox(t *testing.T) {
	b := newBox(t, plan.Core, program{name: "page", args: []string{"/nonexistent"}, failed: mostFailures - 1})
	b.wait(t)
	if b.exit != Reboot {
		t.Errorf("exit code %d", b.exit)
	}
	b.lines.await(t, "BOOT-FAIL stage=services reason=web.page: cannot start")
	if strings.Contains(b.lines.text(), "BOOT-OK") {
		t.Error("BOOT-OK without a core service")
	}
}

func TestOptionalServiceThatFailsDegrades(t *testing.T) {
	b := newBox(t, plan.Optional, program{name: "page", args: []string{"/nonexistent"}, failed: mostFailures - 1})
	b.lines.await(t, "BOOT-OK")
	b.lines.await(t, "Web: page failed (cannot start")
	if code := b.end(t); code != PowerOff {
		t.Errorf("exit code %d", code)
	}
}

func TestResetsAreBounded(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "system"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := &Supervisor{config: Config{State: dir}, state: openState{}}
	for i := range mostResets {
		if !s.countReset() {
			t.Errorf("reset %d was refused", i+1)
		}
	}
	if s.countReset() {
		t.Error("the box resets itself for ever")
	}
	s.forgetResets()
	if !s.countReset() {
		t.Error("after a good boot the count goes on")
	}
}

// openState is a state partition that is there.
type openState struct{}

func (openState) Layer(image.Digest) (string, error)         { return "", nil }
func (openState) Volume(string, plan.Volume) (string, error) { return "", nil }
func (openState) Format(string, string) (int, error)         { return 0, nil }
func (openState) SetFormat(string, string, int) error        { return nil }
func (openState) Usage(string, string) (state.Usage, error)  { return state.Usage{}, nil }
func (openState) Disk() (state.Disk, error)                  { return roomy, nil }
func (openState) Close() error                               { return nil }
