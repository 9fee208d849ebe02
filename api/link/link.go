// Package link carries one connection at a time over a stream of bytes that does not tell when the other end begins
// anew, such as a virtio console port: the machine behind it can be reset, and its peer be replaced, while bytes of both
// are still under way.
//
// Octets are stuffed as in RFC 1662 section 4.2: 0x7e is the mark, and within data 0x7e and 0x7d are sent as 0x7d and
// the octet xor 0x20, so that a mark is a mark wherever reading begins. A mark is followed by 16 octets, stuffed as well:
// the name of the connection that begins, or zeros when there is none any more. Whatever went on before a mark is over.
//
// The client sends a mark with a random name, and again with another name until it is answered, and drops all that
// it reads before the mark with the name that it sent last. The server ends what it had when it reads a mark, and repeats it;
// it sends zeros when it has ended the connection itself.
package link

import (
	"io"
	"net"
	"time"
)

// Stream is what a link runs over. When Read returns io.EOF the other end has hung up, and the next Read waits until
// there is another one; any other error is final.
type Stream interface {
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	SetWriteDeadline(t time.Time) error
	Close() error
}

const (
	mark   = 0x7e
	escape = 0x7d
	flip   = 0x20

	nameSize = 16
	chunk    = 32 << 10 // bytes that are read or stuffed at once
)

// name is the name of a connection; the zero name says that there is none.
type name [nameSize]byte

// plain is the number of octets at the beginning of b that are neither mark nor escape.
func plain(b []byte) int {
	for i, c := range b {
		if c-escape <= mark-escape { // the two are neighbours
			return i
		}
	}
	return len(b)
}

// appendStuffed appends data, stuffed, to b.
func appendStuffed(b, data []byte) []byte {
	for {
		n := plain(data)
		b = append(b, data[:n]...)
		if n == len(data) {
			return b
		}
		b = append(b, escape, data[n]^flip)
		data = data[n+1:]
	}
}

// appendMark appends the mark that begins the connection n.
func appendMark(b []byte, n name) []byte { return appendStuffed(append(b, mark), n[:]) }

// decoder takes stuffed octets apart. The zero decoder stands at the beginning of a stream.
type decoder struct {
	escaped bool
	naming  bool // the octets of a mark's name come
	have    int  // of these
	name    name
}

// next decodes in until its end or that of a mark. It returns the data, which lies in in's own memory, what is left of
// in, and whether it stopped at a mark, whose name is in d.name.
func (d *decoder) next(in []byte) (data, rest []byte, marked bool) {
	data = in[:0]
	for i := 0; i < len(in); i++ {
		if !d.escaped && !d.naming {
			n := plain(in[i:])
			data = append(data, in[i:i+n]...)
			if i += n; i == len(in) {
				break
			}
		}
		c := in[i]
		switch {
		case c == mark: // also within a name or behind an escape: that was cut off
			d.escaped, d.naming, d.have = false, true, 0
			if len(data) > 0 {
				return data, in[i+1:], false
			}
			continue
		case c == escape:
			d.escaped = true
			continue
		case d.escaped:
			c, d.escaped = c^flip, false
		}
		if !d.naming {
			data = append(data, c)
			continue
		}
		d.name[d.have] = c
		if d.have++; d.have == nameSize {
			d.naming = false
			return data, in[i+1:], true
		}
	}
	return data, nil, false
}

// sender writes what comes out of a connection's pipe to the stream, stuffed, until stop.
type sender struct {
	pipe net.Conn
	done chan struct{}
}

// send begins a sender. Farewell, if any, is sent when the connection was closed at the end that was given out, so that the other
// side learns of it.
func send(s Stream, pipe net.Conn, farewell []byte) *sender {
	w := &sender{pipe: pipe, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		plain, stuffed := make([]byte, chunk), make([]byte, 0, 2*chunk)
		for {
			n, err := pipe.Read(plain)
			if n > 0 {
				stuffed = appendStuffed(stuffed[:0], plain[:n])
				if _, err := s.Write(stuffed); err != nil {
					pipe.Close()
					return
				}
			}
			if err == io.EOF {
				s.Write(farewell) // what cannot be said is found out by the next who writes
			}
			if err != nil {
				return
			}
		}
	}()
	return w
}

// stop ends the sender, also in the midst of a write that nobody reads, and returns when it has ended.
func (w *sender) stop(s Stream) {
	w.pipe.Close()
	s.SetWriteDeadline(time.Unix(1, 0))
	<-w.done
	s.SetWriteDeadline(time.Time{})
}
