package image

// Module is what the device needs to know of one module: the part of its module.toml that the supervisor enforces.
// docs/formats/module.md describes the file; the field names here are those of both TOML and JSON.
type Module struct {
	Name       string    `toml:"name" json:"name"`                                 // also the host name inside the box: <name>.internal
	Title      string    `toml:"title" json:"title"`                               // for people, in English
	Importance string    `toml:"importance,omitempty" json:"importance,omitempty"` // core, normal (default) or optional
	Licence    string    `toml:"licence" json:"licence"`                           // SPDX expression of the main software
	Layers     []Digest  `toml:"-" json:"layers"`                                  // fs-verity digests, lowest first; filled in by the builder
	Users      []User    `toml:"-" json:"users,omitempty"`                         // users of the tree, so that services can be run by name
	Services   []Service `toml:"service" json:"services"`                          // at least one
	Volumes    []Volume  `toml:"volume" json:"volumes,omitempty"`                  // state that outlives the containers
	Memory     Memory    `toml:"memory" json:"memory"`                             // of the whole module
	PIDs       int       `toml:"pids,omitempty" json:"pids,omitempty"`             // most processes at once; 0 means 256
	HTTP       *HTTP     `toml:"http" json:"http,omitempty"`                       // what the gateway forwards here
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
	Needs        []string `toml:"needs,omitempty" json:"needs,omitempty"`               // services of the same module that must be ready first
	Env          []string `toml:"env,omitempty" json:"env,omitempty"`                   // NAME=value
	Tmpfs        []string `toml:"tmpfs,omitempty" json:"tmpfs,omitempty"`               // folders that are empty, writable and in memory; owned by the user
	Stop         string   `toml:"stop,omitempty" json:"stop,omitempty"`                 // signal name, default SIGTERM
	Ready        *Check   `toml:"ready" json:"ready,omitempty"`                         // nil: ready when started
	Capabilities []string `toml:"capabilities,omitempty" json:"capabilities,omitempty"` // such as CAP_NET_BIND_SERVICE; default none
}

// Check is one question whose answer tells whether a service works. Just one of TCP and HTTP is set.
type Check struct {
	TCP     int    `toml:"tcp,omitempty" json:"tcp,omitempty"`         // port that must accept a connection
	HTTP    string `toml:"http,omitempty" json:"http,omitempty"`       // ":port/path" that must answer with status 200 to 399
	Timeout int    `toml:"timeout,omitempty" json:"timeout,omitempty"` // seconds until the service counts as failed; 0 means 60
}

// Volume is a folder of state.
type Volume struct {
	Name  string `toml:"name" json:"name"`
	Path  string `toml:"path" json:"path"`   // absolute, in the container
	Class string `toml:"class" json:"class"` // content, config, secret, cache, index or federated
	User  string `toml:"user" json:"user"`   // owner, a user of the module's tree
}

// Memory bounds a module, in MiB.
type Memory struct {
	Max int `toml:"max" json:"max"` // cgroup v2 memory.max
}

// HTTP is a module's web endpoint behind the gateway.
type HTTP struct {
	Port int    `toml:"port" json:"port"` // inside the module's network namespace
	Path string `toml:"path" json:"path"` // URL prefix, "/" for all
}
