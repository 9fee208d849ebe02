package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"allotment/gateway"
)

// third makes a client that finds all names at the box, by HTTP/3.
func (b *box) third(t *testing.T) *http.Client {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	from := &quic.Transport{Conn: c}
	to, err := net.ResolveUDPAddr("udp", b.quic)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http3.Transport{
		TLSClientConfig: &tls.Config{RootCAs: b.browsers},
		Dial: func(ctx context.Context, _ string, c *tls.Config, q *quic.Config) (*quic.Conn, error) {
			return from.DialEarly(ctx, to, c, q)
		},
	}
	t.Cleanup(func() { tr.Close(); from.Close(); c.Close() })
	return &http.Client{Transport: tr, CheckRedirect: noRedirect}
}

func TestProtocols(t *testing.T) {
	c := club(t)
	c.Routes[0].Target = module(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		io.WriteString(w, r.Header.Get("X-Forwarded-Proto")+" "+r.Header.Get("X-Forwarded-For")+" "+string(b))
	})
	b := open(t, c, DefaultLimits(), "club.org")
	for _, try := range []struct {
		browser *http.Client
		url     string
		major   int
		want    string
	}{
		{b.browser(t), "http://new.club.org/", 1, "http 127.0.0.1 body"},
		{b.browser(t), "https://club.org/", 2, "https 127.0.0.1 body"},
		{b.third(t), "https://club.org/", 3, "https 127.0.0.1 body"},
	} {
		r, err := try.browser.Post(try.url, "text/plain", strings.NewReader("body"))
		if err != nil {
			t.Fatalf("HTTP/%d: %v", try.major, err)
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.ProtoMajor != try.major || string(body) != try.want {
			t.Errorf("HTTP/%d: %s %q, %v", try.major, r.Proto, body, err)
		}
	}
	if err := b.end(); err != nil {
		t.Error(err)
	}
}

// TestChallengeHandshake gives an authority's handshake nothing but a challenge, and none when there is none.
func TestChallengeHandshake(t *testing.T) {
	b := open(t, club(t), DefaultLimits(), "club.org")
	_, err := tls.Dial("tcp", b.tls, &tls.Config{
		ServerName: "club.org", RootCAs: b.browsers, NextProtos: []string{acmez.ACMETLS1Protocol}})
	if err == nil {
		t.Error("a handshake for a challenge gets a certificate without one")
	}
	r, _ := fetched(t, b.browser(t), "http://club.org/.well-known/acme-challenge/x")
	if r.StatusCode != http.StatusPermanentRedirect {
		t.Errorf("a challenge that is not under way: %s", r.Status)
	}
}

// TestHandshakesAreBounded counts connections of all kinds together, before they have shaken hands.
func TestHandshakesAreBounded(t *testing.T) {
	limits := DefaultLimits()
	limits.PerClient, limits.Header = 3, 6*time.Second
	b := open(t, club(t), limits, "club.org")
	dial := func(address string) net.Conn {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	// A listener counts connections in their order, so one that has ended tells of those before it.
	held := []net.Conn{dial(b.plain)}
	next := dial(b.plain)
	fmt.Fprint(next, "GET / HTTP/1.1\r\nHost: club.org\r\nConnection: close\r\n\r\n")
	closed(t, next)
	held = append(held, dial(b.tls), dial(b.tls))
	closed(t, dial(b.tls))
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(short, http.MethodGet, "https://club.org/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.third(t).Do(r); err == nil {
		t.Error("HTTP/3 is not counted")
	}
	for _, c := range held { // nobody shakes hands, so all are given up
		closed(t, c)
	}
	if r, _ := fetched(t, b.browser(t), "https://club.org/"); r.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %s", r.Status)
	}
	if r, _ := fetched(t, b.third(t), "https://club.org/"); r.StatusCode != http.StatusOK {
		t.Errorf("afterwards, by HTTP/3: %s", r.Status)
	}
}

func TestServeEndsWithAnError(t *testing.T) {
	g, err := New(gateway.Config{}, DefaultLimits(), quietLog())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := g.Serve(t.Context(), Sockets{Plain: l}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}
