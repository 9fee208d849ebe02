// Package limit bounds the connections that a listener hands out, so that no client can take them all.
package limit

import (
	"net"
	"net/netip"
	"sync"
)

// Bounds say how many connections may be open at once.
type Bounds struct {
	Total     int
	PerClient int
	IPv6Bits  int // how much of an IPv6 address makes a client; of IPv4 it is all
}

// Listen hands out what l accepts within the bounds; what is over them is closed at once.
func Listen(l net.Listener, b Bounds) net.Listener {
	return &listener{Listener: l, bounds: b, open: map[netip.Prefix]int{}}
}

type listener struct {
	net.Listener
	bounds Bounds

	mu    sync.Mutex
	total int
	open  map[netip.Prefix]int
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		client := l.client(c.RemoteAddr())
		if l.enter(client) {
			return &conn{Conn: c, leave: sync.OnceFunc(func() { l.leave(client) })}, nil
		}
		c.Close()
	}
}

func (l *listener) enter(client netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= l.bounds.Total || l.open[client] >= l.bounds.PerClient {
		return false
	}
	l.total++
	l.open[client]++
	return true
}

func (l *listener) leave(client netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.open[client]--; l.open[client] == 0 {
		delete(l.open, client)
	}
}

// client is what counts as one client: all that do not come by TCP are the same one.
func (l *listener) client(a net.Addr) netip.Prefix {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	addr := t.AddrPort().Addr().Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = l.bounds.IPv6Bits
	}
	p, _ := addr.Prefix(bits)
	return p
}

type conn struct {
	net.Conn
	leave func()
}

// NetConn returns the connection as it was accepted, as that of tls.Conn does.
func (c *conn) NetConn() net.Conn { return c.Conn }

// Close implements net.Conn.
func (c *conn) Close() error {
	c.leave()
	return c.Conn.Close()
}
