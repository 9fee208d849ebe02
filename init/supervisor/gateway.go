package supervisor

import (
	"cmp"
	"context"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	"allotment/gateway"
	"allotment/image"
	"allotment/init/plan"
	"allotment/init/resolver"
)

// The users and groups of our daemons, allotment-gateway and allotment-resolver (trees/root.toml).
const (
	GatewayID  = 901
	resolverID = 902
)

// addGateway makes the gateway's unit. It is started first, so that visitors are told to wait, and stopped first.
func (s *Supervisor) addGateway() error {
	_, port, err := net.SplitHostPort(s.config.Listen)
	if err != nil {
		return err
	}
	s.gateway, err = s.addDaemon(daemonConfig{
		name: "gateway", program: s.config.Gateway, id: GatewayID,
		memory: 128 << 20, pids: 128, weight: 200, // it holds little, and as many connections as its own limits allow
		listen: s.listenGateway,
		ready:  image.Check{HTTP: ":" + port + gateway.HealthPath, Timeout: 30},
	})
	return err
}

// listenGateway makes the gateway's sockets: TCP for HTTP, then TCP and UDP for HTTPS.
func (s *Supervisor) listenGateway() (all []*os.File, err error) {
	plain, err := listenTCP(s.config.Listen)
	if err != nil || s.config.ListenTLS == "" {
		return plain, err
	}
	defer func() {
		if err != nil {
			closeAll(all)
		}
	}()
	all = plain
	secure, err := listenTCP(s.config.ListenTLS)
	if err != nil {
		return nil, err
	}
	all = append(all, secure...)
	datagrams, err := listenUDP(s.config.ListenTLS)
	if err != nil {
		return nil, err
	}
	return append(all, datagrams...), nil
}

// addResolver makes the resolver's unit. Modules find names as soon as they start and until they have ended.
func (s *Supervisor) addResolver() (err error) {
	s.resolver, err = s.addDaemon(daemonConfig{
		name: "resolver", program: s.config.Resolver, id: resolverID, memory: 64 << 20, pids: 64, weight: 200,
		listen: resolver.Listen, ready: image.Check{Timeout: 30}, ask: resolver.Probe,
	})
	return err
}

// learnTime bounds how long a supervisor leaves the daemons with what the one before it said.
const learnTime = time.Minute

// configureDaemons tells gateway and resolver what has changed. A supervisor that takes over says nothing before it knows
// how the services are, or visitors would be told to wait for modules that never stopped.
func (s *Supervisor) configureDaemons() {
	s.learns = s.learns && !s.ending && s.now().Sub(s.began) < learnTime && (s.state == nil || s.findsServices())
	if s.learns {
		return
	}
	s.configure(s.gateway, s.routes())
	s.configureUpdater()
	s.configurePortal()
	if s.resolver != nil {
		s.configure(s.resolver, s.names())
	}
}

// authorityPorts are those besides 443 at which the gateway asks who issues certificates.
func authorityPorts(directory string) []uint16 {
	u, err := url.Parse(directory)
	if err != nil {
		return nil
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); err == nil && port != 443 {
		return []uint16{uint16(port)}
	}
	return nil
}

// followTime bounds one wait for the gateway.
const followTime = 10 * time.Second

// eventFollowed tells whether the gateway follows the routes that it was told, which it reads when it comes to it.
type eventFollowed struct{ err error }

// awaitGateway waits beside the loop until the gateway follows its routes of now.
func (s *Supervisor) awaitGateway(ctx context.Context) {
	routes := s.routes()
	go func() {
		ctx, cancel := context.WithTimeout(ctx, followTime)
		defer cancel()
		s.send(eventFollowed{s.follows(ctx, routes)})
	}()
}

// askGateway waits until the gateway follows c.
func (s *Supervisor) askGateway(ctx context.Context, c gateway.Config) error {
	_, port, err := net.SplitHostPort(s.config.Listen)
	if err != nil {
		return err
	}
	return gateway.AwaitConfig(ctx, net.JoinHostPort(loopback.String(), port), c)
}

// findsServices: some service of a module that is on has not been asked yet how it is.
func (s *Supervisor) findsServices() bool {
	return slices.ContainsFunc(s.units, func(u *unit) bool {
		return u.module.runs() && slices.Contains([]phase{waiting, starting, checking}, u.machine.state)
	})
}

// names tell the resolver what modules may know.
func (s *Supervisor) names() resolver.Config {
	var on []*plan.Module
	for _, m := range s.modules {
		if m.on {
			on = append(on, m.plan)
		}
	}
	var own []string
	if s.domain != "" {
		own = []string{s.domain}
	}
	return resolver.NewConfig(on, own, s.net.DNS)
}

// routes tell the gateway where the modules are, and what names they have. Those that are off have none.
func (s *Supervisor) routes() gateway.Config {
	c := gateway.Config{Names: s.hostNames(), Domain: s.domain, PortalHost: s.portalHost(), Data: s.folder, ModuleNames: s.certificateNames()}
	if s.folder != "" {
		c.ACME = s.config.ACME
		c.ACME.Email = cmp.Or(c.ACME.Email, s.files.settings.Values().Organisation().Contact)
	}
	for _, a := range s.net.DNS {
		c.DNS = append(c.DNS, a.String())
	}
	if s.portal != nil {
		c.Portal = "unix:" + s.portalSocket()
	}
	for _, m := range s.modules {
		if m.plan.HTTP == nil || !m.on {
			continue
		}
		target := "http://" + net.JoinHostPort(m.plan.IPv4.Addr().String(), strconv.Itoa(m.plan.HTTP.Port))
		for _, r := range gateway.Routes(m.plan.HTTP, m.plan.Title, target, allIn(m.units, ready)) {
			r.Module, r.SSO = m.plan.Name, m.plan.Declared.SSO
			c.Routes = append(c.Routes, r)
		}
	}
	return c
}
