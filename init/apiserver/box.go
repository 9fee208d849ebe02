// Package apiserver answers the box's API: on a unix socket, and on the virtio port of whoever owns the machine. It knows
// who may ask what and what goes over the wire; what the answers are is the Box's business.
package apiserver

import (
	"context"
	"io"
	"iter"

	"golang.org/x/sys/unix"

	"allotment/api"
	"allotment/image"
)

// Box is the running system. Its methods are called from many goroutines at once. Errors that are an *api.Error reach the
// caller as they are; others as api.Internal with their text. Streams end early when ctx ends or the caller breaks the
// loop, and yield an error only as the last thing.
type Box interface {
	Machine
	Backups
	Info() api.Info
	Health() api.Health
	// Modules lists all modules, those that are off too, in the manifest's order.
	Modules() []api.Module
	Resources() api.Resources

	// Switch switches a module on or off, for good. A core module, and one that others need, cannot be off (api.Conflict).
	Switch(ctx context.Context, module string, on bool) error
	// Restart ends a service and starts it again; those that need it go on. It returns when the service was asked to end.
	Restart(ctx context.Context, module, service string) error

	Logs(ctx context.Context, q api.LogQuery) iter.Seq2[api.Line, error]
	Events(ctx context.Context, q api.EventQuery) iter.Seq2[api.Event, error]

	// Settings returns a module's settings; those of the organisation where module is empty.
	Settings(module string) (api.Settings, error)
	// SetSettings changes the named ones, and returns when what depends on them is ready again. api.Invalid has a fault for
	// each value that does not fit; then nothing has changed.
	SetSettings(ctx context.Context, module string, values map[string]any) error

	Tasks() []api.Task
	// RunTask runs a task; Title and Help of t do not count. That a task fails is no error: the last Progress says so.
	RunTask(ctx context.Context, t api.Task) iter.Seq2[api.Progress, error]

	Update() (api.Update, error)
	// UpdateHistory lists the updates that were tried, the newest first.
	UpdateHistory() ([]api.UpdateAttempt, error)
	// SetUpdatePolicy changes what is set in p.
	SetUpdatePolicy(p api.UpdatePolicy) error
	// CheckUpdate has the publisher asked for a new version; now: and that tried as soon as possible.
	CheckUpdate(now bool) error
	// GoBack says what going back to the version of before would lose, and goes back if that is confirmed.
	GoBack(ctx context.Context, confirmed bool) (api.GoBack, error)
	// RestartUpdate tries the release that is staged. It returns when the box resets, or with the reason why it does not; then
	// all modules go on.
	RestartUpdate(ctx context.Context) error
	// TidyUpdates removes the copies of data that no way back needs any more.
	TidyUpdates() error

	// Provision makes accounts in the directory and yields each once it can log in. A name that exists already gets a new
	// password.
	Provision(ctx context.Context, p api.Provision) iter.Seq2[api.Account, error]
}

// Developer is what only developer images have. It may call everything that Box says of its own methods.
type Developer interface {
	HasLayer(d image.Digest) bool
	// AddLayer reads a layer to its end and keeps it until the next boot at least, if its fs-verity digest is d.
	AddLayer(ctx context.Context, d image.Digest, r io.Reader) error
	// Replace stops the module of that name and runs it by another declaration, whose layers are there, until the next boot.
	// A name that is new adds a module. It returns when the new one was started, or an error and the old one still runs.
	Replace(ctx context.Context, m image.Module) error
	Processes() ([]api.Process, error)
	Signal(pid int, sig unix.Signal) error
	// Run runs a command in the container of a running service, as its user; it yields what it prints and at last its status.
	Run(ctx context.Context, module, service string, command []string) iter.Seq2[api.Output, error]
}
