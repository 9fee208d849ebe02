package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"allotment/init/container"
	"allotment/init/network"
	"allotment/init/plan"
)

// Events of bringing the box up.
type (
	eventNetwork    struct{ status network.Status }
	eventFirewalled struct{}
	eventState      struct{ state State }
	eventPrepared   struct {
		module *plan.Module
		layers []string // files
		err    error
	}
	// eventBroken is an error after which the box is no good.
	eventBroken struct {
		stage string
		err   error
	}
)

// publicPorts are the TCP ports that the firewall opens.
var publicPorts = []uint16{80}

// stateTimeout bounds the opening of the state partition, whose first time copies and checks all layers.
const stateTimeout = 20 * time.Minute

// bringUp does what comes before the services. Network and state partition do not need each other, modules need both.
func (s *Supervisor) bringUp(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	joined := make(chan error, 1)
	running.Go(func() { joined <- s.joinNetwork(ctx, &running) })
	opening, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	hung := time.AfterFunc(stateTimeout+time.Minute, func() { // in the kernel, where the context does not reach
		s.send(eventBroken{"state", errors.New("the state partition's disk does not answer")})
	})
	state, err := s.config.OpenState(opening)
	hung.Stop()
	if err != nil {
		s.send(eventBroken{"state", err})
		return
	}
	s.send(eventState{state})
	if err := s.clock.Remember(filepath.Join(s.config.State, "system", "time")); err != nil {
		s.warn(err)
	}
	running.Go(func() { s.clock.Run(ctx, s.online, s.onTime) })
	if err := <-joined; err != nil {
		s.send(eventBroken{"network", err})
		return
	}
	for _, m := range s.plan.Modules {
		running.Go(func() {
			layers, err := s.prepare(state, m)
			s.send(eventPrepared{m, layers, err})
		})
	}
}

// joinNetwork sets the network up and begins to follow it. No link is up before the firewall is.
func (s *Supervisor) joinNetwork(ctx context.Context, running *sync.WaitGroup) error {
	if err := network.SetRules(network.Rules{Ports: publicPorts, Modules: s.plan.Modules}); err != nil {
		return err
	}
	if err := network.Loopback(); err != nil {
		return err
	}
	s.send(eventFirewalled{})
	resolv := s.config.Container.Resolv
	report := func(st network.Status) { s.send(eventNetwork{st}) }
	uplink := network.NewUplink(s.config.Manifest.Network, resolv, report, s.warn)
	running.Go(func() {
		if err := uplink.Run(ctx); err != nil {
			s.send(eventBroken{"network", err})
		}
	})
	return network.Host()
}

// prepare makes what the module's services need, and returns the files of its layers. A layer that the store refuses is
// damage, which is not for the module alone to bear.
func (s *Supervisor) prepare(state State, m *plan.Module) ([]string, error) {
	ns, err := network.Module(m, filepath.Join(s.config.Run, "net"))
	if err != nil {
		return nil, err
	}
	from := container.Sources{Volumes: map[string]string{}}
	for _, d := range m.Layers {
		file, err := state.Layer(d)
		if err != nil {
			s.send(eventBroken{"layer", err})
			return nil, err
		}
		from.Layers = append(from.Layers, file)
	}
	for _, v := range m.Volumes {
		if from.Volumes[v.Name], err = state.Volume(m.Name, v); err != nil {
			return nil, err
		}
	}
	if err := s.runtime.Prepare(m, from); err != nil {
		return nil, err
	}
	for _, u := range s.unitsOf[m] {
		if err := u.job.(*serviceJob).open(ns, filepath.Join(s.config.State, "logs"), s.warn); err != nil {
			return nil, err
		}
	}
	return from.Layers, nil
}

func (s *Supervisor) onState(e eventState) {
	s.state = e.state
	if err := s.config.Log.Keep(filepath.Join(s.config.State, "logs", "system")); err != nil {
		s.warn(err)
	}
}

func (s *Supervisor) onPrepared(ctx context.Context, e eventPrepared) {
	s.layersOf[e.module] = e.layers
	for _, u := range s.unitsOf[e.module] {
		if e.err != nil {
			s.log.Error("cannot prepare a module", "module", e.module.Name, "error", e.err)
			u.problem = e.err.Error()
			u.machine.state = failed // nothing changes before the next boot
			continue
		}
		u.prepared = true
		s.adopt(ctx, u)
	}
}

func (s *Supervisor) onNetwork(e eventNetwork) {
	s.net = e.status
	s.log.Info("network", "link", e.status.Link, "addresses", e.status.Addresses, "dns", e.status.DNS)
	if a, ok := firstResolver(e.status); ok {
		s.resolver.set(a)
	}
	if len(e.status.Addresses) > 0 {
		select {
		case s.online <- struct{}{}:
		default:
		}
	}
}

// onTime is called by the clock's goroutine.
func (s *Supervisor) onTime(offset time.Duration) {
	s.log.Info("the clock follows the time servers", "offset", offset.String())
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
