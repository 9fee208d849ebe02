package gateway

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// guard bounds how long a client can hold a request by sending or taking slowly. Fixed timeouts of http.Server would
// also cut long downloads and streams.
func (g *Gateway) guard(w http.ResponseWriter, r *http.Request) *guardedWriter {
	control := http.NewResponseController(w)
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &guardedBody{ReadCloser: r.Body, control: control, limits: &g.limits, start: time.Now()}
	}
	return &guardedWriter{ResponseWriter: w, control: control, timeout: g.limits.Write}
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
	timeout time.Duration
}

func (w *guardedWriter) extend() { w.control.SetWriteDeadline(time.Now().Add(w.timeout)) }

// Write implements io.Writer.
func (w *guardedWriter) Write(p []byte) (int, error) {
	w.extend()
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *guardedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Limit bounds the connections that l accepts, in all and per client; what is over the bound is closed at once.
func Limit(l net.Listener, limits Limits) net.Listener {
	return &limitedListener{Listener: l, limits: limits, open: map[netip.Prefix]int{}}
}

type limitedListener struct {
	net.Listener
	limits Limits

	mu    sync.Mutex
	total int
	open  map[netip.Prefix]int
}

// Accept implements net.Listener.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		client := clientOf(c.RemoteAddr())
		if l.enter(client) {
			return &limitedConn{Conn: c, leave: sync.OnceFunc(func() { l.leave(client) })}, nil
		}
		c.Close()
	}
}

func (l *limitedListener) enter(client netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= l.limits.Connections || l.open[client] >= l.limits.PerClient {
		return false
	}
	l.total++
	l.open[client]++
	return true
}

func (l *limitedListener) leave(client netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.open[client]--; l.open[client] == 0 {
		delete(l.open, client)
	}
}

// clientOf is what counts as one client: an IPv4 address, or the network that a site gets of IPv6.
func clientOf(a net.Addr) netip.Prefix {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	addr := t.AddrPort().Addr().Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits)
	return p
}

type limitedConn struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}
