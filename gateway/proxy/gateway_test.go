package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"allotment/gateway"
	"allotment/image"
)

// serve starts a gateway with the limits on a free port and returns its address.
func serve(t *testing.T, c gateway.Config, limits Limits) (string, *Gateway) {
	t.Helper()
	g, err := New(c, limits, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := g.Server()
	done := make(chan struct{})
	go func() { s.Serve(g.Limit(l)); close(done) }()
	t.Cleanup(func() { s.Close(); <-done })
	return l.Addr().String(), g
}

func module(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func say(what string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, what, " ", r.Host, r.URL.Path) }
}

func get(t *testing.T, addr, path string, headers ...string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequest("GET", "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header[headers[i]] = append(r.Header[headers[i]], headers[i+1])
	}
	r.Host = "club.example"
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

func TestRoutes(t *testing.T) {
	addr, g := serve(t, gateway.Config{Routes: []gateway.Route{
		{Path: "/", Target: module(t, say("web")), Ready: true},
		{Path: "/wiki/", Target: module(t, say("wiki")), Ready: true},
		{Path: "/chat", Title: "Chat <1>", Target: "http://127.0.0.1:1", Ready: true},
		{Path: "/files", Title: "Files", Target: "http://127.0.0.1:1", Ready: false},
	}}, DefaultLimits())
	for _, c := range []struct {
		path   string
		status int
		body   string
	}{
		{"/", 200, "web club.example/"},
		{"/wikis", 200, "web club.example/wikis"},
		{"/wiki", 200, "wiki club.example/wiki"},
		{"/wiki/a", 200, "wiki club.example/wiki/a"},
		{"/chat/x", 502, "Chat &lt;1&gt; is not ready yet"},
		{"/files", 503, "Files is not ready yet"},
		{"/wiki/%2e%2e/chat", 400, "not understood"},
		{gateway.HealthPath, 200, `"ok"`},
	} {
		status, body, h := get(t, addr, c.path)
		if status != c.status || !strings.Contains(body, c.body) {
			t.Errorf("%s: %d %q", c.path, status, body)
		}
		if status > 500 && h.Get("Retry-After") == "" {
			t.Errorf("%s: nothing says when to try again", c.path)
		}
	}
	if err := g.SetConfig(gateway.Config{Routes: []gateway.Route{{Path: "/", Target: "ftp://x"}}}); err == nil {
		t.Error("a route that cannot work was accepted")
	}
	if status, _, _ := get(t, addr, "/"); status != 200 {
		t.Errorf("after a bad configuration the former one is gone: %d", status)
	}
	if err := g.SetConfig(gateway.Config{}); err != nil {
		t.Fatal(err)
	}
	if status, _, _ := get(t, addr, "/"); status != 404 {
		t.Errorf("without routes: %d", status)
	}
}

// spoofed are headers by which a client could pass for another one.
var spoofed = []string{
	"X-Forwarded-For", "6.6.6.6", "X-Forwarded-Host", "evil", "X-Forwarded-Proto", "gopher", "X-Forwarded-User", "root",
	"Forwarded", "for=6.6.6.6", "X-Real-Ip", "6.6.6.6", "Remote-User", "root", "X_Forwarded_For", "6.6.6.6",
	"X-Remote-User", "root", "X-Auth-Request-User", "root", "Proxy", "http://evil", "X-Script-Name", "/evil",
	"X.Forwarded.For", "6.6.6.6", "Remote-Addr", "6.6.6.6",
}

func TestClientCannotSpoof(t *testing.T) {
	seen := make(chan http.Header, 2)
	keep := func(w http.ResponseWriter, r *http.Request) { seen <- r.Header }
	target := module(t, keep)
	addr, _ := serve(t, gateway.Config{Routes: []gateway.Route{{Path: "/", Target: target, Ready: true}}}, DefaultLimits())

	get(t, addr, "/", append(spoofed, "Accept-Language", "fr")...)
	through := <-seen
	want := map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "club.example", "X-Forwarded-Proto": "http"}
	for i := 0; i < len(spoofed); i += 2 {
		if got := strings.Join(through.Values(spoofed[i]), ","); got != want[spoofed[i]] {
			t.Errorf("%s arrives as %q", spoofed[i], got)
		}
	}
	if through.Get("Accept-Language") != "fr" {
		t.Error("a harmless header is lost")
	}

	// The twin: without the gateway all of them arrive, so the test above can see them.
	get(t, strings.TrimPrefix(target, "http://"), "/", spoofed...)
	direct := <-seen
	for i := 0; i < len(spoofed); i += 2 {
		if len(direct.Values(spoofed[i])) == 0 {
			t.Errorf("%s does not arrive even without the gateway", spoofed[i])
		}
	}
}

// raw tells the path as it came and where the module is told to be.
func raw(what string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s as %q", what, r.RequestURI, r.Header.Values("X-Script-Name"))
	}
}

func TestStrip(t *testing.T) {
	calendar := gateway.Routes(&image.HTTP{Path: "/calendar", Strip: true, Also: []string{"/.well-known/caldav"}}, "Calendar",
		module(t, raw("calendar")), true)
	web := gateway.Routes(&image.HTTP{Path: "/", Strip: true}, "Web", module(t, raw("web")), true)
	addr, _ := serve(t, gateway.Config{Routes: append(calendar, web...)}, DefaultLimits())
	for _, c := range []struct{ path, body string }{
		{"/calendar/a?b=/calendar", `calendar /a?b=/calendar as ["/calendar"]`},
		{"/calendar", `calendar / as ["/calendar"]`},
		{"/calendar/", `calendar / as ["/calendar"]`},
		{"/calendar/a%2Fb/%C3%A9", `calendar /a%2Fb/%C3%A9 as ["/calendar"]`},
		{"/calendar//evil.example/a", `calendar /evil.example/a as ["/calendar"]`},
		{"/c%61lendar/a", "not understood"},
		{"/.well-known/caldav", `calendar /.well-known/caldav as []`},
		{"/calendars", `web /calendars as []`},
	} {
		if _, body, _ := get(t, addr, c.path, "X-Script-Name", "/evil"); !strings.Contains(body, c.body) {
			t.Errorf("%s: %q, want %q", c.path, body, c.body)
		}
	}
}

// Trailers come after the headers that the gateway looks through.
func TestTrailersDoNotPass(t *testing.T) {
	seen := make(chan http.Header, 2)
	target := module(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		seen <- r.Trailer
	})
	addr, _ := serve(t, gateway.Config{Routes: []gateway.Route{{Path: "/", Target: target, Ready: true}}}, DefaultLimits())
	send := func(url string) http.Header {
		r, err := http.NewRequest("POST", url, io.MultiReader(strings.NewReader("body"))) // of unknown length: chunked
		if err != nil {
			t.Fatal(err)
		}
		r.Trailer = http.Header{"Remote-User": {"chair"}}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return <-seen
	}
	if got := send("http://" + addr); len(got) != 0 {
		t.Errorf("trailers arrive: %v", got)
	}
	if got := send(target); got.Get("Remote-User") != "chair" { // the twin
		t.Errorf("without the gateway, trailers are %v", got)
	}
}

func TestStreamsArriveAtOnce(t *testing.T) {
	more := make(chan bool)
	target := module(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "first")
		w.(http.Flusher).Flush()
		<-more
		fmt.Fprintln(w, "second")
	})
	addr, _ := serve(t, gateway.Config{Routes: []gateway.Route{{Path: "/", Target: target, Ready: true}}}, DefaultLimits())
	resp, err := http.Get("http://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)
	if line, err := in.ReadString('\n'); line != "first\n" {
		t.Fatalf("%q, %v", line, err)
	}
	more <- true // the module could not go on before the first line was here
	if line, err := in.ReadString('\n'); line != "second\n" {
		t.Errorf("%q, %v", line, err)
	}
}

func TestSwitchedProtocols(t *testing.T) {
	target := module(t, func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
		line, _ := rw.ReadString('\n')
		io.WriteString(c, "echo "+line)
	})
	addr, _ := serve(t, gateway.Config{Routes: []gateway.Route{{Path: "/", Target: target, Ready: true}}}, DefaultLimits())
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
	in := bufio.NewReader(c)
	if _, err := http.ReadResponse(in, nil); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "hello\n")
	if line, err := in.ReadString('\n'); line != "echo hello\n" {
		t.Errorf("%q, %v", line, err)
	}
}

// upgrade makes a connection that goes on with another protocol; the module's end is in the channel.
func upgrade(t *testing.T, limits Limits) (client net.Conn, in *bufio.Reader, moduleEnd net.Conn) {
	t.Helper()
	ends := make(chan net.Conn, 1)
	target := module(t, func(w http.ResponseWriter, r *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		ends <- c
	})
	addr, _ := serve(t, gateway.Config{Routes: []gateway.Route{{Path: "/", Target: target, Ready: true}}}, limits)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
	in = bufio.NewReader(c)
	if r, err := http.ReadResponse(in, nil); err != nil || r.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", r, err)
	}
	moduleEnd = <-ends
	t.Cleanup(func() { moduleEnd.Close() })
	return c, in, moduleEnd
}

func TestUpgradedConnectionsEndWhenIdle(t *testing.T) {
	limits := DefaultLimits()
	limits.UpgradedIdle = time.Second
	c, in, m := upgrade(t, limits)
	// The module alone speaks, for longer than the limit in all: the client stays.
	for i := range 6 {
		fmt.Fprintln(m, i)
		if line, err := in.ReadString('\n'); line != fmt.Sprintln(i) {
			t.Fatalf("%d: %q, %v", i, line, err)
		}
		time.Sleep(limits.UpgradedIdle / 4)
	}
	// Then nobody does.
	if rest := closed(t, c); rest != "" {
		t.Errorf("%q", rest)
	}
	closed(t, m) // the module's connection is not left behind

	limits.UpgradedIdle = time.Hour // the twin
	c, _, m = upgrade(t, limits)
	c.SetReadDeadline(time.Now().Add(1500 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection with an hour of patience: %v", err)
	}
	m.Close()
}

// closed waits until the gateway gives up on a connection, or fails after ten seconds.
func closed(t *testing.T, c net.Conn) string {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(c)
	if e, ok := err.(net.Error); ok && e.Timeout() {
		t.Fatal("the gateway waits for ever")
	}
	return string(b)
}

func TestSlowClientsAreGivenUp(t *testing.T) {
	got := make(chan error, 1)
	target := module(t, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		got <- err
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	})
	for name, begin := range map[string]string{
		"header": "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
		"body":   "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc",
	} {
		t.Run(name, func(t *testing.T) {
			limits := DefaultLimits()
			short := map[string]*time.Duration{"header": &limits.Header, "body": &limits.BodyGrace}
			*short[name] = 100 * time.Millisecond // the other is not to end it first
			addr, _ := serve(t, gateway.Config{Routes: []gateway.Route{{Path: "/", Target: target, Ready: true}}}, limits)
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, begin)
			if answer := closed(t, c); strings.Contains(answer, "200 OK") {
				t.Errorf("answer %q", answer)
			}
		})
	}
	if err := <-got; err == nil {
		t.Error("the module got a whole body that was never sent")
	}
}

func TestResponseMayTakeLongerThanItsRequest(t *testing.T) {
	limits := DefaultLimits()
	limits.BodyGrace = 50 * time.Millisecond
	target := module(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		for range 4 {
			fmt.Fprintln(w, "tick")
			w.(http.Flusher).Flush()
			time.Sleep(limits.BodyGrace) // the deadline of the request's body passes meanwhile
		}
	})
	addr, _ := serve(t, gateway.Config{Routes: []gateway.Route{{Path: "/", Target: target, Ready: true}}}, limits)
	resp, err := http.Post("http://"+addr, "text/plain", strings.NewReader("question"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); string(b) != "tick\ntick\ntick\ntick\n" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestConnectionsPerClient(t *testing.T) {
	limits := DefaultLimits()
	limits.PerClient = 2
	addr, _ := serve(t, gateway.Config{}, limits)
	var held []net.Conn
	for range 2 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", gateway.HealthPath)
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	over, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()
	fmt.Fprintf(over, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", gateway.HealthPath)
	if answer := closed(t, over); answer != "" {
		t.Errorf("one connection too many got %q", answer)
	}
	held[0].Close()
	for start := time.Now(); ; {
		if resp, err := http.Get("http://" + addr + gateway.HealthPath); err == nil {
			resp.Body.Close()
			return
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal("a closed connection keeps its place")
		}
	}
}

// TestAwaitConfig waits until the gateway follows other routes, and not for ever.
func TestAwaitConfig(t *testing.T) {
	addr, g := serve(t, gateway.Config{}, DefaultLimits())
	next := gateway.Config{Routes: []gateway.Route{{Path: "/", Target: "http://m:1"}}}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := gateway.AwaitConfig(short, addr, next); err == nil {
		t.Error("the gateway is said to follow what nobody told it")
	}
	done := make(chan error)
	go func() { done <- gateway.AwaitConfig(t.Context(), addr, next) }()
	if err := errors.Join(g.SetConfig(next), <-done); err != nil {
		t.Error(err)
	}
}

func FuzzFind(f *testing.F) {
	f.Add("/wiki", "/wiki/a")
	f.Add("/", "")
	f.Fuzz(func(t *testing.T, prefix, path string) {
		tab, err := newTable(gateway.Config{Routes: []gateway.Route{{Path: prefix, Target: "http://m:1"}}})
		if err != nil {
			return
		}
		if r := tab.find("x", path); r != nil && !strings.HasPrefix(path+"/", strings.TrimSuffix(prefix, "/")+"/") {
			t.Errorf("%q leads to %q", path, prefix)
		}
	})
}

func FuzzStrip(f *testing.F) {
	f.Add("/a/b%2Fc")
	f.Add("/%61")
	f.Add("/a//b")
	tab, err := newTable(gateway.Config{Routes: []gateway.Route{{Path: "/a", Target: "http://m:1", Strip: true}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, path string) {
		u, err := url.ParseRequestURI(path)
		if err != nil || u.Host != "" || tab.find("x", u.Path) == nil || !tab.routes[0].plain(u) {
			return
		}
		before := u.Path
		tab.routes[0].strip(u)
		again, err := url.ParseRequestURI(u.EscapedPath())
		if err != nil || again.Path != u.Path || again.Host != "" || !strings.HasSuffix(before, strings.TrimPrefix(u.Path, "/")) {
			t.Errorf("%q becomes %q, %v", path, u.EscapedPath(), err)
		}
	})
}

func TestModuleCannotFillTheGateway(t *testing.T) {
	limits := DefaultLimits()
	target := module(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Long", strings.Repeat("x", len(r.URL.Path)*limits.HeaderBytes/8))
	})
	addr, _ := serve(t, gateway.Config{Routes: []gateway.Route{{Path: "/", Target: target, Ready: true}}}, limits)
	for path, want := range map[string]int{"/abc": http.StatusOK, "/abcdefghi": http.StatusBadGateway} {
		if status, _, _ := get(t, addr, path); status != want {
			t.Errorf("headers of %d/8 of the bound: status %d, want %d", len(path), status, want)
		}
	}
}
