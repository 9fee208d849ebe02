package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"allotment/gateway"
)

// sent sends bytes and returns all that comes back until the gateway closes the connection.
func sent(t *testing.T, address, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, strings.ReplaceAll(request, "\n", "\r\n"))
	return closed(t, c)
}

// TestSmuggling sends requests of which gateway and module could see different ends. The module must never see the
// second one.
func TestSmuggling(t *testing.T) {
	var paths atomic.Value
	paths.Store("")
	target := module(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		paths.Store(paths.Load().(string) + " " + r.URL.Path)
	})
	addr, _ := serve(t, gateway.Config{Routes: []gateway.Route{{Path: "/", Target: target, Ready: true}}}, DefaultLimits())
	const hidden = "GET /hidden HTTP/1.1\nHost: x\nConnection: close\n\n"
	for name, request := range map[string]string{
		"length and chunks": "POST /a HTTP/1.1\nHost: x\nContent-Length: 60\nTransfer-Encoding: chunked\nConnection: close\n\n0\n\n" + hidden,
		"two lengths":       "POST /a HTTP/1.1\nHost: x\nContent-Length: 0\nContent-Length: 40\nConnection: close\n\n" + hidden,
		"length with sign":  "POST /a HTTP/1.1\nHost: x\nContent-Length: +40\nConnection: close\n\n" + hidden,
		"odd chunks":        "POST /a HTTP/1.1\nHost: x\nTransfer-Encoding: xchunked\nConnection: close\n\n0\n\n" + hidden,
		"spaced name":       "POST /a HTTP/1.1\nHost: x\nTransfer-Encoding : chunked\nConnection: close\n\n0\n\n" + hidden,
		"folded header":     "POST /a HTTP/1.1\nHost: x\nTransfer-Encoding:\n chunked\nConnection: close\n\n0\n\n" + hidden,
		"two hosts":         "GET /a HTTP/1.1\nHost: x\nHost: y\nConnection: close\n\n",
		"no host":           "GET /a HTTP/1.1\nConnection: close\n\n",
		"host with path":    "GET /a HTTP/1.1\nHost: x/hidden?\nConnection: close\n\n",
		"header in path":    "GET /a\tHTTP/1.1\nHost: x\nConnection: close\n\n",
	} {
		paths.Store("")
		answer := sent(t, addr, request)
		if strings.Contains(paths.Load().(string), "hidden") || strings.Count(answer, "HTTP/1.1 200") > 1 {
			t.Errorf("%s: the module saw%s, the client %q", name, paths.Load(), answer)
		}
		if !strings.Contains(name, "chunks") && name != "folded header" && !strings.HasPrefix(answer, "HTTP/1.1 4") {
			t.Errorf("%s: %q", name, answer)
		}
	}
	// The twin: two honest requests on one connection are two, so the above can be seen.
	paths.Store("")
	sent(t, addr, "GET /a HTTP/1.1\nHost: x\n\n"+hidden)
	if got := paths.Load().(string); got != " /a /hidden" {
		t.Errorf("two requests: %q", got)
	}
}

// TestHostsAreNotBelieved keeps strange hosts out of what the gateway writes.
func TestHostsAreNotBelieved(t *testing.T) {
	b := open(t, club(t), DefaultLimits(), "club.org", "portal.club.org")
	for _, host := range []string{
		"evil.org", "club.org.evil.org", "evil.org:80", "club.org@evil.org", "club.org,evil.org", "127.0.0.1.evil.org",
	} {
		answer := sent(t, b.plain, "GET /portal/ HTTP/1.1\nHost: "+host+"\nX-Forwarded-Host: club.org\nConnection: close\n\n")
		if status, _, _ := strings.Cut(strings.TrimPrefix(answer, "HTTP/1.1 "), " "); status != "421" && status != "400" {
			t.Errorf("%s: %q", host, answer)
		}
		if strings.Contains(answer, "Location") {
			t.Errorf("%s: %q", host, answer)
		}
	}
	answer := sent(t, b.plain, "GET http://evil.org/portal/ HTTP/1.1\nHost: club.org\nConnection: close\n\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 421") {
		t.Errorf("an absolute address: %q", answer)
	}
}

func TestHugeHeaders(t *testing.T) {
	var seen atomic.Int64
	target := module(t, func(http.ResponseWriter, *http.Request) { seen.Add(1) })
	limits := DefaultLimits()
	addr, _ := serve(t, gateway.Config{Routes: []gateway.Route{{Path: "/", Target: target, Ready: true}}}, limits)
	const small, huge = 4 << 10, 64 << 10
	for size, want := range map[int]string{small: "HTTP/1.1 200", huge: "HTTP/1.1 431"} {
		for name, line := range map[string]string{
			"one": "X-Long: " + strings.Repeat("x", size), "many": strings.Repeat("X-Many: y\n", size/10) + "X-Last: z",
			"cookie": "Cookie: __Host-portal=" + strings.Repeat("x", size),
		} {
			seen.Store(0)
			answer := sent(t, addr, "GET / HTTP/1.1\nHost: x\n"+line+"\nConnection: close\n\n")
			if !strings.HasPrefix(answer, want) || seen.Load() != int64(map[int]int{small: 1, huge: 0}[size]) {
				t.Errorf("%s of %d: %.40q, seen %d times", name, size, answer, seen.Load())
			}
		}
	}
}

func TestLargeBodies(t *testing.T) {
	limits := DefaultLimits()
	limits.PortalBody, limits.ModuleBody = 1000, 5000
	read := func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
	}
	addr, _ := serve(t, gateway.Config{Portal: portalAt(t, read), Routes: []gateway.Route{
		{Path: "/", Target: module(t, read), Ready: true}}}, limits)
	for _, c := range []struct {
		path    string
		size    int
		chunked bool
		want    int
	}{
		{"/portal/", 1000, false, 200}, {"/portal/", 1001, false, 413}, {"/portal/", 1001, true, 413},
		{"/", 5000, true, 200}, {"/", 5001, false, 413}, {"/", 50000, true, 413},
	} {
		var body io.Reader = bytes.NewReader(make([]byte, c.size))
		if c.chunked {
			body = io.MultiReader(body)
		}
		r, err := http.Post("http://"+addr+c.path, "text/plain", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != c.want {
			t.Errorf("%+v: %s", c, r.Status)
		}
	}
}

// frame writes one of HTTP/2 (RFC 9113, section 4.1).
func frame(w io.Writer, kind, flags byte, stream uint32, payload []byte) error {
	h := make([]byte, 9, 9+len(payload))
	h[0], h[1], h[2], h[3], h[4] = byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload)), kind, flags
	binary.BigEndian.PutUint32(h[5:], stream)
	_, err := w.Write(append(h, payload...))
	return err
}

// second opens a connection of HTTP/2 to the box.
func (b *box) second(t *testing.T) net.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", b.tls, &tls.Config{ServerName: "club.org", RootCAs: b.browsers, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	if err := frame(c, 4, 0, 0, nil); err != nil { // SETTINGS
		t.Fatal(err)
	}
	return c
}

// headers of GET https://club.org/, in HPACK: indexed fields, and the authority as a literal (RFC 7541, appendix A).
var headers = append([]byte{0x82, 0x84, 0x87, 0x01, 8}, "club.org"...)

// TestRapidReset begins requests and takes them back at once (CVE-2023-44487). The module must not get more of them
// at a time than a connection may have streams.
func TestRapidReset(t *testing.T) {
	var now, most atomic.Int64
	release, arrived := make(chan struct{}), make(chan struct{}, 1)
	c := club(t)
	c.Routes[0].Target = module(t, func(_ http.ResponseWriter, r *http.Request) {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer now.Add(-1)
		select {
		case arrived <- struct{}{}:
		default:
		}
		select {
		case <-r.Context().Done():
		case <-release:
		}
	})
	limits := DefaultLimits()
	limits.Streams = 8
	limits.Requests.Burst = 1 << 20
	b := open(t, c, limits, "club.org")
	defer close(release)
	conn := b.second(t)
	go io.Copy(io.Discard, conn)
	conn.SetWriteDeadline(time.Now().Add(20 * time.Second))
	err := frame(conn, 1, 5, 1, headers) // the twin: one that is not taken back arrives
	<-arrived
	begun := 1
	for ; begun < 20000 && err == nil; begun++ {
		stream := uint32(2*begun + 1)
		if err = frame(conn, 1, 5, stream, headers); err == nil { // HEADERS, END_STREAM and END_HEADERS
			err = frame(conn, 3, 0, stream, []byte{0, 0, 0, 8}) // RST_STREAM, CANCEL
		}
	}
	if got := most.Load(); begun < 100 || got > int64(limits.Streams)*4 {
		t.Errorf("%d requests at a time in the module after %d", got, begun)
	}
	if r, _ := fetched(t, b.browser(t), "https://club.org/calendar"); r.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %s", r.Status)
	}
}

// TestContinuationFlood sends headers without an end (CVE-2023-45288): the gateway must hang up.
func TestContinuationFlood(t *testing.T) {
	b := open(t, club(t), DefaultLimits(), "club.org")
	conn := b.second(t)
	hungUp := make(chan struct{})
	go func() { io.Copy(io.Discard, conn); close(hungUp) }()
	if err := frame(conn, 1, 1, 1, headers); err != nil { // HEADERS without END_HEADERS
		t.Fatal(err)
	}
	field := append([]byte{0x00, 1, 'x', 100}, bytes.Repeat([]byte{'y'}, 100)...)
	block := bytes.Repeat(field, 100)
	conn.SetWriteDeadline(time.Now().Add(20 * time.Second))
	for i := 0; ; i++ {
		if err := frame(conn, 9, 0, 1, block); err != nil { // CONTINUATION
			break
		}
		if i > 10000 {
			t.Fatal("100 MB of headers are taken")
		}
	}
	<-hungUp
}

// TestSlowStrangersLeaveRoom has a hundred clients that never end their headers.
func TestSlowStrangersLeaveRoom(t *testing.T) {
	b := open(t, club(t), DefaultLimits(), "club.org")
	var d net.Dialer
	for i := range 100 {
		c, err := d.DialContext(t.Context(), "tcp", b.plain)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: club.org\r\nX-Slow: ", i)
	}
	c, err := d.DialContext(t.Context(), "tcp", b.plain)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: new.club.org\r\n\r\n")
	if r, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || r.StatusCode != http.StatusOK {
		t.Errorf("beside slow clients: %v, %v", r, err)
	}
}
