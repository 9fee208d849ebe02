package browser

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// complaints are what pages' programs and the browser itself wrote of errors while a tab was open.
type complaints struct {
	mu    sync.Mutex
	lines []string
}

func (c *complaints) add(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = append(c.lines, fmt.Sprintf(format, args...))
}

// hear is called by the tab for each of its events.
func (c *complaints) hear(event any) {
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError {
			c.add("%s: %s", e.Entry.URL, e.Entry.Text)
		}
	case *runtime.EventExceptionThrown:
		d := e.ExceptionDetails
		text := d.Text
		if d.Exception != nil {
			text += " " + d.Exception.Description
		}
		c.add("%s:%d: %s", d.URL, d.LineNumber+1, text)
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError {
			var text []string
			for _, arg := range e.Args {
				text = append(text, arg.Description+string(arg.Value))
			}
			c.add("console: %s", strings.Join(text, " "))
		}
	}
}

// listen has the browser tell what goes wrong on a tab's pages from now on.
func (tab *Tab) listen() {
	tab.t.Helper()
	if err := chromedp.Listen(tab.ctx, tab.complaints.hear); err != nil {
		tab.t.Fatalf("cannot listen to a tab: %v", err)
	}
	command(tab, log.Enable, struct{}{})
	command(tab, runtime.Enable, struct{}{})
}

// Complaints returns and forgets what went wrong on the tab's pages since it was asked last: exceptions of their programs, what
// a Content-Security-Policy refused, files that are not there. That the page itself came with an error's status is no complaint.
func (tab *Tab) Complaints() []string {
	own := tab.URL() + ": Failed to load resource: the server responded with a status of "
	tab.complaints.mu.Lock()
	defer tab.complaints.mu.Unlock()
	lines := slices.DeleteFunc(tab.complaints.lines, func(line string) bool { return strings.HasPrefix(line, own) })
	tab.complaints.lines = nil
	return lines
}
