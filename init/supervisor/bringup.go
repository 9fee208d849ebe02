package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"allotment/api"
	"allotment/init/network"
	"allotment/updater/gate"
)

// Events of bringing the box up.
type (
	eventNetwork    struct{ status network.Status }
	eventFirewalled struct{}
	eventState      struct {
		state State
		files *files
		next  gate.Next
	}
	eventModules struct{}                       // modules can be prepared
	eventTime    struct{ offset time.Duration } // the clock was set by the time servers
	// eventBroken is an error after which the box is no good.
	eventBroken struct {
		stage string
		err   error
	}
)

// stateTimeout bounds the opening of the state partition, whose first time copies and checks all layers.
const stateTimeout = 20 * time.Minute

// bringUp does what comes before the services. Network and state partition do not need each other, modules need both.
func (s *Supervisor) bringUp(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	joined := make(chan bool, 1)
	running.Go(func() {
		err := s.joinNetwork(ctx, &running)
		if err != nil {
			s.send(eventBroken{"network", err})
		}
		joined <- err == nil
	})
	opening, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	hung := time.AfterFunc(stateTimeout+time.Minute, func() { // in the kernel, where the context does not reach
		s.send(eventBroken{"state", errors.New("the state partition's disk does not answer")})
	})
	state, err := s.config.OpenState(opening)
	hung.Stop()
	goesOn := false
	if err == nil {
		goesOn, err = s.admit(state)
	}
	if err != nil {
		s.send(eventBroken{"state", err})
	}
	if !goesOn {
		return
	}
	if err := s.clock.Remember(filepath.Join(s.config.State, "system", "time")); err != nil {
		s.warn(err)
	}
	running.Go(func() { s.clock.Run(ctx, s.online, func(offset time.Duration) { s.send(eventTime{offset}) }) })
	if <-joined {
		s.send(eventModules{})
	}
}

// admit lets the box work with the state that is open, unless another release is to.
func (s *Supervisor) admit(state State) (goesOn bool, err error) {
	next := s.passGate()
	if next == gate.Reset {
		s.send(eventAnother{state})
		return false, nil
	}
	reset, err := s.exchangeRestored()
	if err != nil {
		return false, err
	}
	if reset {
		s.send(eventAnother{state})
		return false, nil
	}
	f, err := openFiles(s.config, s.config.Manifest, s.log)
	if err != nil {
		return false, err
	}
	s.send(eventState{state, f, next})
	return true, nil
}

// joinNetwork sets the network up and begins to follow it. No link is up before the firewall is.
func (s *Supervisor) joinNetwork(ctx context.Context, running *sync.WaitGroup) error {
	if err := s.rule(network.Rules{Ports: publicPorts, UDP: publicUDP, Closed: s.config.Trial}); err != nil {
		return err
	}
	if err := network.Loopback(); err != nil {
		return err
	}
	if err := network.Host(); err != nil {
		return err
	}
	s.send(eventFirewalled{})
	resolv := filepath.Join(s.config.Run, "resolv.conf")
	report := func(st network.Status) { s.send(eventNetwork{st}) }
	uplink := network.NewUplink(s.config.Manifest.Network, resolv, report, s.warn)
	running.Go(func() {
		if err := uplink.Run(ctx); err != nil {
			s.send(eventBroken{"network", err})
		}
	})
	return nil
}

func (s *Supervisor) onState(ctx context.Context, e eventState) {
	s.state, s.files = e.state, e.files
	s.domain = e.files.settings.Values().Organisation().Domain
	if err := s.config.Log.Keep(filepath.Join(s.config.State, "logs", "system")); err != nil {
		s.warn(err)
	}
	s.readOff()
	s.onGate(ctx, e.next)
	if !s.stranded {
		s.prepareDaemons()
		s.lookForClaim(ctx)
	}
}

func (s *Supervisor) onModules(ctx context.Context) {
	s.setRules()
	if s.stranded {
		return
	}
	for _, m := range s.modules {
		s.prepareModule(ctx, m)
	}
	if s.trial != nil {
		go s.tryOut(ctx, s.trial.attempt)
	}
	s.startBackup(ctx)
	s.renewed = s.now() // what modules read is made now
	s.patrol(ctx)
}

func (s *Supervisor) onFirewalled(ctx context.Context) {
	for _, u := range s.daemons {
		if u != s.updater && u != s.portal {
			u.prepared = true
			s.adopt(ctx, u)
		}
	}
}

func (s *Supervisor) onNetwork(e eventNetwork) {
	if !slices.Equal(s.net.Addresses, e.status.Addresses) {
		s.recordAddresses(e.status.Addresses)
	}
	s.net = e.status
	s.log.Info("network", "link", e.status.Link, "addresses", e.status.Addresses, "dns", e.status.DNS)
	if a, ok := firstResolver(e.status); ok {
		s.upstream.set(a)
	}
	if len(e.status.Addresses) > 0 {
		select {
		case s.online <- struct{}{}:
		default:
		}
	}
}

func (s *Supervisor) recordAddresses(all []netip.Prefix) {
	if len(all) == 0 {
		s.record(api.Event{Level: api.Bad, Kind: "network", Text: "the box has no address any more"}, nil)
		return
	}
	var texts []string
	for _, a := range all {
		texts = append(texts, a.Addr().String())
	}
	s.record(api.Event{Level: api.Good, Kind: "network", Text: "the box can be reached at " + strings.Join(texts, ", ")}, nil)
}

// onTime notes that the clock follows the time servers, and tells it where that is news.
func (s *Supervisor) onTime(e eventTime) {
	s.log.Info("the clock follows the time servers", "offset", e.offset.String())
	if s.synced.IsZero() || e.offset.Abs() > time.Second {
		s.record(api.Event{Level: api.Good, Kind: "clock",
			Text: fmt.Sprintf("the time servers moved the clock by %v", e.offset.Round(time.Millisecond))}, nil)
	}
	s.synced = s.now()
}

// resolverAddr is the resolver's address, shared by the loop and the clock.
type resolverAddr struct{ a atomic.Value }

func (r *resolverAddr) set(a netip.Addr) { r.a.Store(a) }

func (r *resolverAddr) get() (netip.Addr, bool) {
	a, ok := r.a.Load().(netip.Addr)
	return a, ok
}

// message is what a person reads of an error on the console.
func message(stage string, err error) string {
	return fmt.Sprintf("BOOT-FAIL stage=%s reason=%v", stage, err)
}
