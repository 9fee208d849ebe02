package api

import (
	"time"

	"allotment/image"
)

// Info says which box this is.
type Info struct {
	Name      string        `json:"name"` // of the profile
	Title     string        `json:"title"`
	Version   image.Version `json:"version"`
	Slot      image.Slot    `json:"slot"`
	Trial     bool          `json:"trial"`
	Developer bool          `json:"developer"` // whether the developer's routes are there
}

// Level is how well something does.
type Level string

// The levels, from best to worst.
const (
	Good Level = "good"
	Fair Level = "fair" // it works, but somebody should look
	Bad  Level = "bad"  // it does not work
)

// Health is the state of the box in a few lines.
type Health struct {
	Level   Level   `json:"level"` // the worst of the lamps
	Summary string  `json:"summary"`
	Uptime  float64 `json:"uptime"` // seconds
	Lamps   []Lamp  `json:"lamps"`
}

// Lamp is one line of Health. What is a module's title, or one of disk, memory, clock, network and update.
type Lamp struct {
	What   string `json:"what"`
	Module string `json:"module,omitempty"` // name of the module, where it is about one
	Level  Level  `json:"level"`
	Text   string `json:"text"` // in plain English, with the reason where it is not good
}

// Module is a module as it runs.
type Module struct {
	Name       string       `json:"name"`
	Title      string       `json:"title"`
	Importance string       `json:"importance"` // core, normal or optional
	On         bool         `json:"on"`         // whether an officer wants it to run
	State      string       `json:"state"`      // off, starting, ready, degraded or failed
	Problem    string       `json:"problem,omitempty"`
	IPv4       string       `json:"ipv4"` // in the box's own network
	IPv6       string       `json:"ipv6"`
	Path       string       `json:"path,omitempty"` // URL prefix behind the gateway
	Ports      []image.Port `json:"ports,omitempty"`
	Memory     image.Memory `json:"memory"`          // MiB that it was measured or is allowed to use
	Quota      int64        `json:"quota,omitempty"` // bytes of disk that its volumes may have
	Needs      []string     `json:"needs,omitempty"` // names of the modules that it does not work without
	Services   []Service    `json:"services"`
}

// Service is a service as it runs.
type Service struct {
	Name     string    `json:"name"`
	State    string    `json:"state"` // waiting, starting, checking, ready, ending, restarting, failed, stopping or stopped
	Problem  string    `json:"problem,omitempty"`
	Since    time.Time `json:"since"`         // when it came into this state
	Restarts int       `json:"restarts"`      // since boot
	PID      int       `json:"pid,omitempty"` // of its first process, on the host; 0: none
}

// LogQuery chooses lines of logs.
type LogQuery struct {
	Module  string // empty: the box itself, whose services are supervisor, gateway, resolver, portal and updater
	Service string // empty: all
	Lines   int    // so many of the newest, at most; negative: all that are kept
	Follow  bool   // go on with lines as they come
}

// Line is a line of a service's log.
type Line struct {
	Time    time.Time `json:"time"`
	Module  string    `json:"module,omitempty"`
	Service string    `json:"service"`
	Text    string    `json:"text"`
}

// Event is something that happened to the box, for people to read.
type Event struct {
	Number  uint64    `json:"number"` // one more than that of the event before
	Time    time.Time `json:"time"`
	Level   Level     `json:"level"`
	Kind    string    `json:"kind"` // service, module, memory, disk, settings, task, network, clock, update, backup or box
	Module  string    `json:"module,omitempty"`
	Service string    `json:"service,omitempty"`
	Text    string    `json:"text"` // all of it, with the name of what it is about
}

// EventQuery chooses events.
type EventQuery struct {
	After  uint64 // only events with a greater number
	Follow bool   // go on with events as they come
}

// Settings are a form and what is filled in.
type Settings struct {
	Form   []image.Setting `json:"form"`
	Values map[string]any  `json:"values"` // of every field
}

// Task is something that a module can be asked to do.
type Task struct {
	Module string `json:"module"`
	Kind   string `json:"kind"` // journey, repair, migration or backup
	Name   string `json:"name"` // of a migration VOLUME-FORMAT; of a backup quiesce, resume, dump, verify, restore, restore-test or export
	Title  string `json:"title,omitempty"`
	Help   string `json:"help,omitempty"`
}

// Kinds of tasks.
const (
	Journey   = "journey"
	Repair    = "repair"
	Migration = "migration"
	Backup    = "backup"
)

// Progress is a part of what a running task does: a step that begins, or ends, and at last the task as a whole.
type Progress struct {
	Step    int     `json:"step,omitempty"` // from 1; 0: the task as a whole, which ends the stream
	Title   string  `json:"title,omitempty"`
	Done    bool    `json:"done"`              // false: it begins
	OK      bool    `json:"ok"`                // when it is done
	Problem string  `json:"problem,omitempty"` // why not
	Output  string  `json:"output,omitempty"`  // the last that it printed
	Seconds float64 `json:"seconds,omitempty"` // that it took
}

// Resources are what the box has and what is used of it. Sizes are bytes, times are seconds.
type Resources struct {
	Time      time.Time         `json:"time"`
	Uptime    float64           `json:"uptime"`
	CPUs      int               `json:"cpus"`
	CPU       float64           `json:"cpu"`             // busy since boot, of all processors
	Memory    int64             `json:"memory"`          // that the kernel has
	Available int64             `json:"memoryAvailable"` // MemAvailable of /proc/meminfo
	Disk      int64             `json:"disk"`            // size of the state partition
	DiskFree  int64             `json:"diskFree"`
	System    Usage             `json:"system"` // supervisor, gateway and resolver
	Modules   []ModuleResources `json:"modules"`
}

// Usage is what a control group has used.
type Usage struct {
	Memory     int64   `json:"memory"`     // memory.current
	Anonymous  int64   `json:"anonymous"`  // anon of memory.stat: what cannot be dropped
	File       int64   `json:"file"`       // file of memory.stat
	MemoryPeak int64   `json:"memoryPeak"` // memory.peak
	MemoryMax  int64   `json:"memoryMax,omitempty"`
	CPU        float64 `json:"cpu"` // usage_usec of cpu.stat
	Processes  int     `json:"processes"`
}

// ModuleResources are what a module uses.
type ModuleResources struct {
	Name     string             `json:"name"`
	Usage    Usage              `json:"usage"`
	Layers   int64              `json:"layers"` // sizes of its layers, shared ones too
	Services []ServiceResources `json:"services"`
	Volumes  []Volume           `json:"volumes,omitempty"`
}

// ServiceResources are what a service uses.
type ServiceResources struct {
	Name     string  `json:"name"`
	Usage    Usage   `json:"usage"`
	StartCPU float64 `json:"startCPU"` // CPU time that it had used when it got ready
	StartSec float64 `json:"startSec"` // from its start until it was ready
}

// Volume is how full a volume is.
type Volume struct {
	Name   string `json:"name"`
	Used   int64  `json:"used"`
	Quota  int64  `json:"quota"`
	Format int    `json:"format,omitempty"`
}

// Provision asks for accounts with new passwords: user01, user02 and so on.
type Provision struct {
	Users int    `json:"users"`
	Group string `json:"group,omitempty"` // that they join; default members
}

// Account is a made account. Its password is nowhere else.
type Account struct {
	Name     string `json:"name"`
	Password string `json:"password"`
}

// Process is a process of the box.
type Process struct {
	PID     int    `json:"pid"`
	Parent  int    `json:"parent"`
	Module  string `json:"module,omitempty"` // empty: of the box itself
	Service string `json:"service,omitempty"`
	Command string `json:"command"`
	Memory  int64  `json:"memory"` // resident, bytes
}

// Run asks for a command in the container of a running service, as its user.
type Run struct {
	Command []string `json:"command"`
}

// Output is a part of what a command prints, and at last how it ended.
type Output struct {
	Text string `json:"text,omitempty"`
	Exit *int   `json:"exit,omitempty"` // status; negative: the signal that ended it
}

// Update is what the box does to stay up to date.
type Update struct {
	Text    string         `json:"text"`              // what goes on, in a sentence
	Running image.Version  `json:"running"`           // version
	Offered image.Version  `json:"offered,omitempty"` // version that is to come
	State   string         `json:"state"`             // off, idle, checking, waiting, fetching, ready, restarting, trial or failed
	Done    int64          `json:"done,omitempty"`    // bytes of what is to be had
	Total   int64          `json:"total,omitempty"`
	Checked time.Time      `json:"checked,omitzero"` // when the publisher was asked last
	Due     time.Time      `json:"due,omitzero"`     // when it is to be tried
	Reason  string         `json:"reason,omitempty"` // why it waits, or what failed, in a sentence
	Back    image.Version  `json:"back,omitempty"`   // version that an officer can go back to
	Policy  UpdatePolicy   `json:"policy"`
	Last    *UpdateAttempt `json:"last,omitempty"` // that has ended
}

// UpdatePolicy is what officers want of updates. Fields that are nil in a change stay as they are.
type UpdatePolicy struct {
	Paused     *bool      `json:"paused,omitempty"`     // no update, until an officer says otherwise
	DeferUntil *time.Time `json:"deferUntil,omitempty"` // no restart before; the zero time: none is deferred
	From       *string    `json:"from,omitempty"`       // when the night begins in which the box may restart, such as 02:00
	To         *string    `json:"to,omitempty"`         // and when it ends
	Metered    *bool      `json:"metered,omitempty"`    // bytes cost money: nothing is had before an officer says now
	Channel    *string    `json:"channel,omitempty"`    // stable or candidate; empty: the profile's
	Source     *string    `json:"source,omitempty"`     // usb:LABEL of a disk, or the address of a mirror; empty: the publisher
}

// UpdateAttempt is a release that was tried.
type UpdateAttempt struct {
	Number  int           `json:"number"`
	From    image.Version `json:"from"`
	To      image.Version `json:"to"`
	Ended   time.Time     `json:"ended"`
	Stays   bool          `json:"stays"`            // whether the new version was kept
	ByHand  bool          `json:"byHand,omitempty"` // an officer went back, nothing had failed
	Check   string        `json:"check,omitempty"`  // what failed: start, tries, core, migration, module, journey, time or store
	Module  string        `json:"module,omitempty"`
	Journey string        `json:"journey,omitempty"`
	Problem string        `json:"problem,omitempty"`
	Subject string        `json:"subject"` // of the letter to the officers
	Letter  string        `json:"letter"`  // plain text
}

// GoBack is what going back to the version of before means.
type GoBack struct {
	From   image.Version `json:"from"`
	To     image.Version `json:"to"`
	Since  time.Time     `json:"since"`  // what was written later is lost
	Losses []Loss        `json:"losses"` // what that is; none: nothing was written
	Begun  bool          `json:"begun"`  // the box goes back now
}

// Loss is what would be lost of a module's volume.
type Loss struct {
	Module string    `json:"module"`
	Volume string    `json:"volume"`
	Files  int       `json:"files"`  // that are new or were changed
	Newest time.Time `json:"newest"` // when the newest of them was written
	Bytes  int64     `json:"bytes"`
}
