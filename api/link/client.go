package link

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"sync"
	"time"
)

// again is how long the client waits for an answer before it sends another name: the other end may not have run yet.
const again = 2 * time.Second

// Dial begins a connection over the stream, and closes the stream when the connection ends or could not begin.
func Dial(ctx context.Context, s Stream) (net.Conn, error) {
	unhook := context.AfterFunc(ctx, func() { s.Close() })
	var c caller
	go c.call(ctx, s)
	rest, err := c.awaitAnswer(s)
	if !unhook() || err != nil {
		s.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("cannot reach the other end of the link: %w", err)
	}
	theirs, ours := net.Pipe()
	out := send(s, ours, nil)
	go func() {
		receive(s, &c.decoder, rest, ours)
		out.stop(s)
		s.Close()
	}()
	go func() { // the connection was closed on our side
		<-out.done
		s.Close()
	}()
	return theirs, nil
}

// caller finds the place in a stream where a connection begins.
type caller struct {
	decoder decoder // of the reader alone

	mu       sync.Mutex
	name     name // the one that counts: it is being sent, or was sent last
	answered bool
}

// call sends one name after the other until one is answered, and returns early when ctx ends.
func (c *caller) call(ctx context.Context, s Stream) {
	pause := time.NewTicker(again)
	defer pause.Stop()
	for {
		n, ok := c.another()
		if !ok {
			return
		}
		if _, err := s.Write(appendMark(nil, n)); err != nil {
			return
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
	}
}

// another makes a new name, from now on the only one whose answer counts.
func (c *caller) another() (name, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answered {
		return name{}, false
	}
	rand.Read(c.name[:])
	return c.name, true
}

// awaitAnswer drops what it reads until the mark with the last name, and returns what was read behind that.
func (c *caller) awaitAnswer(s Stream) ([]byte, error) {
	buf := make([]byte, chunk)
	for {
		n, err := s.Read(buf)
		for in := buf[:n]; len(in) > 0; {
			var marked bool
			if _, in, marked = c.decoder.next(in); marked && c.isAnswer(c.decoder.name) {
				return in, nil
			}
		}
		if err != nil {
			return nil, err
		}
	}
}

func (c *caller) isAnswer(n name) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered = c.answered || n == c.name && n != name{} // the server's zeros may come before there is a name
	return c.answered
}

// receive gives what comes to the pipe until a mark, which ends the connection, or an error.
func receive(s Stream, d *decoder, in []byte, pipe net.Conn) {
	buf := make([]byte, chunk)
	var failed error
	for {
		for len(in) > 0 {
			var data []byte
			var marked bool
			data, in, marked = d.next(in)
			if len(data) > 0 {
				if _, err := pipe.Write(data); err != nil {
					return
				}
			}
			if marked {
				return
			}
		}
		if failed != nil {
			return
		}
		var n int
		n, failed = s.Read(buf)
		in = buf[:n]
	}
}
