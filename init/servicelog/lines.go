package servicelog

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"time"
)

// The flow that a service may keep up, and what it may print at once.
const (
	Rate    = 16 << 10  // bytes per second
	Burst   = 256 << 10 // bytes
	maxLine = 4 << 10   // bytes; longer lines are broken
)

// bucket is a token bucket: it holds up to Burst bytes and gains Rate bytes per second.
type bucket struct {
	tokens float64
	last   time.Time
}

func (b *bucket) take(n int, now time.Time) bool {
	if gained := now.Sub(b.last).Seconds() * Rate; gained > 0 {
		b.tokens = min(Burst, b.tokens+gained)
	}
	b.last = now
	if b.tokens < float64(n) {
		return false
	}
	b.tokens -= float64(n)
	return true
}

// Copy writes each line of r to w with the time in front until r ends, and leaves out what comes too fast, telling how
// many lines it left out. Reading never stops for long, so that a service is not held up by its own log; errors of w
// lose lines and nothing else. It returns the error of r, if that is not io.EOF.
func Copy(w io.Writer, r io.Reader, now func() time.Time) error {
	in := bufio.NewReaderSize(r, maxLine)
	b := &bucket{tokens: Burst, last: now()}
	dropped := 0
	for {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 {
			dropped = writeLine(w, line, b, dropped, now())
		}
		switch {
		case err == nil || errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			if dropped > 0 {
				fmt.Fprintf(w, "%s allotment: left out %d lines that came too fast\n", stamp(now()), dropped)
			}
			return nil
		default:
			return fmt.Errorf("cannot read what a service prints: %w", err)
		}
	}
}

// writeLine writes one line, or counts it as dropped; it returns how many lines are dropped and not yet told of.
func writeLine(w io.Writer, line []byte, b *bucket, dropped int, now time.Time) int {
	if !b.take(len(line)+32, now) {
		return dropped + 1
	}
	if dropped > 0 {
		fmt.Fprintf(w, "%s allotment: left out %d lines that came too fast\n", stamp(now), dropped)
	}
	out := append(make([]byte, 0, len(line)+32), stamp(now)...)
	out = append(append(out, ' '), line...)
	if out[len(out)-1] != '\n' {
		out = append(out, '\n')
	}
	w.Write(out) // a full disk must not stop the service
	return 0
}

const stampForm = "2006-01-02T15:04:05.000Z"

func stamp(t time.Time) string { return t.UTC().Format(stampForm) }

// Stamped puts the time in front of what is written to w; each write is one line.
func Stamped(w io.Writer, now func() time.Time) io.Writer { return stamped{w, now} }

type stamped struct {
	io.Writer
	now func() time.Time
}

// Write implements io.Writer.
func (s stamped) Write(line []byte) (int, error) {
	if _, err := s.Writer.Write(append([]byte(stamp(s.now())+" "), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}
