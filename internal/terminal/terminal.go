// Package terminal shows the progress of long work to a person: bars on a terminal, plain lines where there is none.
package terminal

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"allotment/internal/progress"
)

const (
	worthALine = time.Second            // a step that took less leaves no line behind
	redraw     = 200 * time.Millisecond // between two drawings of the bars
	first      = 3 * time.Second        // until the first plain line of a step
	repeat     = 10 * time.Second       // until the next one, and as long again as the step has taken
)

// Reporter implements progress.Reporter. Its methods may be called from several goroutines.
type Reporter struct {
	out   io.Writer
	now   func() time.Time
	width func() int // columns of the terminal; nil where out is none

	mu      sync.Mutex
	running []*step // in the order of their start
	drawn   int     // lines of bars that are on the screen

	stop, stopped chan struct{}
}

// step is one step under way; the reporter's mutex guards it.
type step struct {
	reporter *Reporter
	name     string
	total    int64 // bytes, 0 if not known
	bytes    int64
	start    time.Time
	speak    time.Time // of the next plain line
}

// New returns a Reporter that writes to f until Close is called, and draws bars if f is a terminal.
func New(f *os.File) *Reporter {
	r := &Reporter{out: f, now: time.Now, stop: make(chan struct{}), stopped: make(chan struct{})}
	if Is(f) {
		r.width = func() int { return columns(f) }
	}
	go r.tick()
	return r
}

// Is tells whether f is a terminal that understands more than plain lines.
func Is(f *os.File) bool { return columns(f) > 0 && os.Getenv("TERM") != "dumb" }

// columns is the width of the terminal f, or 0 if f is none.
func columns(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	if size.Col == 0 { // a serial line does not know its width
		return 80
	}
	return int(size.Col)
}

func (r *Reporter) tick() {
	defer close(r.stopped)
	t := time.NewTicker(redraw)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			r.refresh()
		case <-r.stop:
			return
		}
	}
}

// Close ends the drawing and removes the bars of steps that have not ended.
func (r *Reporter) Close() {
	close(r.stop)
	<-r.stopped
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = nil
	r.flush("")
}

// Write prints p, which is whole lines, above the bars.
func (r *Reporter) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.flush(string(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Step implements progress.Reporter.
func (r *Reporter) Step(name string, total int64) progress.Step {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	s := &step{reporter: r, name: name, total: total, start: now, speak: now.Add(first)}
	r.running = append(r.running, s)
	return s
}

// Add implements progress.Step.
func (s *step) Add(bytes int64) {
	s.reporter.mu.Lock()
	defer s.reporter.mu.Unlock()
	s.bytes += bytes
}

// Done implements progress.Step. The line that it leaves tells the bytes that were really counted.
func (s *step) Done(err error) {
	r := s.reporter
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.remove(s) {
		return
	}
	took := r.now().Sub(s.start)
	switch {
	case err != nil:
		r.flush(fmt.Sprintf("%s: failed after %s%s\n", s.name, seconds(took), s.amount(", ")))
	case took >= worthALine:
		r.flush(fmt.Sprintf("%s: %s%s%s\n", s.name, s.amount("")+comma(s.bytes), seconds(took), s.rate(took)))
	default:
		r.flush("")
	}
}

// remove takes s out of the running steps and tells whether it was one of them.
func (r *Reporter) remove(s *step) bool {
	for i, other := range r.running {
		if other == s {
			r.running = append(r.running[:i:i], r.running[i+1:]...)
			return true
		}
	}
	return false
}

// refresh draws the bars anew, or says in plain lines what has gone on for long.
func (r *Reporter) refresh() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.width != nil {
		r.flush("")
		return
	}
	now := r.now()
	for _, s := range r.running {
		if now.Before(s.speak) {
			continue
		}
		took := now.Sub(s.start)
		s.speak = now.Add(max(repeat, took))
		r.flush(fmt.Sprintf("%s: %s%s\n", s.name, s.amount("")+comma(s.bytes), seconds(took)))
	}
}

// flush writes text in the place of the bars and draws them again below it, in one write so that it does not flicker.
func (r *Reporter) flush(text string) error {
	if r.width == nil {
		_, err := io.WriteString(r.out, text)
		return err
	}
	var screen []byte
	if r.drawn > 0 {
		screen = fmt.Appendf(screen, "\x1b[%dA\r\x1b[J", r.drawn) // up to the first bar, clear what is below
	}
	screen = append(screen, text...)
	width, now := r.width(), r.now()
	for _, s := range r.running {
		screen = append(screen, s.bar(width, now.Sub(s.start))...)
		screen = append(screen, '\n')
	}
	r.drawn = len(r.running)
	_, err := r.out.Write(screen)
	return err
}
