package limit

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// accepted tells whether the listener takes a connection from the address rather than closing it.
func accepted(t *testing.T, at net.Addr, from string) (net.Conn, bool) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, err = c.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("neither taken nor closed")
	}
	return c, err == nil
}

func TestListen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bounded := Listen(l, Bounds{Total: 3, PerClient: 2, IPv6Bits: 128})
	t.Cleanup(func() { l.Close() })
	left := make(chan struct{}, 10)
	go func() {
		for {
			c, err := bounded.Accept()
			if err != nil {
				return
			}
			c.Write([]byte{1})
			go func() {
				io.Copy(io.Discard, c)
				c.Close()
				c.Close() // counts once
				left <- struct{}{}
			}()
		}
	}()
	first, ok1 := accepted(t, l.Addr(), "127.0.0.1")
	_, ok2 := accepted(t, l.Addr(), "127.0.0.1")
	_, over := accepted(t, l.Addr(), "127.0.0.1")
	_, other := accepted(t, l.Addr(), "127.0.0.2")
	_, all := accepted(t, l.Addr(), "127.0.0.3")
	if !ok1 || !ok2 || over || !other || all {
		t.Errorf("two of one client: %v, %v; a third: %v; another client: %v; over all: %v", ok1, ok2, over, other, all)
	}
	first.Close()
	<-left
	if _, ok := accepted(t, l.Addr(), "127.0.0.3"); !ok {
		t.Error("a closed connection keeps its place")
	}
	if _, ok := accepted(t, l.Addr(), "127.0.0.2"); ok {
		t.Error("closing twice makes room for two")
	}
}

func TestClient(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1/32", "[::ffff:192.0.2.1]:80": "192.0.2.1/32", "[2001:db8:1:2:3::4]:80": "2001:db8:1:2::/64",
		"[fe80::1%lo]:80": "fe80::/64",
	} {
		a, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if got := Client(a, 64).String(); got != want {
			t.Errorf("%s is %s, want %s", address, got, want)
		}
	}
}
