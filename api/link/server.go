package link

import (
	"errors"
	"io"
	"net"
	"sync"
)

// Listener is the server's end of a link: a net.Listener that gives one connection after the other.
type Listener struct {
	stream Stream
	accept chan net.Conn
	done   chan struct{} // closed when no connection will come any more
	close  sync.Once
	err    error // why; set before done is closed

	out *sender // of the connection that goes on; belongs to the reading goroutine
}

// Listen serves the stream until it fails or Close. It begins by telling the other end that nothing goes on.
func Listen(s Stream) *Listener {
	l := &Listener{stream: s, accept: make(chan net.Conn), done: make(chan struct{})}
	go l.read()
	return l
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.done:
		return nil, l.err
	}
}

// Close implements net.Listener. The connection that goes on ends too.
func (l *Listener) Close() error {
	l.fail(net.ErrClosed)
	return l.stream.Close()
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return addr{} }

type addr struct{}

func (addr) Network() string { return "link" }
func (addr) String() string  { return "link" }

func (l *Listener) fail(err error) {
	l.close.Do(func() {
		l.err = err
		close(l.done)
	})
}

// read follows the stream to its end.
func (l *Listener) read() {
	err := l.mark(name{})
	buf := make([]byte, chunk)
	var d decoder
	for err == nil {
		var n int
		n, err = l.stream.Read(buf)
		if e := l.take(&d, buf[:n]); e != nil {
			err = e
		}
		if errors.Is(err, io.EOF) {
			l.end()
			d, err = decoder{}, nil
		}
	}
	l.end()
	l.fail(err)
}

// take follows what was read.
func (l *Listener) take(d *decoder, in []byte) error {
	for len(in) > 0 {
		data, rest, marked := d.next(in)
		if len(data) > 0 {
			l.deliver(data)
		}
		if marked {
			if err := l.begin(d.name); err != nil {
				return err
			}
		}
		in = rest
	}
	return nil
}

// deliver gives data to whoever accepted the connection; there is nobody before the first mark and after their close.
func (l *Listener) deliver(data []byte) {
	if l.out == nil {
		return
	}
	if _, err := l.out.pipe.Write(data); err != nil {
		l.end()
		l.mark(name{})
	}
}

// begin ends what went on and begins the connection n, unless that is none.
func (l *Listener) begin(n name) error {
	l.end()
	if err := l.mark(n); err != nil || n == (name{}) {
		return err
	}
	theirs, ours := net.Pipe()
	select {
	case l.accept <- theirs:
		l.out = send(l.stream, ours, appendMark(nil, name{}))
	case <-l.done:
	}
	return nil
}

func (l *Listener) end() {
	if l.out != nil {
		l.out.stop(l.stream)
		l.out = nil
	}
}

func (l *Listener) mark(n name) error {
	_, err := l.stream.Write(appendMark(nil, n))
	return err
}
