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

// Counter counts what is open. Its methods can be called by many at once.
type Counter struct {
	bounds Bounds

	mu    sync.Mutex
	total int
	open  map[netip.Prefix]int
}

// NewCounter makes a counter with nothing open.
func NewCounter(b Bounds) *Counter { return &Counter{bounds: b, open: map[netip.Prefix]int{}} }

// Enter counts one more of the client at a, unless that is over the bounds. Leave must be called when it is closed,
// once or more often.
func (c *Counter) Enter(a net.Addr) (leave func(), ok bool) {
	client := Client(a, c.bounds.IPv6Bits)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total >= c.bounds.Total || c.open[client] >= c.bounds.PerClient {
		return nil, false
	}
	c.total++
	c.open[client]++
	return sync.OnceFunc(func() { c.leave(client) }), true
}

func (c *Counter) leave(client netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total--
	if c.open[client]--; c.open[client] == 0 {
		delete(c.open, client)
	}
}

// Client is what counts as one client: all that come neither by TCP nor by UDP are the same one.
func Client(a net.Addr, ipv6Bits int) netip.Prefix {
	var addr netip.Addr
	switch a := a.(type) {
	case *net.TCPAddr:
		addr = a.AddrPort().Addr()
	case *net.UDPAddr:
		addr = a.AddrPort().Addr()
	default:
		return netip.Prefix{}
	}
	return Network(addr, ipv6Bits)
}

// Network is the client that an address belongs to.
func Network(addr netip.Addr, ipv6Bits int) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = ipv6Bits
	}
	p, _ := addr.Prefix(bits)
	return p
}

// Listen hands out what l accepts within the bounds; what is over them is closed at once.
func Listen(l net.Listener, b Bounds) net.Listener { return NewCounter(b).Listen(l) }

// Listen is the same with a counter that others may use too.
func (c *Counter) Listen(l net.Listener) net.Listener { return &listener{Listener: l, counter: c} }

type listener struct {
	net.Listener
	counter *Counter
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if leave, ok := l.counter.Enter(c.RemoteAddr()); ok {
			return &conn{Conn: c, leave: leave}, nil
		}
		c.Close()
	}
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
