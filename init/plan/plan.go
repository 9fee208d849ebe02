// Package plan turns the manifest of the verified root into what the supervisor does on this device: addresses, id
// ranges, cgroups and the order of services. It is pure: the same manifest gives the same plan, and nothing is touched.
package plan

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"allotment/image"
)

// Sizes of what the modules share out among themselves.
const (
	// IDs is the number of user and group ids that each module's user namespace has.
	IDs = 1 << 16
	// firstID is the host's id of id 0 in the first module; everything below belongs to the host itself.
	firstID = 1 << 20
	// MaxModules is how many modules a manifest can have: their addresses fill 10.209.0.0/24 behind the host's.
	MaxModules = 250
	// defaultPIDs is the limit of processes of a module that names none.
	defaultPIDs = 256
	// defaultCheckTimeout is how long, in seconds, a service may take to get ready when its check does not say.
	defaultCheckTimeout = 60
)

// The host's own side of the bridge that the modules hang on.
var (
	HostIPv4 = netip.MustParsePrefix("10.209.0.1/16")
	HostIPv6 = netip.MustParsePrefix("fd00:a110::1/64")
)

// Plan is all that the supervisor runs, in the manifest's order.
type Plan struct {
	Modules []*Module
}

// Module is one module with its share of the host.
type Module struct {
	Name       string
	Title      string
	Importance Importance
	Layers     []image.Digest // lowest first
	IPv4       netip.Prefix   // in the host bridge's network
	IPv6       netip.Prefix
	FirstID    uint32 // the host's id of id 0 in the module's user namespace; IDs ids follow
	Cgroup     string // below the cgroup root, such as /allotment/web
	MemoryMax  int64  // bytes, of all services together
	PIDsMax    int64
	CPUWeight  int        // cgroup v2 cpu.weight
	IOWeight   int        // cgroup v2 io weight
	OOMScore   int        // oom_score_adj of its processes
	Services   []*Service // every service after those that it needs
	Volumes    []Volume
	HTTP       *image.HTTP
	Peers      []Peer
	Secrets    []Secret // those of LDAP among them
	Templates  []Template
	Migrations []*Migration // in the order in which they run

	// As the manifest has them: ports, egress, ldap, settings, journeys, backup, repairs and what is shown to people.
	Declared *image.Module
}

// Peer is a module that another one may connect to.
type Peer struct {
	Module *Module
	Ports  []int
}

// Secret is a secret with the ids that may read it.
type Secret struct {
	image.Secret
	UID, GID uint32 // inside the user namespace
}

// Template is a template with the ids that may read its result.
type Template struct {
	image.Template
	UID, GID uint32     // inside the user namespace
	For      []*Service // that depend on it
}

// Migration is a migration as a container to run.
type Migration struct {
	*Service // without checks; Requires holds what must be ready while it runs
	Volume   string
	Format   int
}

// Service is one container.
type Service struct {
	Module       *Module
	Name         string
	ID           string // unique on the host: module.service
	Cgroup       string // below the module's
	Command      []string
	Env          []string
	UID, GID     uint32 // inside the user namespace
	Needs        []string
	Requires     []*Service // what Needs names, and the directory for a module that reads it
	Tmpfs        []string
	Capabilities []string
	Stop         string        // signal name
	StopTimeout  time.Duration // until it is killed
	Reload       string        // signal name; empty: it is restarted when a template changes
	MemoryMax    int64         // bytes, of this service alone
	Ready        image.Check
	Live         *image.Check  // with its defaults filled in; nil: not asked
	Timeout      time.Duration // of a task: how long it may run; 0 for services
}

// Volume is a folder of state and where a service sees it.
type Volume struct {
	Name     string
	Path     string // in the container
	UID, GID uint32 // inside the user namespace, and so on disk: see docs/decisions/0006-volumes-are-id-mapped.md
	Quota    int64  // bytes
	Format   int    // 0: none
	NoCOW    bool
}

// Importance says what a module's failure means for the box.
type Importance string

// The degrees of importance.
const (
	Core     Importance = "core"     // without it the release is no good
	Normal   Importance = "normal"   // awaited at boot
	Optional Importance = "optional" // the box is ready without it
)

// nameForm is what names may be, since they become parts of paths, host names and cgroups.
var nameForm = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$`)

// New makes the plan, or reports every module that cannot be run as it is described.
func New(m *image.Manifest) (*Plan, error) {
	if len(m.Modules) > MaxModules {
		return nil, fmt.Errorf("cannot plan %d modules: at most %d", len(m.Modules), MaxModules)
	}
	p := &Plan{}
	var errs []error
	seen := map[string]bool{}
	for i := range m.Modules {
		mod, err := newModule(i, &m.Modules[i])
		if err == nil && seen[mod.Name] {
			err = errors.New("a module of this name exists already")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot plan module %q: %w", m.Modules[i].Name, err))
			continue
		}
		seen[mod.Name] = true
		p.Modules = append(p.Modules, mod)
	}
	return p, errors.Join(errs...)
}

// Services lists the services of all modules.
func (p *Plan) Services() []*Service {
	var all []*Service
	for _, m := range p.Modules {
		all = append(all, m.Services...)
	}
	return all
}

func newModule(index int, m *image.Module) (*Module, error) {
	if !nameForm.MatchString(m.Name) {
		return nil, errors.New("the name must be lower-case letters, digits and hyphens")
	}
	if len(m.Layers) == 0 {
		return nil, errors.New("it has no layer")
	}
	if m.Memory.Max <= 0 {
		return nil, errors.New("it has no memory limit")
	}
	mod := &Module{
		Name:       m.Name,
		Title:      m.Title,
		Importance: Importance(m.Importance),
		Layers:     m.Layers,
		IPv4:       nth(HostIPv4, index),
		IPv6:       nth(HostIPv6, index),
		FirstID:    firstID + uint32(index)*IDs,
		Cgroup:     "/allotment/" + m.Name,
		MemoryMax:  int64(m.Memory.Max) << 20,
		PIDsMax:    int64(m.PIDs),
		HTTP:       m.HTTP,
	}
	if mod.PIDsMax == 0 {
		mod.PIDsMax = defaultPIDs
	}
	switch mod.Importance {
	case "":
		mod.Importance = Normal
	case Core, Normal, Optional:
	default:
		return nil, fmt.Errorf("no such importance as %q", m.Importance)
	}
	var err error
	if mod.Volumes, err = newVolumes(m); err != nil {
		return nil, err
	}
	services, err := newServices(mod, m)
	if err != nil {
		return nil, err
	}
	mod.Services, err = order(services)
	return mod, err
}

// nth is the address of the module at index: the host has number 1, the first module number 2.
func nth(host netip.Prefix, index int) netip.Prefix {
	b := host.Addr().AsSlice()
	b[len(b)-1] = byte(index + 2)
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(a, host.Bits())
}

func newServices(mod *Module, m *image.Module) ([]*Service, error) {
	var all []*Service
	for i := range m.Services {
		s, err := newService(mod, m, &m.Services[i])
		if err != nil {
			return nil, fmt.Errorf("service %q: %w", m.Services[i].Name, err)
		}
		all = append(all, s)
	}
	if len(all) == 0 {
		return nil, errors.New("it has no service")
	}
	return all, nil
}

func newService(mod *Module, m *image.Module, s *image.Service) (*Service, error) {
	if !nameForm.MatchString(s.Name) {
		return nil, errors.New("the name must be lower-case letters, digits and hyphens")
	}
	if len(s.Command) == 0 || !path.IsAbs(s.Command[0]) {
		return nil, errors.New("the command must begin with an absolute path")
	}
	user, err := findUser(m.Users, s.User)
	if err != nil {
		return nil, err
	}
	for _, dir := range s.Tmpfs {
		if !cleanAbsolute(dir) {
			return nil, fmt.Errorf("tmpfs %q is not a clean absolute path", dir)
		}
	}
	r := &Service{
		Module: mod, Name: s.Name, ID: mod.Name + "." + s.Name, Cgroup: mod.Cgroup + "/" + s.Name,
		Command: s.Command, Env: s.Env, UID: uint32(user.UID), GID: uint32(user.GID),
		Needs: s.Needs, Tmpfs: s.Tmpfs, Capabilities: s.Capabilities, Stop: s.Stop,
	}
	if r.Stop == "" {
		r.Stop = "SIGTERM"
	}
	if s.Ready != nil {
		r.Ready = *s.Ready
	}
	if r.Ready.Timeout <= 0 {
		r.Ready.Timeout = defaultCheckTimeout
	}
	return r, nil
}

func newVolumes(m *image.Module) ([]Volume, error) {
	var all []Volume
	for _, v := range m.Volumes {
		if !nameForm.MatchString(v.Name) || !cleanAbsolute(v.Path) {
			return nil, fmt.Errorf("volume %q at %q: the name or the path is not allowed", v.Name, v.Path)
		}
		u, err := findUser(m.Users, v.User)
		if err != nil {
			return nil, fmt.Errorf("volume %q: %w", v.Name, err)
		}
		all = append(all, Volume{
			Name: v.Name, Path: v.Path, UID: uint32(u.UID), GID: uint32(u.GID),
		})
	}
	return all, nil
}

func cleanAbsolute(p string) bool {
	return path.IsAbs(p) && path.Clean(p) == p && p != "/" && !strings.ContainsAny(p, ":\n")
}

func findUser(users []image.User, name string) (image.User, error) {
	i := slices.IndexFunc(users, func(u image.User) bool { return u.Name == name })
	switch {
	case i < 0 && name == "root":
		return image.User{Name: name}, nil
	case i < 0:
		return image.User{}, fmt.Errorf("the module's tree has no user %q", name)
	case users[i].UID < 0 || users[i].UID >= IDs || users[i].GID < 0 || users[i].GID >= IDs:
		return image.User{}, fmt.Errorf("the ids of user %q are outside 0 to %d", name, IDs-1)
	}
	return users[i], nil
}

// order sorts services so that each comes after what it needs; equal ones keep the manifest's order.
func order(services []*Service) ([]*Service, error) {
	placed := map[string]bool{}
	var out []*Service
	for len(out) < len(services) {
		before := len(out)
		for _, s := range services {
			if placed[s.Name] || slices.ContainsFunc(s.Needs, func(n string) bool { return !placed[n] }) {
				continue
			}
			placed[s.Name] = true
			out = append(out, s)
		}
		if len(out) == before {
			return nil, fmt.Errorf("services need each other in a circle, need one that is not there, or share a name: %s",
				strings.Join(unplaced(services, placed), ", "))
		}
	}
	return out, nil
}

func unplaced(services []*Service, placed map[string]bool) []string {
	var names []string
	for _, s := range services {
		if !placed[s.Name] {
			names = append(names, s.Name)
		}
	}
	if names == nil {
		return []string{services[len(services)-1].Name}
	}
	return names
}
