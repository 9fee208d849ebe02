package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"allotment/image"
	"allotment/init/fileset"
	"allotment/init/plan"
	"allotment/portal/config"
)

const (
	portalMemory = 64 << 20  // bytes
	portalQuota  = 1 << 30   // bytes
	gatewayQuota = 256 << 20 // bytes
	portalHealth = "/-/health"
)

// volumeName is that of the one volume which gateway and portal have each.
const volumeName = "data"

// The portal's volume, and the gateway's. They lie among the modules' volumes, so that all that is done with those is done with
// them.
var (
	portalVolume  = plan.Volume{Name: volumeName, UID: plan.PortalID, GID: plan.PortalID, Quota: portalQuota}
	gatewayVolume = plan.Volume{Name: volumeName, UID: GatewayID, GID: GatewayID, Quota: gatewayQuota}
)

// addPortal makes the portal's unit, which startPortal lets start. Without a directory there is none.
func (s *Supervisor) addPortal() (err error) {
	m := s.config.Manifest
	if s.config.Portal == "" || !hasModule(m, plan.Directory) {
		return nil
	}
	socket := s.portalSocket()
	s.portal, err = s.addDaemon(daemonConfig{
		name: plan.Portal, program: s.config.Portal, id: plan.PortalID, memory: portalMemory, pids: 64, weight: 200,
		listen: func() ([]*os.File, error) { return listenUnix(socket, GatewayID) },
		ready:  image.Check{Timeout: 60}, ask: func(ctx context.Context) error { return askPortal(ctx, socket) },
	})
	return err
}

func hasModule(m *image.Manifest, name string) bool {
	for i := range m.Modules {
		if m.Modules[i].Name == name {
			return true
		}
	}
	return false
}

func (s *Supervisor) portalDir() string    { return filepath.Join(s.config.Run, plan.Portal) }
func (s *Supervisor) portalSocket() string { return filepath.Join(s.portalDir(), "http.sock") }

// listenUnix makes a socket that root and the group may connect to.
func listenUnix(path string, group int) ([]*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // of an earlier supervisor
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	if err := os.Chown(path, 0, group); err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, err
	}
	f, err := l.File()
	if err != nil {
		return nil, err
	}
	return []*os.File{f}, nil
}

// askPortal asks the portal whether it works.
func askPortal(ctx context.Context, socket string) error {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://portal"+portalHealth, nil)
	if err != nil {
		return err
	}
	a, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", a.Status)
	}
	return nil
}

// eventVolumesMade tells that the volumes of gateway and portal are there, and what the portal reads as secrets.
type eventVolumesMade struct {
	gateway string // folder
	err     error  // of the portal
}

// prepareDaemons makes beside the loop what gateway and portal need of the state.
func (s *Supervisor) prepareDaemons() {
	st, f, p, hasPortal := s.state, s.files, s.plan, s.portal != nil
	s.reading.Go(func() {
		var e eventVolumesMade
		var err error
		if e.gateway, err = st.Volume(plan.Gateway, gatewayVolume); err != nil {
			s.warn(err) // it works without, as it does before
		}
		if hasPortal {
			_, e.err = st.Volume(plan.Portal, portalVolume)
			if e.err == nil {
				e.err = s.showPortalSecrets(f, p)
			}
		}
		s.send(e)
	})
}

// onVolumesMade lets the portal start, and the gateway use its folder.
func (s *Supervisor) onVolumesMade(ctx context.Context, e eventVolumesMade) {
	s.giveFolder(ctx, e.gateway)
	if s.portal == nil {
		return
	}
	if e.err != nil {
		s.portal.problem = e.err.Error()
		s.portal.machine.to(failed, s.now()) // the box is no good without it
		return
	}
	s.portal.prepared = true
	s.configurePortal() // before it starts
	s.adopt(ctx, s.portal)
}

// showPortalSecrets exchanges the files that the portal alone can read.
func (s *Supervisor) showPortalSecrets(f *files, p *plan.Plan) error {
	m := p.Module(plan.Directory)
	if m == nil {
		return fmt.Errorf("cannot give the portal its secrets: this box has no directory")
	}
	f.portal.Lock()
	defer f.portal.Unlock()
	password, err := f.secret(m, portalSecret, s.wallClock())
	if err != nil {
		return err
	}
	code, _, err := f.claim()
	if err != nil {
		return err
	}
	file := func(name, content string) fileset.File {
		return fileset.File{Name: name, Content: []byte(content), Mode: 0o400, UID: plan.PortalID, GID: plan.PortalID}
	}
	all := []fileset.File{file("directory", password)}
	if code != "" {
		all = append(all, file("claim", code))
	}
	return fileset.Exchange(filepath.Join(s.portalDir(), "secrets"), all)
}

// configurePortal tells the portal what has changed.
func (s *Supervisor) configurePortal() {
	if s.portal == nil || !s.portal.prepared {
		return
	}
	secrets := filepath.Join(s.portalDir(), "secrets")
	c := config.Config{
		API: filepath.Join(s.portalDir(), "api.sock"), Password: filepath.Join(secrets, "directory"),
		Claim: filepath.Join(secrets, "claim"), State: filepath.Join(s.config.State, "volumes", plan.Portal, volumeName),
		Domain: s.domain, Modules: []config.Module{},
	}
	if s.files != nil {
		o := s.files.settings.Values().Organisation()
		c.Organisation, c.TimeZone = o.Name, o.TimeZone
	}
	if host := s.portalHost(); host != "" {
		c.Origin, c.Secure = "https://"+host, true
	}
	for _, m := range s.modules {
		if m.plan.Name == plan.Directory {
			c.Directory = net.JoinHostPort(m.plan.IPv4.Addr().String(), strconv.Itoa(plan.LDAPPort))
		}
		if m.on {
			c.Modules = append(c.Modules, portalModule(m.plan))
		}
	}
	s.configure(s.portal, c)
}

// portalModule is what the portal may know of a module.
func portalModule(p *plan.Module) config.Module {
	m := config.Module{Name: p.Name, Title: p.Title, SSO: p.Declared.SSO}
	if p.HTTP != nil {
		m.Path = p.HTTP.Path
	}
	for _, x := range p.Declared.Permissions {
		m.Permissions = append(m.Permissions, config.Permission{Name: x.Name, Title: x.Title, Groups: x.Groups})
	}
	return m
}
