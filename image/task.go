package image

// Task is a command that runs to its end in a container of its own, with the module's image, volumes, secrets, templates,
// network and limits.
type Task struct {
	Command []string `toml:"command" json:"command"` // absolute path and arguments; no shell is involved
	User    string   `toml:"user" json:"user"`
	Env     []string `toml:"env,omitempty" json:"env,omitempty"`
	Tmpfs   []string `toml:"tmpfs,omitempty" json:"tmpfs,omitempty"`
	Timeout int      `toml:"timeout,omitempty" json:"timeout,omitempty"` // seconds; 0 means 300
}

// Migration leads a volume to a format from the one before. It runs once, in the order of the formats, before any service
// of the module that it does not need; format 1 is made of an empty volume.
type Migration struct {
	Task
	Volume string   `toml:"volume" json:"volume"`
	Format int      `toml:"format" json:"format"`                   // that the volume has afterwards
	Needs  []string `toml:"needs,omitempty" json:"needs,omitempty"` // services that must be ready while it runs, as in Service.Needs
}

// Journey is something that a member does, as steps that must all succeed, in order.
type Journey struct {
	Name  string `toml:"name" json:"name"`
	Title string `toml:"title" json:"title"` // such as "Enter an appointment and see it"
	Steps []Step `toml:"step" json:"steps"`
}

// Step is one step of a journey. Just one of Task (its command), HTTP, LDAP and TCP is set.
type Step struct {
	Title string       `toml:"title" json:"title"`
	Task  *Task        `toml:"task" json:"task,omitempty"`
	HTTP  *Request     `toml:"http" json:"http,omitempty"`
	LDAP  *LDAPRequest `toml:"ldap" json:"ldap,omitempty"`
	TCP   int          `toml:"tcp,omitempty" json:"tcp,omitempty"` // port that must accept a connection
}

// Request is an HTTP request to the module, made from the host's side of its network.
type Request struct {
	Method   string   `toml:"method,omitempty" json:"method,omitempty"` // default GET
	Port     int      `toml:"port" json:"port"`
	Path     string   `toml:"path" json:"path"`
	Headers  []string `toml:"headers,omitempty" json:"headers,omitempty"` // "Name: value"
	Body     string   `toml:"body,omitempty" json:"body,omitempty"`
	User     string   `toml:"user,omitempty" json:"user,omitempty"`         // of basic authentication (RFC 7617); needs Secret
	Secret   string   `toml:"secret,omitempty" json:"secret,omitempty"`     // name of the module's secret that is the password
	Status   []int    `toml:"status,omitempty" json:"status,omitempty"`     // that count as success; default 200 to 299
	Contains string   `toml:"contains,omitempty" json:"contains,omitempty"` // text that the answer's first MiB must have
}

// LDAPRequest is a bind and a search at the module (RFC 4511).
type LDAPRequest struct {
	Port   int    `toml:"port" json:"port"`
	DN     string `toml:"dn,omitempty" json:"dn,omitempty"`         // empty: anonymous
	Secret string `toml:"secret,omitempty" json:"secret,omitempty"` // name of the module's secret that is the password
	Base   string `toml:"base" json:"base"`
	Filter string `toml:"filter" json:"filter"`
	Least  int    `toml:"least" json:"least"` // so many entries or more must be found
}

// Backup says how the module's data is saved. Each step is a task; those that are not set are not needed.
type Backup struct {
	Volumes     []string `toml:"volumes" json:"volumes"`                    // that are saved, those of class cache and index never
	Quiesce     *Task    `toml:"quiesce" json:"quiesce,omitempty"`          // before a snapshot is taken
	Resume      *Task    `toml:"resume" json:"resume,omitempty"`            // after it was taken
	Dump        *Task    `toml:"dump" json:"dump,omitempty"`                // writes what cannot be copied as files into a volume
	Verify      *Task    `toml:"verify" json:"verify,omitempty"`            // of the dump
	Restore     *Restore `toml:"restore" json:"restore,omitempty"`          // from the dump, after the volumes are back
	RestoreTest *Task    `toml:"restore-test" json:"restoreTest,omitempty"` // proves restored volumes
	Open        []string `toml:"open" json:"open,omitempty"`                // volumes that hold open formats, for who leaves
	Export      *Task    `toml:"export" json:"export,omitempty"`            // writes open formats into such a volume
}

// Restore is a task that brings a dump's data back.
type Restore struct {
	Task
	Stops []string `toml:"stops,omitempty" json:"stops,omitempty"` // services of the module that must not run meanwhile
}

// Repair is something that an officer can try when the module does not work.
type Repair struct {
	Task
	Name  string `toml:"name" json:"name"`
	Title string `toml:"title" json:"title"` // of the button
	Help  string `toml:"help" json:"help"`   // what it does, and what it may cost
}
