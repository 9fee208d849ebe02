// Package supervisor runs the box after PID 1: network, time, state partition, the modules' services and the gateway. One
// goroutine, the loop, holds all of its state; everything that can take time runs beside it and reports by events. If
// the supervisor dies, services go on, and the next one takes them over.
package supervisor

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"allotment/image"
	"allotment/init/clock"
	"allotment/init/console"
	"allotment/init/container"
	"allotment/init/network"
	"allotment/init/plan"
	"allotment/init/power"
	"allotment/init/reaper"
	"allotment/init/servicelog"
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
	// Volume returns the folder of a module's volume, with its limits set.
	Volume(module string, v plan.Volume) (string, error)
	Close() error
}

// Config is what the supervisor works with.
type Config struct {
	Manifest  *image.Manifest
	Slot      image.Slot
	Trial     bool
	Run       string // folder for what lives until the next boot
	State     string // mount point of the state partition
	Gateway   string // program
	Listen    string // the gateway's address
	Container container.Config
	OpenState func(context.Context) (State, error)
	Heartbeat *os.File // a byte goes there every two seconds
	Console   *console.Console
	Log       *Log
}

// Supervisor is the running box.
type Supervisor struct {
	config  Config
	plan    *plan.Plan
	log     *slog.Logger
	reaper  *reaper.Reaper
	runtime *container.Runtime
	clock   *clock.Clock
	events  chan any
	online  chan struct{}

	units    []*unit
	unitsOf  map[*plan.Module][]*unit
	layersOf map[*plan.Module][]string // files; gone once they were read for damage
	gateway  *unit
	routes   string // what the gateway was told last
	net      network.Status
	resolver resolverAddr
	state    State
	booted   bool // BOOT-OK was printed
	ending   bool
	exit     int

	routesFile string // from which the gateway reads them
}

// New prepares a supervisor for the manifest.
func New(c Config, r *reaper.Reaper) (*Supervisor, error) {
	p, err := plan.New(c.Manifest)
	if err != nil {
		return nil, err
	}
	s := &Supervisor{
		config: c, plan: p, log: c.Log.Logger(), reaper: r, runtime: container.New(c.Container, r),
		events: make(chan any, 64), online: make(chan struct{}, 1), unitsOf: map[*plan.Module][]*unit{},
		layersOf: map[*plan.Module][]string{}, exit: PowerOff,
	}
	s.clock = clock.New(time.Unix(c.Manifest.Epoch, 0), c.Manifest.Time.Servers, s.resolver.get, s.warn)
	s.addServices()
	return s, s.addGateway()
}

func (s *Supervisor) now() time.Time { return time.Now() } // monotonic: steps of the clock do not matter

func (s *Supervisor) send(event any) { s.events <- event }

func (s *Supervisor) warn(err error) { s.log.Warn("going on after an error", "error", err) }

// addServices makes a unit of each service.
func (s *Supervisor) addServices() {
	for _, m := range s.plan.Modules {
		byName := map[string]*unit{}
		for _, service := range m.Services {
			u := &unit{
				name: service.ID, importance: m.Importance, job: &serviceJob{service: service, runtime: s.runtime},
				machine: machine{state: waiting, since: s.now()},
			}
			for _, n := range service.Needs { // services come after what they need
				u.needs = append(u.needs, byName[n])
				byName[n].under = append(byName[n].under, u)
			}
			byName[service.Name] = u
			s.units = append(s.units, u)
			s.unitsOf[m] = append(s.unitsOf[m], u)
		}
	}
}

// addGateway makes the gateway's unit. It is started first, so that visitors are told to wait, and stopped first.
func (s *Supervisor) addGateway() error {
	j, output, err := newGatewayJob(s.config.Gateway, filepath.Join(s.config.Run, "gateway"), s.config.Listen,
		s.config.Container.Cgroup, s.reaper)
	if err != nil {
		return err
	}
	s.gateway = &unit{name: "gateway", importance: plan.Core, job: j, machine: machine{state: waiting, since: s.now()}}
	for _, u := range s.units {
		u.under = append(u.under, s.gateway)
	}
	s.units = append(s.units, s.gateway)
	s.routesFile = j.config
	s.writeRoutes()
	go func() {
		if err := servicelog.Copy(s.config.Log.Part("gateway"), output, time.Now); err != nil {
			s.warn(err)
		}
	}()
	return nil
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
	_, err := os.Stat(s.bootMark())
	s.booted = err == nil
	s.show()
	pushed := make(chan struct{})
	go func() {
		if err := power.Watch(work, "/dev/input", pushed); err != nil {
			s.warn(err)
		}
	}()
	go s.bringUp(work)
	s.loop(ctx, work, pushed)
	cancel()
	last, stop := context.WithTimeout(context.Background(), tearDownBudget)
	defer stop()
	go s.beat(last)
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
			s.config.Heartbeat.Write([]byte{1})
		case <-ctx.Done():
			return
		}
	}
}

// loop follows events until all has stopped. It begins to stop when ctx ends or a button is pushed; what it starts
// belongs to the context work.
func (s *Supervisor) loop(ctx, work context.Context, pushed <-chan struct{}) {
	beat := time.NewTicker(heartbeatEvery)
	defer beat.Stop()
	asked := ctx.Done()
	for !s.ended() {
		select {
		case <-beat.C:
			s.config.Heartbeat.Write([]byte{1})
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
	case eventPauseOver:
		e.unit.machine.overBackoff(s.now())
	case eventNetwork:
		s.onNetwork(e)
	case eventFirewalled:
		s.gateway.prepared = true
		s.adopt(ctx, s.gateway)
	case eventState:
		s.onState(e)
	case eventPrepared:
		s.onPrepared(ctx, e)
	case eventBroken:
		s.fail(e.stage, e.err)
	case eventOverdue:
		s.onOverdue(ctx)
	case eventGivenUp:
		s.abandon()
	}
}

// step does what the state as a whole asks for after an event.
func (s *Supervisor) step(ctx context.Context) {
	if s.ending {
		s.stopNext(ctx)
	} else {
		s.startReady(ctx)
		s.judge()
	}
	s.writeRoutes()
	s.show()
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

// judge prints BOOT-OK once everything that counts is ready, and gives up on a boot without a core unit.
func (s *Supervisor) judge() {
	for _, u := range s.units {
		if u.importance == plan.Core && u.machine.state == failed {
			s.fail("services", fmt.Errorf("%s: %s", u.name, u.problem))
			return
		}
	}
	waits := slices.ContainsFunc(s.units, func(u *unit) bool {
		return u.importance != plan.Optional && u.machine.state != ready
	})
	if s.booted || waits {
		return
	}
	s.booted = true
	trial := "no"
	if s.config.Trial {
		trial = "yes"
	}
	s.config.Console.Print("BOOT-OK slot=%s version=%s trial=%s secs=%d",
		s.config.Slot, s.config.Manifest.Version, trial, uptime()/time.Second)
	if err := os.WriteFile(s.bootMark(), nil, 0o644); err != nil {
		s.warn(err)
	}
	s.forgetResets()
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
