package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"allotment/api"
)

// Kind tells what an Event is.
type Kind string

// The kinds of events.
const (
	Line Kind = "line" // a line of the serial console
	QMP  Kind = "qmp"  // an event of QEMU, such as RESET or SHUTDOWN
)

// Event is something that a machine did.
type Event struct {
	Kind Kind
	Text string          // the line without terminal sequences, or the name of the QMP event
	Data json.RawMessage // of the QMP event
	Wall time.Duration   // since power-on
	CPU  time.Duration   // of the QEMU process since its start, user and system
}

// VM is a machine that was started. Its methods can be called from several goroutines.
type VM struct {
	opts    Options
	process *process
	qmp     *qmpClient
	api     *api.Client
	pid     int // of QEMU itself, which process may be a wrapper of
	started time.Time
	cancel  context.CancelCauseFunc
	log     *os.File
	out     *console
	events  *journal[Event]
	ended   chan struct{} // closed when the process has gone and all that it said is in events

	mu            sync.Mutex
	cpu           time.Duration // as last read
	lineAt, qmpAt int           // where WaitLine and WaitEvent go on
	ports         map[int]string
}

// Reasons for the end of a machine.
var (
	ErrLimit  = errors.New("the machine's time limit has passed")
	ErrEnded  = errors.New("the machine ended")
	errClosed = errors.New("the machine was closed")
)

// Start makes the machine's disk overlay and EFI variables where its folder has none yet, and powers the machine on. The
// machine lives until ctx ends at the latest. The caller must Close it.
func Start(ctx context.Context, o Options) (*VM, error) {
	o, err := o.defaults()
	if err != nil {
		return nil, err
	}
	if err := prepare(ctx, o); err != nil {
		return nil, fmt.Errorf("cannot prepare machine in %q: %w", o.Dir, err)
	}
	v := &VM{opts: o, started: time.Now(), api: api.Port(apiFile(o.Dir)), events: newJournal[Event](),
		ended: make(chan struct{})}
	if v.log, err = os.OpenFile(logFile(o.Dir), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
		return nil, err
	}
	v.out = &console{log: v.log, line: func(text string) { v.note(Event{Kind: Line, Text: text}) }}
	life, cancel := context.WithCancelCause(ctx)
	v.cancel = cancel
	life, stop := context.WithTimeoutCause(life, o.Limit, fmt.Errorf("%w (%s)", ErrLimit, o.Limit))
	if err := v.powerOn(life); err != nil {
		stop()
		v.log.Close()
		return nil, fmt.Errorf("cannot start machine in %q: %w", o.Dir, err)
	}
	go func() {
		v.attend(life)
		stop()
	}()
	return v, nil
}

// powerOn runs QEMU, connects to it and lets the machine go. Where it fails, no process is left.
func (v *VM) powerOn(life context.Context) error {
	os.Remove(socketFile(v.opts.Dir)) // of an earlier run
	os.Remove(apiFile(v.opts.Dir))
	listener, err := net.Listen("unix", socketFile(v.opts.Dir))
	if err != nil {
		return err
	}
	defer listener.Close()
	args := append(machineArgs(v.opts), controlArgs(v.opts.Dir)...)
	cmd := withFolders(v.opts).Command(life, program(v.opts.Arch), args...)
	if v.process, err = startProcess(cmd, v.out); err != nil {
		return err
	}
	context.AfterFunc(life, v.process.kill)
	go func() {
		<-v.process.exited
		listener.Close()
	}()
	if err := v.connect(life, listener); err != nil {
		v.process.kill()
		<-v.process.exited
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(v.process.said.String()))
	}
	return nil
}

// connect takes QEMU's connection for QMP and starts the machine's processor.
func (v *VM) connect(life context.Context, listener net.Listener) error {
	conn, err := listener.Accept()
	if err != nil {
		return errors.Join(ErrEnded, context.Cause(life))
	}
	pid, err := peer(conn)
	if err != nil {
		return err
	}
	report := func(name string, data json.RawMessage) { v.note(Event{Kind: QMP, Text: name, Data: data}) }
	if v.qmp, err = newQMP(life, conn, report); err != nil {
		return err
	}
	if v.ports, err = v.findPorts(life); err != nil {
		return err
	}
	v.mu.Lock()
	v.started, v.pid = time.Now(), pid
	v.mu.Unlock()
	_, err = v.qmp.execute(life, "cont", nil)
	return err
}

// attend waits for the end of the process and says why it came.
func (v *VM) attend(life context.Context) {
	<-v.process.exited
	<-v.qmp.done
	v.api.Close()
	v.out.flush()
	v.log.Close()
	switch said := strings.TrimSpace(v.process.said.String()); {
	case life.Err() != nil:
		v.events.end(context.Cause(life))
	case v.process.err != nil:
		v.events.end(fmt.Errorf("%w: %w: %s", ErrEnded, v.process.err, said))
	default:
		v.events.end(ErrEnded)
	}
	close(v.ended)
}

// note adds an event to the journal with the time it came.
func (v *VM) note(e Event) {
	e.Wall, e.CPU = v.Clock()
	v.events.add(e)
	if v.opts.Console != nil {
		v.opts.Console(e)
	}
}

// Clock is the wall time since power-on, and the CPU time that the QEMU process has used since its start, user and system;
// after its end, the CPU time is that at the last event.
func (v *VM) Clock() (wall, cpu time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.pid != 0 {
		if t, err := cpuTime(v.pid); err == nil {
			v.cpu = t
		}
	}
	return time.Since(v.started), v.cpu
}

// Events are all events so far, in order.
func (v *VM) Events() []Event { return v.events.all() }

// Lines are the console lines so far that fit the pattern.
func (v *VM) Lines(pattern *regexp.Regexp) []Event {
	var fit []Event
	for _, e := range v.events.all() {
		if e.Kind == Line && pattern.MatchString(e.Text) {
			fit = append(fit, e)
		}
	}
	return fit
}

// Wait returns the first event at or after index from (of Events) that fits, and the index after it.
func (v *VM) Wait(ctx context.Context, from int, fits func(Event) bool) (Event, int, error) {
	e, next, err := v.events.wait(ctx, from, fits)
	if err != nil {
		err = v.explain(err)
	}
	return e, next, err
}

// WaitLine returns the next console line that fits the pattern; lines before the last one that it returned are past.
func (v *VM) WaitLine(ctx context.Context, pattern *regexp.Regexp) (Event, error) {
	e, err := v.waitNext(ctx, &v.lineAt, func(e Event) bool { return e.Kind == Line && pattern.MatchString(e.Text) })
	if err != nil {
		return e, fmt.Errorf("cannot see a console line like %q: %w", pattern, err)
	}
	return e, nil
}

// WaitEvent returns the next QMP event of that name; events before the last one that it returned are past.
func (v *VM) WaitEvent(ctx context.Context, name string) (Event, error) {
	e, err := v.waitNext(ctx, &v.qmpAt, func(e Event) bool { return e.Kind == QMP && e.Text == name })
	if err != nil {
		return e, fmt.Errorf("cannot see the event %s: %w", name, err)
	}
	return e, nil
}

func (v *VM) waitNext(ctx context.Context, at *int, fits func(Event) bool) (Event, error) {
	v.mu.Lock()
	from := *at
	v.mu.Unlock()
	e, next, err := v.Wait(ctx, from, fits)
	v.mu.Lock()
	defer v.mu.Unlock()
	if err == nil && next > *at {
		*at = next
	}
	return e, err
}

// explain adds the end of the console to an error, and where all of it is.
func (v *VM) explain(err error) error {
	var b strings.Builder
	lines := v.Lines(anyLine)
	for _, e := range lines[max(0, len(lines)-20):] {
		fmt.Fprintf(&b, "\n  %6.1fs %s", e.Wall.Seconds(), e.Text)
	}
	return fmt.Errorf("%w; the console's last lines:%s\nfull log: %s", err, b.String(), logFile(v.opts.Dir))
}

var anyLine = regexp.MustCompile(``)

// Log is the path of the file with all that came over the serial console.
func (v *VM) Log() string { return logFile(v.opts.Dir) }

// Execute runs any QMP command (QEMU documentation, "QEMU QMP Reference Manual").
func (v *VM) Execute(ctx context.Context, command string, arguments any) (json.RawMessage, error) {
	return v.qmp.execute(ctx, command, arguments)
}

// Reset resets the machine as its reset button would.
func (v *VM) Reset(ctx context.Context) error {
	_, err := v.qmp.execute(ctx, "system_reset", nil)
	return err
}

// Screenshot writes what a monitor would show to a PNG file.
func (v *VM) Screenshot(ctx context.Context, file string) error {
	_, err := v.qmp.execute(ctx, "screendump", map[string]string{"filename": file, "format": "png"})
	return err
}

// PowerDown presses the ACPI power button and waits until the system has shut itself down and the machine is off.
func (v *VM) PowerDown(ctx context.Context) error {
	if _, err := v.qmp.execute(ctx, "system_powerdown", nil); err != nil {
		return err
	}
	off, _, err := v.Wait(ctx, 0, func(e Event) bool { return e.Kind == QMP && e.Text == "SHUTDOWN" })
	if err != nil {
		return fmt.Errorf("cannot see the machine shut down: %w", err)
	}
	if !strings.Contains(string(off.Data), `"guest-shutdown"`) {
		return fmt.Errorf("the machine did not shut itself down: %s", off.Data)
	}
	select {
	case <-v.ended:
		return nil
	case <-ctx.Done():
		return v.explain(context.Cause(ctx))
	}
}

// Ended is closed when the machine has ended, by itself or by us.
func (v *VM) Ended() <-chan struct{} { return v.ended }

// Close takes the power away, if the machine still runs, and waits until no process of it is left. The folder stays.
func (v *VM) Close() {
	v.cancel(errClosed)
	<-v.ended
}
