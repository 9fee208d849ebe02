package image

// Module is what the device needs to know of one module: the part of its module.toml that the supervisor enforces.
// docs/formats/module.md describes the file; the field names here are those of both TOML and JSON.
type Module struct {
	Name        string       `toml:"name" json:"name"`                                 // also the host name inside the box: <name>.internal
	Title       string       `toml:"title" json:"title"`                               // for people, in English
	Importance  string       `toml:"importance,omitempty" json:"importance,omitempty"` // core, normal (default) or optional
	Licence     string       `toml:"licence" json:"licence"`                           // SPDX expression of the main software
	Layers      []Digest     `toml:"-" json:"layers"`                                  // fs-verity digests, lowest first; filled in by the builder
	Users       []User       `toml:"-" json:"users,omitempty"`                         // users of the tree, so that services can be run by name
	Services    []Service    `toml:"service" json:"services"`                          // at least one
	Volumes     []Volume     `toml:"volume" json:"volumes,omitempty"`                  // state that outlives the containers
	Memory      Memory       `toml:"memory" json:"memory"`                             // of the whole module
	CPU         int          `toml:"cpu,omitempty" json:"cpu,omitempty"`               // cgroup v2 cpu.weight, 1 to 10000; 0 means 100
	IO          int          `toml:"io,omitempty" json:"io,omitempty"`                 // cgroup v2 io weight, 1 to 1000; 0 means 100
	OOM         int          `toml:"oom,omitempty" json:"oom,omitempty"`               // oom_score_adj, 1 (goes last) to 1000 (first); 0 means 200
	PIDs        int          `toml:"pids,omitempty" json:"pids,omitempty"`             // most processes at once; 0 means 256
	HTTP        *HTTP        `toml:"http" json:"http,omitempty"`                       // what the gateway forwards here
	Ports       []Port       `toml:"port" json:"ports,omitempty"`                      // reachable from outside the box
	Peers       []Peer       `toml:"peer" json:"peers,omitempty"`                      // modules that it may connect to; all others it cannot
	Egress      []Egress     `toml:"egress" json:"egress,omitempty"`                   // what it may connect to outside the box; default nothing
	LDAP        *LDAP        `toml:"ldap" json:"ldap,omitempty"`                       // what it may read of the directory
	SSO         string       `toml:"sso,omitempty" json:"sso,omitempty"`               // how its web pages log in: none (default), header, basic or oidc
	Permissions []Permission `toml:"permission" json:"permissions,omitempty"`          // what groups can be allowed to do
	Settings    []Setting    `toml:"setting" json:"settings,omitempty"`                // the form that officers fill in
	Secrets     []Secret     `toml:"secret" json:"secrets,omitempty"`                  // made once on the device
	Templates   []Template   `toml:"template" json:"templates,omitempty"`              // files rendered from settings and secrets
	Migrations  []Migration  `toml:"migration" json:"migrations,omitempty"`            // steps from one format of a volume to the next
	Journeys    []Journey    `toml:"journey" json:"journeys,omitempty"`                // what members do, tried before and after an update
	Backup      *Backup      `toml:"backup" json:"backup,omitempty"`                   // how its data is saved and proven
	Repairs     []Repair     `toml:"repair" json:"repairs,omitempty"`                  // buttons of the health page
	DNS         []Record     `toml:"dns" json:"dns,omitempty"`                         // records that its names need
}

// User is a user of a tree with its fixed ids.
type User struct {
	Name string `toml:"name" json:"name"`
	UID  int    `toml:"uid" json:"uid"`
	GID  int    `toml:"gid" json:"gid"`
}

// Service is one process of a module, run in one container.
type Service struct {
	Name         string   `toml:"name" json:"name"`
	Command      []string `toml:"command" json:"command"`                               // absolute path and arguments; no shell is involved
	User         string   `toml:"user" json:"user"`                                     // a user of the module's tree
	Needs        []string `toml:"needs,omitempty" json:"needs,omitempty"`               // must be ready first: services of the module, or module.service
	Env          []string `toml:"env,omitempty" json:"env,omitempty"`                   // NAME=value
	Tmpfs        []string `toml:"tmpfs,omitempty" json:"tmpfs,omitempty"`               // folders that are empty, writable and in memory; owned by the user
	Stop         string   `toml:"stop,omitempty" json:"stop,omitempty"`                 // signal name, default SIGTERM
	StopTimeout  int      `toml:"stop-timeout,omitempty" json:"stop-timeout,omitempty"` // seconds until it is killed; 0 means 20
	Reload       string   `toml:"reload,omitempty" json:"reload,omitempty"`             // signal that makes it read changed templates; empty: it is restarted
	Ready        *Check   `toml:"ready" json:"ready,omitempty"`                         // nil: ready when started
	Live         *Check   `toml:"live" json:"live,omitempty"`                           // asked again and again once it is ready; nil: not asked
	Memory       int      `toml:"memory,omitempty" json:"memory,omitempty"`             // MiB, most of this service alone; 0: the module's
	Capabilities []string `toml:"capabilities,omitempty" json:"capabilities,omitempty"` // such as CAP_NET_BIND_SERVICE; default none
}

// Check is one question whose answer tells whether a service works. Just one of Exec, TCP, HTTP and LDAP is set.
type Check struct {
	Exec     []string `toml:"exec,omitempty" json:"exec,omitempty"`         // command in the service's container that must end with status 0
	TCP      int      `toml:"tcp,omitempty" json:"tcp,omitempty"`           // port that must accept a connection
	HTTP     string   `toml:"http,omitempty" json:"http,omitempty"`         // ":port/path" that must answer with status 200 to 399
	LDAP     int      `toml:"ldap,omitempty" json:"ldap,omitempty"`         // port where an anonymous bind (RFC 4513) must succeed
	Timeout  int      `toml:"timeout,omitempty" json:"timeout,omitempty"`   // ready: seconds until the service counts as failed; live: of one question. 0 means 60; 10 in live
	Every    int      `toml:"every,omitempty" json:"every,omitempty"`       // live: seconds between questions; 0 means 30
	Failures int      `toml:"failures,omitempty" json:"failures,omitempty"` // live: so many in a row and it is restarted; 0 means 3
}

// Volume is a folder of state.
type Volume struct {
	Name   string `toml:"name" json:"name"`
	Path   string `toml:"path" json:"path"`                         // absolute, in the container
	Class  string `toml:"class" json:"class"`                       // content, config, secret, cache, index or federated
	User   string `toml:"user" json:"user"`                         // owner, a user of the module's tree
	Quota  int    `toml:"quota,omitempty" json:"quota,omitempty"`   // MiB; 0 means 1024
	Format int    `toml:"format,omitempty" json:"format,omitempty"` // version of its content, which migrations lead to; 0: none
	NoCOW  bool   `toml:"no-cow,omitempty" json:"no-cow,omitempty"` // written in place: for databases with checksums and journal of their own
}

// Memory bounds a module, in MiB. Idle and Typical are measured (make bench-modules) and shown to officers.
type Memory struct {
	Idle    int `toml:"idle,omitempty" json:"idle,omitempty"`
	Typical int `toml:"typical,omitempty" json:"typical,omitempty"`
	Max     int `toml:"max" json:"max"` // cgroup v2 memory.max
}

// HTTP is a module's web endpoint behind the gateway.
type HTTP struct {
	Port  int      `toml:"port" json:"port"`                       // inside the module's network namespace
	Path  string   `toml:"path" json:"path"`                       // URL prefix, "/" for all
	Strip bool     `toml:"strip,omitempty" json:"strip,omitempty"` // forward without the prefix, and say it in X-Script-Name
	Also  []string `toml:"also,omitempty" json:"also,omitempty"`   // further prefixes, such as /.well-known/caldav; never stripped
}

// Port is a port of the module that can be reached from outside the box, with the clients' addresses preserved.
type Port struct {
	Port     int    `toml:"port" json:"port"`                             // outside and inside
	Protocol string `toml:"protocol,omitempty" json:"protocol,omitempty"` // tcp (default) or udp
	Expose   string `toml:"expose" json:"expose"`                         // public, lan (private addresses alone) or none
	Name     string `toml:"name,omitempty" json:"name,omitempty"`         // for people, such as "XMPP for clients"
}

// Peer is another module of the box that may be connected to by TCP.
type Peer struct {
	Module string `toml:"module" json:"module"`
	Ports  []int  `toml:"ports" json:"ports"`
}

// Egress is what may be connected to outside the box. Private and link-local addresses, the cloud's metadata among them,
// belong to lan; the box itself and other modules are never reached so.
type Egress struct {
	To       string `toml:"to,omitempty" json:"to,omitempty"`             // internet (default) or lan
	Protocol string `toml:"protocol,omitempty" json:"protocol,omitempty"` // tcp (default) or udp
	Ports    []int  `toml:"ports" json:"ports"`
	Why      string `toml:"why" json:"why"` // for people
}

// LDAP is a module's account in the directory: cn=<module>,ou=services,o=organisation with a password of its own, in the
// secret "ldap". It lets the module connect to the module directory, port 389, and be started after it.
type LDAP struct {
	Read  []string `toml:"read" json:"read"`                       // people, groups, collectives, offices
	Probe bool     `toml:"probe,omitempty" json:"probe,omitempty"` // an account like a member's for journeys: uid=probe-<module>, its password in the secret "probe"
}

// Permission is something that a group can be allowed to do in the module.
type Permission struct {
	Name   string   `toml:"name" json:"name"`
	Title  string   `toml:"title" json:"title"`
	Groups []string `toml:"groups,omitempty" json:"groups,omitempty"` // who has it at first: members, officers
}

// Record is a DNS record that the module needs below the organisation's domain.
type Record struct {
	Name  string `toml:"name" json:"name"` // relative to the domain; "@" is the domain itself
	Type  string `toml:"type" json:"type"` // such as SRV
	Value string `toml:"value" json:"value"`
}
