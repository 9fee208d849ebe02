// Package supervisor runs the box after PID 1: network, time, state partition, the modules' services and the gateway. One
// goroutine, the loop, holds all of its state; everything that can take time runs beside it and reports by events. If
// the supervisor dies, services go on, and the next one takes them over.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"allotment/api"
	"allotment/gateway"
	"allotment/image"
	"allotment/init/backup"
	"allotment/init/clock"
	"allotment/init/console"
	"allotment/init/container"
	"allotment/init/journal"
	"allotment/init/network"
	"allotment/init/plan"
	"allotment/init/power"
	"allotment/init/reaper"
	"allotment/init/state"
	"allotment/updater/config"
	"allotment/updater/gate"
)

// The exit codes by which PID 1 is told what to do.
const (
	PowerOff = 0
	Reboot   = 100
)

// State is the opened state partition.
type State interface {
	// Layer returns the file of a layer, whose digest was checked.
	Layer(d image.Digest) (string, error)
	// Volume returns the folder of a module's volume, which is made if it is not there.
	Volume(module string, v plan.Volume) (string, error)
	// Format returns the version of a volume's content.
	Format(module, volume string) (int, error)
	// SetFormat notes the version of a volume's content, durably.
	SetFormat(module, volume string, format int) error
	// Usage returns how full a volume is.
	Usage(module, volume string) (state.Usage, error)
	// Disk returns how full the state partition is.
	Disk() (state.Disk, error)
	Close() error
}

// Config is what the supervisor works with.
type Config struct {
	Manifest  *image.Manifest
	Slot      image.Slot
	Trial     bool   // the boot loader says that it counts this start: a hint until the gate has decided
	Run       string // folder for what lives until the next boot
	State     string // mount point of the state partition
	Gateway   string // program
	Resolver  string // program
	Portal    string // program; empty: none
	Listen    string // the gateway's address for HTTP
	ListenTLS string // the gateway's address for HTTPS, of TCP and UDP
	ACME      gateway.ACME
	Provider  Provider // nil: nobody has chosen a claim code
	Container container.Config
	OpenState func(context.Context) (State, error)
	Gate      *gate.Gate                  // decides whether a new release stays; nil: nobody does
	Updater   string                      // program that finds new releases; empty: none
	Update    config.Config               // what it is told
	Restic    string                      // program that makes backups; empty: none
	Serve     func(context.Context, *Box) // answers the API until the context ends; nil: nobody does
	Heartbeat *os.File                    // a byte of keeper's is written there every two seconds
	Console   *console.Console
	Log       *Log
}

// Supervisor is the running box.
type Supervisor struct {
	config  Config
	log     *slog.Logger
	reaper  *reaper.Reaper
	runtime *container.Runtime
	clock   *clock.Clock
	journal *journal.Journal
	events  chan any
	over    chan struct{} // closed when the loop has ended
	online  chan struct{}

	manifest *image.Manifest // as the box runs it: developers replace modules
	plan     *plan.Plan
	modules  []*module
	units    []*unit // services and daemons
	daemons  []*unit
	gateway  *unit
	net      network.Status
	resolver *unit        // nil where there is none
	updater  *unit        // likewise
	portal   *unit        // likewise
	upstream resolverAddr // the network's resolver
	domain   string       // of the organisation
	synced   time.Time    // when the time servers were followed last
	state    State
	files    *files
	waits    []wait
	ends     chan struct{}   // closed when the box begins to end
	folder   string          // of the gateway's certificates; empty before it is there
	handed                   // what lies there
	claim    string          // code; empty once the box is claimed, and before it is decided
	locked   bool            // nobody can claim the box before the next boot
	trial    *trial          // nil: this release is not on trial
	settling bool            // a release stays, and the boot loader is being told
	stranded bool            // no module may start, see gate.Stranded
	backups  *backup.Service // nil until modules can be prepared, and where there is none
	opened   bool            // backups is there, or will be
	proving  *plan.Module    // a second instance that a backup is proven by; nil: none

	shortage    string    // which service wanted for memory last
	shortageAt  time.Time // and when that was
	fullVolumes []string  // nearly, as module/volume
	renewed     time.Time // when certificates were looked at last

	booted bool // BOOT-OK was printed
	judged bool // all is ready, and the gateway is asked whether it knows
	learns bool // an earlier supervisor's services are being found again: what it told the daemons still counts
	began  time.Time
	ending bool
	exit   int

	changing sync.Mutex     // held while settings change or a module is replaced
	mounting sync.Mutex     // held while the disk that updates come from is mounted
	reading  sync.WaitGroup // what reads in the state partition beside the loop

	// What touches the machine, so that tests can do it otherwise.
	newJob   func() containerJob
	prepares func(State, *plan.Module) (parts, error)
	dismiss  func(*plan.Module) error
	runs     func(ctx context.Context, task *plan.Service, network string, output *os.File) error
	rule     func(network.Rules) error
	follows  func(context.Context, gateway.Config) error // waits until the gateway does
}

// New prepares a supervisor for the manifest.
func New(c Config, r *reaper.Reaper) (*Supervisor, error) {
	p, err := plan.New(c.Manifest)
	if err != nil {
		return nil, err
	}
	s := &Supervisor{
		config: c, log: c.Log.Logger(), reaper: r, runtime: container.New(c.Container, r), manifest: c.Manifest,
		events: make(chan any, 64), over: make(chan struct{}), ends: make(chan struct{}), online: make(chan struct{}, 1),
		exit: PowerOff,
	}
	s.newJob = func() containerJob { return &serviceJob{runtime: s.runtime} }
	s.prepares, s.dismiss, s.runs, s.rule = s.prepare, s.runtime.Dismiss, s.runtime.Run, network.SetRules
	s.follows = s.askGateway
	_, err = os.Stat(s.bootMark())
	s.booted = err == nil
	s.learns, s.began = s.booted, s.now()
	s.journal = journal.New(firstEvent(s.booted))
	s.clock = clock.New(time.Unix(c.Manifest.Epoch, 0), c.Manifest.Time.Servers, s.upstream.get, s.warn)
	if err := s.addGateway(); err != nil {
		return nil, err
	}
	if err := s.addResolver(); err != nil {
		return nil, err
	}
	if err := s.addUpdater(); err != nil {
		return nil, err
	}
	if err := s.addPortal(); err != nil {
		return nil, err
	}
	s.wire(p)
	return s, nil
}

// firstEvent is the number of the first event. A supervisor that takes over goes on with greater numbers than the one
// before, which has not made a thousand events in a second.
func firstEvent(takesOver bool) uint64 {
	if !takesOver {
		return 1
	}
	return uint64(uptime() / time.Millisecond)
}

func (s *Supervisor) now() time.Time { return time.Now() } // monotonic: steps of the clock do not matter

// send gives an event to the loop; after the loop's end nobody wants to know.
func (s *Supervisor) send(event any) {
	select {
	case s.events <- event:
	case <-s.over:
	}
}

func (s *Supervisor) warn(err error) { s.log.Warn("going on after an error", "error", err) }

// connectDaemons lets the gateway start first, so that visitors are told to wait, and stop first, before the portal; and the
// resolver be there before all services and after them.
func (s *Supervisor) connectDaemons() {
	if s.portal != nil {
		s.portal.under = append(s.portal.under, s.gateway)
	}
	for _, u := range s.units {
		u.under = append(u.under, s.gateway)
		if s.resolver != nil {
			u.needs = append(u.needs, s.resolver)
			s.resolver.under = append(s.resolver.under, u)
		}
	}
}

// record notes an event for those who ask what happened; u may say which service it is about.
func (s *Supervisor) record(e api.Event, u *unit) {
	if u != nil && u.module != nil {
		e.Module = u.module.plan.Name
		e.Service = strings.TrimPrefix(u.name, e.Module+".")
	} else if u != nil {
		e.Service = u.name
	}
	s.journal.Add(e, s.wallClock())
}

// heartbeatEvery is well below the 30 s after which PID 1 takes the supervisor for hung.
const heartbeatEvery = 2 * time.Second

// Run runs the box until ctx ends or the power button is pushed, stops it, and returns the exit code for PID 1.
func (s *Supervisor) Run(ctx context.Context) int {
	work, cancel := context.WithCancel(context.Background()) // outlives ctx by the time that stopping takes
	defer cancel()
	for _, err := range []error{tuneMemory(""), s.clock.Begin()} {
		if err != nil {
			s.warn(err)
		}
	}
	s.show()
	pushed := make(chan struct{})
	go func() {
		if err := power.Watch(work, "/dev/input", pushed); err != nil {
			s.warn(err)
		}
	}()
	brought := make(chan struct{})
	go func() { s.bringUp(work); close(brought) }()
	if s.config.Serve != nil {
		go s.config.Serve(work, &Box{s})
	}
	s.loop(ctx, work, pushed)
	cancel()
	last, stop := context.WithTimeout(context.Background(), tearDownBudget)
	defer stop()
	go s.beat(last)
	select {
	case <-brought: // the clock's goroutine among others
	case <-time.After(bringUpEnd):
	}
	s.tearDown()
	return s.exit
}

// beat tells PID 1 until ctx ends that the supervisor lives.
func (s *Supervisor) beat(ctx context.Context) {
	beat := time.NewTicker(heartbeatEvery)
	defer beat.Stop()
	for {
		select {
		case <-beat.C:
			s.writeBeat()
		case <-ctx.Done():
			return
		}
	}
}

// loop follows events until all has stopped. It begins to stop when ctx ends or a button is pushed; what it starts
// belongs to the context work.
func (s *Supervisor) loop(ctx, work context.Context, pushed <-chan struct{}) {
	defer close(s.over)
	beat := time.NewTicker(heartbeatEvery)
	defer beat.Stop()
	asked := ctx.Done()
	for !s.ended() {
		select {
		case <-beat.C:
			s.writeBeat()
		case <-asked:
			asked = nil
			s.stop("asked by PID 1")
		case <-pushed:
			s.stop("power button")
		case e := <-s.events:
			s.handle(work, e)
		}
		s.step(work)
	}
}

// handle follows one event.
func (s *Supervisor) handle(ctx context.Context, event any) {
	switch e := event.(type) {
	case eventStarted:
		s.onStarted(ctx, e)
	case eventChecked:
		s.onChecked(ctx, e)
	case eventExited:
		s.onExited(ctx, e)
	case eventDead:
		s.onDead(ctx, e)
	case eventPauseOver:
		if e.unit.machine.since.Equal(e.since) {
			e.unit.machine.overBackoff(s.now())
		}
	case eventOverdue:
		s.onOverdue(ctx, e)
	case eventGivenUp:
		s.onGivenUp(e)
	case eventNetwork:
		s.onNetwork(e)
	case eventFirewalled:
		s.onFirewalled(ctx)
	case eventState:
		s.onState(ctx, e)
	case eventAnother:
		s.onAnother(e)
	case eventModules:
		s.onModules(ctx)
	case eventPrepared:
		s.onPrepared(ctx, e)
	case eventPrepareAgain:
		s.onPrepareAgain(ctx, e)
	case eventBroken:
		s.fail(e.stage, e.err)
	case eventMigrated:
		s.onMigrated(e)
	case eventTaskEnded:
		delete(e.module.tasks, e.id)
	case eventFollowed:
		s.onFollowed(e)
	case eventPatrol:
		s.patrol(ctx)
	case eventVolumes:
		s.onVolumes(e)
	case eventVolumesMade:
		s.onVolumesMade(ctx, e)
	case eventHanded:
		s.onHanded(ctx, e)
	case eventTime:
		s.onTime(e)
	case eventCall:
		e.f(ctx)
		close(e.done)
	case wait:
		s.waits = append(s.waits, e)
	}
}

// step does what the state as a whole asks for after an event.
func (s *Supervisor) step(ctx context.Context) {
	if s.ending {
		s.stopNext(ctx, s.units)
	} else {
		s.stopWhatMustNotRun(ctx)
		s.startMigrations(ctx)
		s.startReady(ctx)
	}
	s.configureDaemons()
	if !s.ending {
		s.judge(ctx) // after the gateway was told
	}
	s.show()
	s.waits = slices.DeleteFunc(s.waits, wait.over)
}

// adopt takes over a process that an earlier supervisor started.
func (s *Supervisor) adopt(ctx context.Context, u *unit) {
	p := u.job.find()
	if p == nil || u.machine.state != waiting {
		return
	}
	s.log.Info("still running", "unit", u.name)
	s.watch(ctx, u, p)
	s.perform(ctx, u, u.machine.found(s.now()))
}

// judge lets BOOT-OK be printed once everything that counts is ready and the gateway leads there, as who reads it may ask
// for a page. It gives up on a boot without a core unit.
func (s *Supervisor) judge(ctx context.Context) {
	for _, u := range s.units {
		if u.importance == plan.Core && u.machine.state == failed {
			s.fail("services", fmt.Errorf("%s: %s", u.name, u.problem))
			return
		}
	}
	for _, m := range s.modules {
		if d := m.nextMigration(); m.plan.Importance == plan.Core && d != nil && d.state == broken {
			s.fail("services", errors.New(m.problem))
			return
		}
	}
	if s.booted || s.judged || s.stranded || s.waitsForUnits() {
		return
	}
	s.judged = true
	s.awaitGateway(ctx)
}

// waitsForUnits tells whether something that counts is not ready.
func (s *Supervisor) waitsForUnits() bool {
	return slices.ContainsFunc(s.units, func(u *unit) bool {
		return u.importance != plan.Optional && u.module.runs() && u.machine.state != ready
	})
}

// onFollowed prints BOOT-OK. A gateway that did not follow is asked again.
func (s *Supervisor) onFollowed(e eventFollowed) {
	if e.err != nil {
		s.warn(e.err)
		s.judged = false
		return
	}
	s.booted = true
	trial := "no"
	if s.trial != nil {
		trial = "yes"
	}
	s.config.Console.Print("BOOT-OK slot=%s version=%s trial=%s secs=%d",
		s.config.Slot, s.config.Manifest.Version, trial, uptime()/time.Second)
	if err := os.WriteFile(s.bootMark(), nil, 0o644); err != nil {
		s.warn(err)
	}
	s.forgetResets()
	s.record(api.Event{Level: api.Good, Kind: "box", Text: "the box is ready"}, nil)
	go debug.FreeOSMemory() // starting took more than running will
}

// bootMark is a file that keeps a later supervisor of the same boot from printing BOOT-OK again.
func (s *Supervisor) bootMark() string { return filepath.Join(s.config.Run, "boot-ok") }

// firstResolver is the resolver that the network named first.
func firstResolver(st network.Status) (netip.Addr, bool) {
	if len(st.DNS) == 0 {
		return netip.Addr{}, false
	}
	return st.DNS[0], true
}
