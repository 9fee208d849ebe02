package fetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	progress = 64 << 10 // bytes after which rounds and pauses are counted anew
	maxSkip  = 32 << 20 // bytes of a file that are thrown away where a server knows no ranges
	lied     = 8        // faults of a mirror whose bytes were wrong; one that broke off has one
)

// transfer is the reading of one file from whichever mirrors give it.
type transfer struct {
	s    *servers
	ctx  context.Context
	path string

	at, end int64              // the next byte; the one after the last, or negative as long as it is unknown
	whole   bool               // end is that of the file, as the servers say
	seen    map[*mirror]string // the version of the file, as each server called it

	conn  *connection // or nil
	skip  int64       // bytes of it that come before at
	queue []*mirror   // to be asked in this round
	round int
	since int64           // at, when the rounds were last counted from
	wait  []time.Duration // that servers asked for in this round
	errs  []error
}

// Read implements io.Reader. It returns an error only when every mirror has failed in every round.
func (t *transfer) Read(p []byte) (int, error) {
	for {
		if t.at == t.end {
			return 0, io.EOF
		}
		if len(p) == 0 {
			return 0, nil
		}
		if t.conn == nil {
			if err := t.open(); err != nil {
				return 0, fmt.Errorf("cannot read %q at byte %d: %w", t.path, t.at, err)
			}
			continue
		}
		n, err := t.read(p)
		if err == io.EOF && t.end < 0 {
			t.end = t.at
		} else if err != nil && t.at != t.end {
			t.broke(err)
		}
		if n > 0 {
			return n, nil
		}
	}
}

// read reads from the connection what has not been read before.
func (t *transfer) read(p []byte) (int, error) {
	if t.end >= 0 {
		p = p[:min(int64(len(p)), t.skip+t.end-t.at)]
	}
	n, err := t.conn.Read(p)
	if k := int(min(t.skip, int64(n))); k > 0 {
		t.skip -= int64(k)
		n = copy(p, p[k:n])
	}
	t.at += int64(n)
	return n, err
}

// broke ends a connection that did not give what it promised.
func (t *transfer) broke(err error) {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	t.conn.mirror.faults.Add(1)
	t.failed(t.conn.mirror, err)
	t.close()
}

func (t *transfer) failed(m *mirror, err error) {
	t.errs = append(t.errs, fmt.Errorf("%s: %w", m.url, err))
	var s statusError
	errors.As(err, &s)
	t.wait = append(t.wait, s.after)
}

// open asks the mirrors one after another, with pauses between rounds, until one answers.
func (t *transfer) open() error {
	for {
		for len(t.queue) > 0 {
			m := t.queue[0]
			t.queue = t.queue[1:]
			err := t.ask(m)
			if err == nil {
				return nil
			}
			if t.ctx.Err() != nil {
				return context.Cause(t.ctx)
			}
			t.failed(m, err)
		}
		if err := t.nextRound(); err != nil {
			return err
		}
	}
}

// nextRound waits, and queues all mirrors that may have the file; or says why there is no use in going on.
func (t *transfer) nextRound() error {
	if t.at-t.since >= progress {
		t.round, t.since = min(t.round, 1), t.at
	}
	missing := 0
	for _, err := range t.errs {
		if errors.Is(err, fs.ErrNotExist) {
			missing++
		}
	}
	if t.round == t.s.o.Rounds || t.round > 0 && missing == len(t.s.mirrors) {
		return errors.Join(t.errs...)
	}
	if t.round > 0 {
		pause := time.Duration(t.s.o.Random() * float64(t.s.o.Pause<<(t.round-1)))
		if len(t.wait) > 0 {
			pause = max(pause, slices.Min(t.wait))
		}
		if pause > t.s.o.Patience {
			return errors.Join(append(t.errs, fmt.Errorf("asked to wait for %v", pause))...)
		}
		if err := t.s.o.Sleep(t.ctx, pause); err != nil {
			return err
		}
	}
	t.round++
	t.queue, t.wait, t.errs = t.s.order(), nil, nil
	return nil
}

// ask opens a connection to a mirror at the byte that is due.
func (t *transfer) ask(m *mirror) error {
	c, err := t.s.connect(t.ctx, m, t.path, t.ranges(), t.seen[m])
	if err != nil {
		return err
	}
	if err := t.accept(m, c.response); err != nil {
		c.Close()
		return err
	}
	t.conn = c
	return nil
}

// ranges is the value of the Range header, or nothing when the whole file is due.
func (t *transfer) ranges() string {
	switch {
	case t.end >= 0:
		return fmt.Sprintf("bytes=%d-%d", t.at, t.end-1)
	case t.at > 0:
		return fmt.Sprintf("bytes=%d-", t.at)
	}
	return ""
}

// accept judges the head of an answer: whether it is of the same file as what has been read, and where it begins.
func (t *transfer) accept(m *mirror, r *http.Response) error {
	start, total := int64(0), r.ContentLength
	switch r.StatusCode {
	case http.StatusOK:
	case http.StatusPartialContent:
		var err error
		if start, total, err = contentRange(r.Header.Get("Content-Range")); err != nil {
			return err
		}
		if start != t.at {
			return fmt.Errorf("asked for byte %d and got byte %d", t.at, start)
		}
	case http.StatusForbidden, http.StatusNotFound, http.StatusGone: // object stores say 403 for what is not there
		return fmt.Errorf("%s: %w", r.Status, fs.ErrNotExist)
	default:
		return statusError{r.Status, retryAfter(r)}
	}
	version := cmp.Or(r.Header.Get("ETag"), r.Header.Get("Last-Modified"))
	switch {
	case t.seen[m] != "" && version != t.seen[m], t.whole && t.at > 0 && total != t.end:
		return errors.New("the file has changed meanwhile")
	case !t.whole && total >= 0 && total < t.end:
		return fmt.Errorf("the file has %d bytes, and byte %d is wanted", total, t.end-1)
	case t.at-start > maxSkip:
		return fmt.Errorf("%w, and %d bytes are too many to read again", errNoRanges, t.at-start)
	}
	t.seen[m] = version
	t.skip = t.at - start
	if t.whole {
		t.end = total
	}
	return nil
}

// errNoRanges says that a server cannot go on where something stopped.
var errNoRanges = errors.New("the server knows no ranges")

// Reject says that the bytes were wrong: other mirrors are preferred from now on.
func (t *transfer) Reject() {
	for m := range t.seen {
		m.faults.Add(lied)
	}
}

// Close implements io.Closer.
func (t *transfer) Close() error {
	t.close()
	return nil
}

func (t *transfer) close() {
	if t.conn != nil {
		t.conn.Close()
		t.conn = nil
	}
}

// statusError is an answer that is no file.
type statusError struct {
	status string
	after  time.Duration // that the server asks to wait
}

func (e statusError) Error() string { return "the server says " + e.status }

// retryAfter reads the header of that name in seconds (RFC 9110, 10.2.3). The form with a date is not used: clocks differ.
func retryAfter(r *http.Response) time.Duration {
	n, err := strconv.Atoi(r.Header.Get("Retry-After"))
	if err != nil || n < 0 {
		return 0
	}
	return min(time.Duration(n), 1<<20) * time.Second
}

// contentRange reads "bytes FIRST-LAST/TOTAL", where TOTAL may be "*" (RFC 9110, 14.4). Total is then negative.
func contentRange(s string) (first, total int64, err error) {
	fail := func() (int64, int64, error) { return 0, 0, fmt.Errorf("cannot use Content-Range %q", s) }
	span, ok := strings.CutPrefix(s, "bytes ")
	span, size, ok2 := strings.Cut(span, "/")
	a, b, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return fail()
	}
	first, err = strconv.ParseInt(a, 10, 64)
	last, err2 := strconv.ParseInt(b, 10, 64)
	if err != nil || err2 != nil || first < 0 || last < first {
		return fail()
	}
	if size == "*" {
		return first, -1, nil
	}
	if total, err = strconv.ParseInt(size, 10, 64); err != nil || total <= last {
		return fail()
	}
	return first, total, nil
}
