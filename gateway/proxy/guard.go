package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// guard bounds how long a client can hold a request by sending or taking slowly. Fixed timeouts of http.Server would
// also cut long downloads and streams.
func (g *Gateway) guard(w http.ResponseWriter, r *http.Request) *guardedWriter {
	control := http.NewResponseController(w)
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &guardedBody{ReadCloser: r.Body, control: control, limits: &g.limits, start: time.Now()}
	}
	return &guardedWriter{ResponseWriter: w, control: control, limits: &g.limits}
}

type guardedBody struct {
	io.ReadCloser
	control *http.ResponseController
	limits  *Limits
	start   time.Time
	read    int
}

// Read implements io.Reader. Once all is read the deadline must go, or it would end the response that follows.
func (b *guardedBody) Read(p []byte) (int, error) {
	kept := time.Duration(b.read/b.limits.BodyRate) * time.Second
	b.control.SetReadDeadline(b.start.Add(b.limits.BodyGrace + kept))
	n, err := b.ReadCloser.Read(p)
	b.read += n
	if errors.Is(err, io.EOF) {
		b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

type guardedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	limits  *Limits
}

func (w *guardedWriter) extend() { w.control.SetWriteDeadline(time.Now().Add(w.limits.Write)) }

// Write implements io.Writer.
func (w *guardedWriter) Write(p []byte) (int, error) {
	w.extend()
	return w.ResponseWriter.Write(p)
}

// Hijack implements http.Hijacker, for connections that go on with another protocol such as WebSocket (RFC 6455).
func (w *guardedWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := w.control.Hijack()
	if err != nil {
		return nil, nil, err
	}
	u := &upgradedConn{Conn: c, idle: w.limits.UpgradedIdle, write: w.limits.Write}
	u.stir()
	return u, rw, nil
}

// upgradedConn ends a connection on which neither side sends for long. Both ways pass through it, so each keeps the
// other up.
type upgradedConn struct {
	net.Conn
	idle, write time.Duration
}

func (c *upgradedConn) stir() { c.SetReadDeadline(time.Now().Add(c.idle)) }

// Read implements io.Reader.
func (c *upgradedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.stir()
	}
	return n, err
}

// Write implements io.Writer.
func (c *upgradedConn) Write(p []byte) (int, error) {
	c.SetWriteDeadline(time.Now().Add(c.write))
	n, err := c.Conn.Write(p)
	if n > 0 {
		c.stir()
	}
	return n, err
}

// Unwrap is for http.ResponseController.
func (w *guardedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Limit bounds the connections that all listeners together accept, in all and per client; what is over the bound is
// closed at once. A client is an IPv4 address, or the network that a site gets of IPv6.
func (g *Gateway) Limit(l net.Listener) net.Listener { return g.open.Listen(l) }
