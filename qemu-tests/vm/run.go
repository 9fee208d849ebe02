package vm

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// RunOptions say how Run boots an image.
type RunOptions struct {
	Machine    Options // Forward and Console are Run's own
	UntilReady bool    // end when the page has answered
	Quiet      bool    // do not show the console
	Name       string  // under which allot device finds the machine; empty: machine
}

// settle is how long a system has to shut itself down, wall time.
const settle = 90 * time.Second

// Run boots an image until the page on its port 80 answers, says on out where and how long it took, and stays until the
// machine turns itself off or ctx ends; then, or at once with UntilReady, it presses the power button and waits until the
// machine is off. The time limit of the machine holds until the page answers.
func Run(ctx context.Context, o RunOptions, out io.Writer) error {
	out = &lockedWriter{w: out} // the console writes too
	m := o.Machine
	m.Forward = []int{http80, https443}
	limit := m.Limit
	if limit == 0 {
		limit = Patience(untilPage)
	}
	m.Limit = forever
	if !o.Quiet {
		m.Console = func(e Event) {
			if e.Kind == Line {
				fmt.Fprintf(out, "%7.1fs  %s\n", e.Wall.Seconds(), e.Text)
			}
		}
	}
	m, err := m.defaults()
	if err != nil {
		return err
	}
	// The machine outlives ctx: its end is the wish to shut down cleanly.
	v, err := Start(context.WithoutCancel(ctx), m)
	if err != nil {
		return err
	}
	defer v.Close()
	name, unshare, err := v.Share(cmp.Or(o.Name, "machine"))
	if err != nil {
		return err
	}
	defer unshare()
	ready, stop := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w (%s)", ErrLimit, limit))
	defer stop()
	page, err := v.Get(ready, http80, "/")
	if err != nil && ctx.Err() != nil {
		return powerDown(v, out)
	}
	if err != nil {
		return err
	}
	report(v, page, out)
	fmt.Fprintf(out, "Ask it with: allot device --vm %s health\n", name)
	if o.UntilReady {
		return powerDown(v, out)
	}
	fmt.Fprintln(out, "Ctrl-C shuts it down; a second Ctrl-C takes the power away.")
	select {
	case <-ctx.Done():
		return powerDown(v, out)
	case <-v.Ended():
		fmt.Fprintln(out, "The machine is off.")
		return nil
	}
}

const (
	untilPage = 15 * time.Minute // a busy host emulates the first boot of several modules slowly

	http80   = 80
	https443 = 443
	forever  = 1 << 62 * time.Nanosecond
)

func report(v *VM, page Page, out io.Writer) {
	fmt.Fprintf(out, "\nhttp://%s/ answers; with TLS it is https://%s/\n", v.Address(http80), v.Address(https443))
	fmt.Fprintf(out, "%s, firmware %s, %d MiB: %.1f s and %.1f CPU seconds from power-on to page.\n",
		v.opts.Arch, v.opts.Firmware, v.opts.Memory, page.Wall.Seconds(), page.CPU.Seconds())
}

// powerDown presses the power button. It has its own time, as the caller's may be over.
func powerDown(v *VM, out io.Writer) error {
	ctx, stop := context.WithTimeoutCause(context.Background(), Patience(settle),
		fmt.Errorf("the machine did not turn itself off within %s of the power button", Patience(settle)))
	defer stop()
	fmt.Fprintln(out, "Pressing the power button.")
	if err := v.PowerDown(ctx); err != nil {
		return err
	}
	_, cpu := v.Clock()
	fmt.Fprintf(out, "The machine is off, after %.1f CPU seconds in all.\n", cpu.Seconds())
	return nil
}

// lockedWriter is a writer for several goroutines.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
