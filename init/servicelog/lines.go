package servicelog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// The flow that a service may keep up, and what it may print at once.
const (
	Rate    = 16 << 10  // bytes per second
	Burst   = 256 << 10 // bytes
	maxLine = 4 << 10   // bytes; longer lines are broken
	atOnce  = 32 << 10  // bytes that are read at once, and dropped at once in a flood
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
	in := bufio.NewReaderSize(r, atOnce)
	c := copier{w: w, now: now, bucket: bucket{tokens: Burst, last: now()}}
	for {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 && !c.take(line) {
			// In a flood looking at each line would cost more than the service's share of the processor.
			rest, _ := in.Peek(in.Buffered())
			c.drop(rest)
			in.Discard(len(rest))
		}
		switch {
		case err == nil || errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			c.tell()
			return nil
		default:
			return fmt.Errorf("cannot read what a service prints: %w", err)
		}
	}
}

// copier writes lines as far as they do not come too fast.
type copier struct {
	w       io.Writer
	now     func() time.Time
	bucket  bucket
	dropped int  // lines that were left out and are not yet told of
	within  bool // a line whose beginning was dropped
}

// take writes one line, in pieces if it is long, or counts it as dropped; it tells which.
func (c *copier) take(line []byte) bool {
	now := c.now()
	if c.within || !c.bucket.take(len(line)+32, now) {
		c.drop(line)
		return false
	}
	c.tell()
	for piece := range slices.Chunk(line, maxLine) {
		out := append(make([]byte, 0, len(piece)+32), stamp(now)...)
		out = append(append(out, ' '), piece...)
		if out[len(out)-1] != '\n' {
			out = append(out, '\n')
		}
		c.w.Write(out) // a full disk must not stop the service
	}
	return true
}

// drop leaves out what was read.
func (c *copier) drop(b []byte) {
	if len(b) > 0 {
		c.dropped += bytes.Count(b, []byte("\n"))
		c.within = b[len(b)-1] != '\n'
	}
}

// tell says how many lines were left out.
func (c *copier) tell() {
	if c.dropped > 0 {
		fmt.Fprintf(c.w, "%s allotment: left out %d lines that came too fast\n", stamp(c.now()), c.dropped)
	}
	c.dropped = 0
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
