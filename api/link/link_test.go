package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cable is what a hypervisor makes of a console port: the server's end stays open while clients come and go, and
// neither end learns of it. What one client did not take, the next one gets.
type cable struct {
	server Stream
	inside net.Conn

	mu     sync.Mutex
	client net.Conn // the hypervisor's end of it
	change chan struct{}
}

func newCable(t *testing.T) *cable {
	t.Helper()
	a, b := socketPair(t)
	c := &cable{server: a, inside: b, change: make(chan struct{}, 1)}
	go func() { // to the client
		buf := make([]byte, 1000)
		for {
			n, err := b.Read(buf)
			if err != nil {
				return
			}
			for {
				if to := c.current(); to != nil {
					if _, err := to.Write(buf[:n]); err == nil {
						break
					}
				}
				<-c.change
			}
		}
	}()
	return c
}

func (c *cable) current() net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.client
}

// plug puts a new client in place of the one before.
func (c *cable) plug(t *testing.T) net.Conn {
	ours, theirs := socketPair(t)
	c.mu.Lock()
	if c.client != nil {
		c.client.Close()
	}
	c.client = theirs
	c.mu.Unlock()
	select {
	case c.change <- struct{}{}:
	default:
	}
	go io.Copy(c.inside, theirs)
	return ours
}

func socketPair(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
		t.Cleanup(func() { ends[i].Close() })
	}
	return ends[0], ends[1]
}

// serve answers every connection with what it reads, behind a greeting.
func serve(t *testing.T, s Stream) *Listener {
	l := Listen(s)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.Write([]byte("hello\n"))
				io.Copy(c, c)
			}()
		}
	}()
	return l
}

func dial(t *testing.T, s Stream) net.Conn {
	t.Helper()
	c, err := Dial(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	want(t, c, []byte("hello\n"))
	return c
}

func want(t *testing.T, r io.Reader, b []byte) {
	t.Helper()
	got := make([]byte, len(b))
	if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, b) {
		t.Fatalf("read %q, %v; want %q", got, err, b)
	}
}

var awkward = bytes.Repeat([]byte{mark, escape, mark ^ flip, escape ^ flip, 0, mark, mark}, 20000)

func TestCarriesAnyBytes(t *testing.T) {
	c := newCable(t)
	serve(t, c.server)
	conn := dial(t, c.plug(t))
	go conn.Write(awkward)
	want(t, conn, awkward)
}

func TestNextClientIsNotDisturbedByTheOneBefore(t *testing.T) {
	c := newCable(t)
	serve(t, c.server)
	for range 20 {
		conn := dial(t, c.plug(t))
		want := make(chan error)
		go func() { // far more than the client takes: it is on its way in both directions when the client goes
			_, err := conn.Write(awkward)
			want <- err
		}()
		if _, err := io.ReadFull(conn, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		defer func() { <-want }()
	}
	conn := dial(t, c.plug(t))
	conn.Write([]byte("clean"))
	want(t, conn, []byte("clean"))
	conn.Close()
}

// The twin: without marks, the second client gets what the first one did not take.
func TestPlainStreamIsDisturbed(t *testing.T) {
	c := newCable(t)
	first := c.plug(t)
	go c.server.Write(make([]byte, 4<<20))
	want(t, first, make([]byte, 4))
	want(t, c.plug(t), make([]byte, 4))
}

func TestServerThatBeginsAnewEndsTheConnection(t *testing.T) {
	c := newCable(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	old := &muted{Stream: c.server, ctx: ctx}
	serve(t, old)
	s := c.plug(t)
	conn := dial(t, s)
	cancel() // its machine was reset: it says no more
	conn.Write([]byte("a question that the next server gets"))
	serve(t, c.server)
	if b, err := io.ReadAll(conn); err != nil || len(b) > 0 {
		t.Fatalf("read %q, %v; want the end", b, err)
	}
	conn = dial(t, c.plug(t))
	conn.Write([]byte("x"))
	want(t, conn, []byte("x"))
}

// What a server says of itself when it begins is no answer, however soon it comes.
func TestZerosAreNoAnswer(t *testing.T) {
	var c caller
	if c.isAnswer(name{}) {
		t.Error("a client that has asked nothing takes zeros for an answer")
	}
	if n, _ := c.another(); !c.isAnswer(n) {
		t.Error("the answer is none")
	}
}

// A server that ends a connection, as HTTP servers do with idle ones, is not waited for until something is said to it.
func TestServerEndsTheConnection(t *testing.T) {
	c := newCable(t)
	l := Listen(c.server)
	t.Cleanup(func() { l.Close() })
	for range 2 {
		go func() {
			if conn, err := l.Accept(); err == nil {
				conn.Write([]byte("bye\n"))
				conn.Close()
			}
		}()
		conn, err := Dial(t.Context(), c.plug(t))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(conn); err != nil || string(b) != "bye\n" {
			t.Fatalf("read %q, %v; want all and the end", b, err)
		}
	}
}

// muted is a stream whose user is gone after ctx: it neither takes nor changes anything any more that the next one needs.
type muted struct {
	Stream
	ctx context.Context
}

func (m *muted) Read(p []byte) (int, error) {
	if m.ctx.Err() != nil {
		return 0, m.ctx.Err()
	}
	n, err := m.Stream.Read(p)
	if m.ctx.Err() != nil {
		return 0, m.ctx.Err()
	}
	return n, err
}

func (m *muted) Write(p []byte) (int, error) {
	if m.ctx.Err() != nil {
		return 0, m.ctx.Err()
	}
	return m.Stream.Write(p)
}

func (m *muted) SetWriteDeadline(t time.Time) error {
	if m.ctx.Err() != nil {
		return m.ctx.Err()
	}
	return m.Stream.SetWriteDeadline(t)
}

func TestClientWaitsForTheServer(t *testing.T) {
	c := newCable(t)
	s := c.plug(t)
	met := make(chan error)
	go func() {
		conn, err := Dial(t.Context(), s)
		if err == nil {
			defer conn.Close()
			_, err = io.ReadFull(conn, make([]byte, 6))
		}
		met <- err
	}()
	serve(t, c.server)
	if err := <-met; err != nil {
		t.Fatal(err)
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	c := newCable(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("over")
	cancel(over)
	if _, err := Dial(ctx, c.plug(t)); !errors.Is(err, over) {
		t.Errorf("error %v", err)
	}
}

func TestOldNameIsNoAnswer(t *testing.T) {
	var c caller
	first, _ := c.another()
	second, _ := c.another()
	if c.isAnswer(first) || c.isAnswer(name{}) {
		t.Error("an answer to an earlier name was taken")
	}
	if !c.isAnswer(second) {
		t.Error("the answer was not taken")
	}
	if _, ok := c.another(); ok {
		t.Error("another name after the answer")
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add([]byte("plain"), 3)
	f.Add([]byte{mark, escape, mark ^ flip, mark}, 1)
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		step = max(1, step)
		var d decoder
		decode(&d, b, step) // anything at all, then a mark: what follows is read as it was written
		wire := appendStuffed(appendMark(nil, name{1, mark, escape}), b)
		data, marks := decode(&d, wire, step)
		if len(marks) != 1 || marks[0] != (name{1, mark, escape}) || !bytes.HasSuffix(data, b) || len(data) != len(b) {
			t.Errorf("%q came back as %q, marks %v", b, data, marks)
		}
	})
}

// decode gives b to the decoder in steps of so many bytes.
func decode(d *decoder, b []byte, step int) (data []byte, marks []name) {
	b = bytes.Clone(b)
	for len(b) > 0 {
		in := b[:min(step, len(b))]
		b = b[len(in):]
		for len(in) > 0 {
			part, rest, marked := d.next(in)
			data = append(data, part...)
			if marked {
				marks = append(marks, d.name)
			}
			in = rest
		}
	}
	return data, marks
}
