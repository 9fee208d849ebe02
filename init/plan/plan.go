// Package plan turns the manifest of the verified root into what the supervisor does on this device: addresses, id
// ranges, cgroups and the order of services. It is pure: the same manifest gives the same plan, and nothing is touched.
package plan

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
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
)

// What counts where a manifest says nothing; docs/formats/module.md names them.
const (
	defaultPIDs         = 256
	defaultWeight       = 100
	defaultOOM          = 200
	defaultQuota        = 1024 // MiB
	defaultReadyTimeout = 60   // seconds, as all that follow
	defaultLiveTimeout  = 10
	defaultLiveEvery    = 30
	defaultLiveFailures = 3
	defaultStopTimeout  = 20
	defaultTaskTimeout  = 300
)

// Directory is the module whose LDAP service modules read that have an account there, and LDAPPort is its port.
const (
	Directory = "directory"
	LDAPPort  = 389
)

// Users of the host, and groups of the same number, that no module's range holds; trees/root.toml names them.
const (
	GatewayID  = 901
	ResolverID = 902
	PortalID   = 903
	UpdaterID  = 905
)

// Folders of volumes that are the gateway's and the portal's own; no module has these names.
const (
	Gateway = "gateway"
	Portal  = "portal"
)

// The host's addresses in the box's own network, which it shares with the modules.
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
	IPv4       netip.Prefix   // in the box's own network
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
	*Service // without checks; Requires holds what must be ready while it runs, After the migrations before it
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
	Requires     []*Service   // must be ready first: what Needs names, and the directory for a module that reads it
	After        []*Migration // of its module, must be done first: those that do not need it
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

// What names may be, since they become parts of paths, host names and cgroups.
var (
	nameForm = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$`)
	taskForm = regexp.MustCompile(`^[a-z0-9-]{1,100}$`)
	fileForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`) // of a template
)

// New makes the plan, or reports every module that cannot be run as it is described.
func New(m *image.Manifest) (*Plan, error) {
	if len(m.Modules) > MaxModules {
		return nil, fmt.Errorf("cannot plan %d modules: at most %d", len(m.Modules), MaxModules)
	}
	p := &Plan{}
	var errs []error
	for i := range m.Modules {
		mod, err := newModule(i, &m.Modules[i])
		if err == nil && p.Module(mod.Name) != nil {
			err = errors.New("a module of this name exists already")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot plan module %q: %w", m.Modules[i].Name, err))
			continue
		}
		p.Modules = append(p.Modules, mod)
	}
	for _, mod := range p.Modules {
		if err := p.link(mod); err != nil {
			errs = append(errs, fmt.Errorf("cannot plan module %q: %w", mod.Name, err))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if err := errors.Join(p.checkClaims(), p.order()); err != nil {
		return nil, err
	}
	return p, nil
}

// Module is the module called name, or nil.
func (p *Plan) Module(name string) *Module {
	for _, m := range p.Modules {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// Services lists the services of all modules, each after those that it requires.
func (p *Plan) Services() []*Service {
	all, _ := sorted(p.Modules) // New has found no circle
	return slices.DeleteFunc(all, func(s *Service) bool { return s.Timeout != 0 })
}

// Service is the service called name, or nil.
func (m *Module) Service(name string) *Service {
	for _, s := range m.Services {
		if s.Name == name {
			return s
		}
	}
	return nil
}
