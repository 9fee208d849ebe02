// Package console shows the box on its consoles: a screen on the display, and plain lines on everything else, such as a
// serial port, where programs read them. Nobody can log in there.
package console

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Status is what the screen shows.
type Status struct {
	Title   string // of the product or organisation
	Version string
	Slot    string
	State   string   // one line: how the box is
	URLs    []string // where its pages are
	Claim   string   // one line: how to make the box one's own; empty once somebody has
	Code    string   // what a phone reads of a display for that; empty: nothing
	Modules []string // one line each, worst first
}

// lines are the status as text.
func (s Status) lines() []string {
	out := []string{fmt.Sprintf("%s %s (slot %s)", s.Title, s.Version, s.Slot), s.State}
	if len(s.URLs) == 0 {
		out = append(out, "no network address yet")
	}
	out = append(out, s.URLs...)
	if s.Claim != "" {
		out = append(out, s.Claim)
	}
	return append(out, s.Modules...)
}

// Console is a set of consoles. Writing never blocks the caller: a serial line that nobody reads may stand still.
type Console struct {
	mu     sync.Mutex
	queues []chan update
	done   sync.WaitGroup
	shown  []string
	screen []string // the last lines that the display shows below the status
	code   string
	drawn  []string // the picture of code
}

// queueLength is how many messages wait for a slow console; those after are dropped.
const queueLength = 64

// screenLines is how many messages the display keeps below the status.
const screenLines = 8

// Active opens the kernel's consoles, which /sys/class/tty/console/active lists.
func Active() (displays, serials []io.Writer) {
	names, err := os.ReadFile("/sys/class/tty/console/active")
	if err != nil {
		names = []byte("console")
	}
	for _, name := range strings.Fields(string(names)) {
		// No console must become our controlling terminal, whose end would be ours.
		f, err := os.OpenFile(filepath.Join("/dev", name), os.O_WRONLY|unix.O_NOCTTY, 0)
		if err != nil {
			continue
		}
		if strings.HasPrefix(name, "tty") && len(name) == 4 && name[3] >= '0' && name[3] <= '9' {
			displays = append(displays, f)
		} else {
			serials = append(serials, f)
		}
	}
	return displays, serials
}

// update is what a console is to show: a line, or on a display the whole screen with a picture.
type update struct {
	screen, line string
	picture      []string
}

// New starts to write to the consoles.
func New(displays, serials []io.Writer) *Console {
	c := &Console{}
	for i, w := range slices.Concat(displays, serials) {
		q := make(chan update, queueLength)
		c.queues = append(c.queues, q)
		c.done.Go(func() { feed(w, q, i < len(displays)) })
	}
	return c
}

// feed writes what comes: the display is drawn anew at each status, the others get lines.
func feed(w io.Writer, q <-chan update, display bool) {
	for u := range q {
		if !display {
			io.WriteString(w, strings.ReplaceAll(u.line, "\n", "\r\n"))
			continue
		}
		rows, columns := size(w)
		io.WriteString(w, "\x1b[H\x1b[2J"+strings.ReplaceAll(u.screen, "\n", "\r\n")+place(u.picture, rows, columns))
	}
}

// closeWait is how long Close waits for consoles that do not take what is written.
const closeWait = 2 * time.Second

// Close writes out what is waiting, as far as the consoles take it at once, and ends. The consoles stay open.
func (c *Console) Close() {
	c.mu.Lock()
	for _, q := range c.queues {
		close(q)
	}
	c.queues = nil
	c.mu.Unlock()
	written := make(chan struct{})
	go func() { c.done.Wait(); close(written) }()
	select {
	case <-written:
	case <-time.After(closeWait):
	}
}

// Print shows one line.
func (c *Console) Print(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	line := clean(fmt.Sprintf(format, args...))
	c.screen = append(c.screen, line)
	c.screen = c.screen[max(0, len(c.screen)-screenLines):]
	c.send(line + "\n")
}

// Show shows the status if it is another one than before: on plain consoles only the lines that are new.
func (c *Console) Show(s Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := s.lines()
	var news strings.Builder
	for i, l := range lines {
		lines[i] = clean(l)
		if !slices.Contains(c.shown, lines[i]) {
			news.WriteString("allotment: " + lines[i] + "\n")
		}
	}
	if slices.Equal(lines, c.shown) && s.Code == c.code {
		return
	}
	if s.Code != c.code {
		c.code, c.drawn = s.Code, picture(s.Code)
	}
	c.shown = lines
	c.send(news.String())
}

// send queues a text for plain consoles together with the whole screen for displays.
func (c *Console) send(line string) {
	screen := "\n  " + strings.Join(c.shown, "\n  ") + "\n\n" + strings.Join(c.screen, "\n") + "\n"
	for _, q := range c.queues {
		select {
		case q <- update{screen, line, c.drawn}:
		default:
		}
	}
}

// clean takes control characters out: a module's name or an error must not be able to steer a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}
