package supervisor

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"allotment/init/console"
	"allotment/init/servicelog"
)

// Log keeps the messages of the supervisor and of the gateway in bounded files, and shows those that matter on the
// console. Until the state partition is there it keeps the first ones in memory.
type Log struct {
	console *console.Console
	mu      sync.Mutex
	parts   map[string]*part
	folder  string // empty: not there yet
}

// part is one file of the log.
type part struct {
	log    *Log
	name   string
	early  []byte
	file   *servicelog.File
	closed bool
}

const mostEarly = 64 << 10 // bytes that are kept in memory

// NewLog returns a log that shows warnings and errors on the console.
func NewLog(c *console.Console) *Log { return &Log{console: c, parts: map[string]*part{}} }

// Logger is for the supervisor's own messages.
func (l *Log) Logger() *slog.Logger {
	stamped := servicelog.Stamped(l.Part("supervisor"), time.Now)
	file := slog.NewTextHandler(stamped, &slog.HandlerOptions{ReplaceAttr: withoutTime})
	return slog.New(&handler{Handler: file, console: l.console})
}

// withoutTime leaves out slog's own time, since every line of a log begins with the time in the same form.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// Part returns the writer to the file of that name.
func (l *Log) Part(name string) io.Writer {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.parts[name] == nil {
		l.parts[name] = &part{log: l, name: name}
		l.openPart(l.parts[name])
	}
	return l.parts[name]
}

// Keep writes the log to files in the folder from now on.
func (l *Log) Keep(folder string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.folder = folder
	for _, p := range l.parts {
		if err := l.openPart(p); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) openPart(p *part) error {
	if l.folder == "" || p.file != nil {
		return nil
	}
	f, err := servicelog.Open(filepath.Join(l.folder, p.name+".log"))
	if err != nil {
		return err
	}
	p.file = f
	_, err = f.Write(p.early)
	p.early = nil
	return err
}

// Close closes the files; what comes then is only for the console.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.parts {
		p.closed = true
		if p.file != nil {
			p.file.Close()
			p.file = nil
		}
	}
}

// Write implements io.Writer.
func (p *part) Write(b []byte) (int, error) {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	switch {
	case p.closed:
	case p.file != nil:
		return p.file.Write(b)
	case len(p.early)+len(b) <= mostEarly:
		p.early = append(p.early, b...)
	}
	return len(b), nil
}

// handler shows what matters on the console, too.
type handler struct {
	slog.Handler
	console *console.Console
}

// Handle implements slog.Handler.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		var b strings.Builder
		b.WriteString("allotment: " + r.Message)
		r.Attrs(func(a slog.Attr) bool {
			b.WriteString(" " + a.Key + "=" + a.Value.String())
			return true
		})
		h.console.Print("%s", b.String())
	}
	return h.Handler.Handle(ctx, r)
}
