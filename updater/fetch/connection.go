package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

var errStalled = errors.New("no byte came for too long")

// connection is the body of one answer, read under watch: a server that stops or drips is left.
type connection struct {
	mirror   *mirror
	response *http.Response
	o        *Options
	ctx      context.Context
	cancel   context.CancelCauseFunc
	timer    *time.Timer

	spent time.Duration // in this window, waiting for bytes; what the caller takes is its own affair
	got   int64
}

// connect asks a mirror for a file or a range of it.
func (s *servers) connect(ctx context.Context, m *mirror, path, ranges, version string) (*connection, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url+path, nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	r.Header.Set("User-Agent", s.o.Agent)
	if ranges != "" {
		r.Header.Set("Range", ranges)
	}
	if ranges != "" && version != "" && version[0] != 'W' { // a weak tag may not be used so (RFC 9110, 13.1.5)
		r.Header.Set("If-Range", version)
	}
	response, err := s.client.Do(r)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	c := &connection{mirror: m, response: response, o: &s.o, ctx: ctx, cancel: cancel}
	c.timer = time.AfterFunc(time.Hour, func() { cancel(errStalled) })
	c.timer.Stop()
	return c, nil
}

func (c *connection) Read(p []byte) (int, error) {
	c.timer.Reset(c.o.Stall)
	start := time.Now()
	n, err := c.response.Body.Read(p)
	c.timer.Stop()
	if err != nil && err != io.EOF && c.ctx.Err() != nil {
		return n, context.Cause(c.ctx)
	}
	c.spent += time.Since(start)
	c.got += int64(n)
	if err == nil && c.spent >= c.o.Window {
		if c.got < c.o.Speed*int64(c.spent/time.Millisecond)/1000 {
			err = fmt.Errorf("too slow: %d bytes in %v", c.got, c.spent.Round(time.Second))
		}
		c.spent, c.got = 0, 0
	}
	return n, err
}

func (c *connection) Close() {
	c.timer.Stop()
	c.cancel(nil)
	c.response.Body.Close()
}
