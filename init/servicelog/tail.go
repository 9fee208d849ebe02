package servicelog

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// Line is a line of a log. Time is zero if the line tells none.
type Line struct {
	Time time.Time
	Text string
}

// Tail reads a log and goes on where it grows. It is for one goroutine.
type Tail struct {
	path string
	f    *os.File
	rest []byte // of a line that has not ended yet
}

// OpenTail returns the newest lines of the log at path, at most n, or all that are kept where n is negative, and a Tail
// for those that follow. The log need not be there yet.
func OpenTail(path string, n int) ([]Line, *Tail, error) {
	t := &Tail{path: path}
	older, err := os.ReadFile(path + ".1")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	lines := t.take(older)
	t.rest = nil
	newer, err := t.Next()
	if err != nil {
		return nil, nil, err
	}
	lines = append(lines, newer...)
	if n >= 0 && len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return lines, t, nil
}

// Next returns the lines that came since the call before. What was dropped meanwhile is not among them.
func (t *Tail) Next() ([]Line, error) {
	var lines []Line
	for {
		if t.f == nil {
			f, err := os.Open(t.path)
			if errors.Is(err, fs.ErrNotExist) {
				return lines, nil
			}
			if err != nil {
				return lines, err
			}
			t.f = f
		}
		rotated := t.rotated() // asked before reading, so that nothing is written to this file after it was read
		b, err := io.ReadAll(t.f)
		lines = append(lines, t.take(b)...)
		if err != nil || !rotated {
			return lines, err
		}
		t.f.Close()
		t.f, t.rest = nil, nil
	}
}

// rotated tells whether the path names another file by now.
func (t *Tail) rotated() bool {
	ours, err := t.f.Stat()
	if err != nil {
		return false
	}
	now, err := os.Stat(t.path)
	return err == nil && !os.SameFile(ours, now)
}

// take cuts what was read into lines.
func (t *Tail) take(b []byte) []Line {
	var out []Line
	t.rest = append(t.rest, b...)
	for {
		line, rest, ok := bytes.Cut(t.rest, []byte("\n"))
		if !ok {
			return out
		}
		out = append(out, parse(string(line)))
		t.rest = rest
	}
}

// parse takes the stamp off a line.
func parse(line string) Line {
	text := strings.ToValidUTF8(line, "?")
	word, rest, ok := strings.Cut(text, " ")
	at, err := time.Parse(stampForm, word)
	if !ok || err != nil {
		return Line{Text: text}
	}
	return Line{at, rest}
}

// Close ends the tail.
func (t *Tail) Close() error {
	if t.f == nil {
		return nil
	}
	return t.f.Close()
}
