package apiserver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"allotment/api"
	"allotment/image"
	"allotment/image/layer"
	"allotment/init/apiserver/boxtest"
)

// at is when the boxes of these tests were started.
var at = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

// serve answers for the box on a pipe, which belongs to the owner, or as access says on a socket.
func serve(t *testing.T, c Config) *Server {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// socket serves on a unix socket and returns its path.
func socket(t *testing.T, c Config) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	go serve(t, c).Serve(l)
	return path
}

// pipes is a listener whose connections are made by dial. They are no unix sockets, as those of the virtio port.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	close func()
}

func newPipes() *pipes {
	done := make(chan struct{})
	return &pipes{make(chan net.Conn), done, sync.OnceFunc(func() { close(done) })}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.close(); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// owner is a client of a server as the owner reaches it.
func owner(t *testing.T, c Config) *api.Client {
	p := newPipes()
	go serve(t, c).Serve(p)
	client := api.New(p.dial)
	t.Cleanup(client.Close)
	return client
}

func developer(b *boxtest.Box) Config { return Config{Box: b, Developer: b} }

// collect reads a stream to its end.
func collect[T any](t *testing.T, items func(func(T, error) bool)) []T {
	t.Helper()
	var all []T
	for v, err := range items {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

func TestEveryRouteAnswers(t *testing.T) {
	box := boxtest.New(at)
	c, ctx := owner(t, developer(box)), t.Context()
	try := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	info, err := c.Info(ctx)
	try("info", err)
	health, err := c.Health(ctx)
	try("health", err)
	modules, err := c.Modules(ctx)
	try("modules", err)
	_, err = c.Module(ctx, "page")
	try("module", err)
	resources, err := c.Resources(ctx)
	try("resources", err)
	if info.Version != "1.0" || len(health.Lamps) != 2 || len(modules) != 1 || resources.Memory != 1<<30 {
		t.Errorf("got %v, %v, %v, %v", info, health, modules, resources)
	}
	try("on", c.Switch(ctx, "page", true))
	try("restart", c.Restart(ctx, "page", "nginx"))
	try("set", c.SetSettings(ctx, "page", map[string]any{"posts": 5}))
	try("set", c.SetSettings(ctx, "", map[string]any{"domain": "a.example"}))
	if s, err := c.Settings(ctx, "page"); err != nil || len(s.Form) != 2 {
		t.Errorf("settings %v, %v", s, err)
	}
	if s, err := c.Settings(ctx, ""); err != nil || s.Values["domain"] != "allotment.internal" {
		t.Errorf("settings %v, %v", s, err)
	}
	if got := collect(t, c.Logs(ctx, api.LogQuery{Module: "page", Lines: 1})); len(got) != 1 || got[0].Text != "second line" {
		t.Errorf("logs %v", got)
	}
	if got := collect(t, c.Events(ctx, api.EventQuery{})); len(got) != 1 || !got[0].Time.Equal(at) {
		t.Errorf("events %v", got)
	}
	tasks, err := c.Tasks(ctx)
	try("tasks", err)
	for _, task := range tasks {
		progress := collect(t, c.RunTask(ctx, task))
		last := progress[len(progress)-1]
		if want := task.Kind == api.Journey; last.OK != want || !last.Done || last.Step != 0 {
			t.Errorf("task %v ends with %v", task, last)
		}
	}
	if got := collect(t, c.Provision(ctx, api.Provision{Users: 3})); len(got) != 3 || got[2].Name != "user03" {
		t.Errorf("accounts %v", got)
	}
	processes, err := c.Processes(ctx)
	try("processes", err)
	try("signal", c.Signal(ctx, processes[0].PID, "SIGHUP"))
	if got := collect(t, c.Run(ctx, "page", "nginx", "ls")); len(got) != 2 || got[0].Text != "[ls]\n" || *got[1].Exit != 0 {
		t.Errorf("run %v", got)
	}
	want := `switch page true|restart page.nginx|set "page" map[posts:5]|set "" map[domain:a.example]|provision 3 members|signal 1 SIGHUP`
	if got := strings.Join(box.Done(), "|"); got != want {
		t.Errorf("the box was told %s\nwant %s", got, want)
	}
}

func TestUpdateRoutes(t *testing.T) {
	box := boxtest.New(at)
	c, ctx := owner(t, developer(box)), t.Context()
	if u, err := c.Update(ctx); err != nil || u.Offered != "1.1" {
		t.Errorf("update %+v, %v", u, err)
	}
	if all, err := c.UpdateHistory(ctx); err != nil || len(all) != 1 || !all[0].Stays {
		t.Errorf("history %+v, %v", all, err)
	}
	no, channel := false, "candidate"
	for what, err := range map[string]error{
		"policy": c.SetUpdatePolicy(ctx, api.UpdatePolicy{Paused: &no, Channel: &channel}), "check": c.CheckUpdate(ctx), "now": c.UpdateNow(ctx),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, confirmed := range []bool{false, true} {
		if b, err := c.GoBack(ctx, confirmed); err != nil || b.Begun != confirmed || len(b.Losses) != 1 {
			t.Errorf("back %+v, %v", b, err)
		}
	}
	if err := c.RestartUpdate(ctx); !errors.Is(err, &api.Error{Code: api.Conflict}) {
		t.Errorf("restart: %v", err)
	}
	if err := c.TidyUpdates(ctx); err != nil {
		t.Errorf("tidy: %v", err)
	}
	want := `update policy {"paused":false,"channel":"candidate"}|update check, now false|update check, now true|` +
		`update back, confirmed false|update back, confirmed true|update tidy`
	if got := strings.Join(box.Done(), "|"); got != want {
		t.Errorf("the box was told %s\nwant %s", got, want)
	}
}

func TestLayerAndDeclarationReplaceAModule(t *testing.T) {
	box := boxtest.New(at)
	c, ctx := owner(t, developer(box)), t.Context()
	content := bytes.Repeat([]byte{1, 2, 3, 4}, 1<<20) // more than any other body may have
	d, _, err := layer.Digest(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if has, err := c.HasLayer(ctx, d); has || err != nil {
		t.Fatalf("a layer before it was added: %v, %v", has, err)
	}
	if err := c.AddLayer(ctx, d, bytes.NewReader(content[1:])); !errors.Is(err, &api.Error{Code: api.Invalid}) {
		t.Errorf("another layer's bytes: %v", err)
	}
	if err := c.AddLayer(ctx, d, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	if has, err := c.HasLayer(ctx, d); !has || err != nil {
		t.Errorf("the layer is not there: %v, %v", has, err)
	}
	if err := c.Replace(ctx, image.Module{Name: "page", Layers: []image.Digest{d}}); err != nil {
		t.Error(err)
	}
}

func TestTunnelCarriesBothWays(t *testing.T) { tunnel(t, owner(t, developer(boxtest.New(at)))) }

func TestProxyPassesStreamsOn(t *testing.T) {
	box := boxtest.New(at)
	path := filepath.Join(t.TempDir(), "proxy.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	proxy := api.ProxyServer(owner(t, developer(box)))
	go proxy.Serve(l)
	defer proxy.Close()
	c := api.Unix(path)
	defer c.Close()
	tunnel(t, c)
	follow(t, box, c)
	if err := c.Restart(t.Context(), "page", "apache"); !errors.Is(err, &api.Error{Code: api.NotFound}) {
		t.Errorf("a refusal of the box: %v", err)
	}
	proxy.Close()
	if _, err := c.Health(t.Context()); err == nil {
		t.Error("an answer without the proxy")
	}
}

// tunnel tries a connection to a module by a client of a developer's box.
func tunnel(t *testing.T, c *api.Client) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	gone := make(chan struct{})
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		io.Copy(c, c)
		close(gone)
	}()
	conn, err := c.DialModule(t.Context(), "page", l.Addr().(*net.TCPAddr).Port)
	if err != nil {
		t.Fatal(err)
	}
	for _, said := range []string{"one", "another"} {
		io.WriteString(conn, said)
		got := make([]byte, len(said))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != said {
			t.Fatalf("echo of %q: %q, %v", said, got, err)
		}
	}
	conn.Close()
	<-gone // the module's end was closed too
	l.Close()
	if _, err := c.DialModule(t.Context(), "page", l.Addr().(*net.TCPAddr).Port); !errors.Is(err, &api.Error{Code: api.Conflict}) {
		t.Errorf("a port that nobody listens on: %v", err)
	}
}

// A module that says all it has to say and hangs up is heard to the end, however slowly.
func TestTunnelKeepsTheEndOfAnAnswer(t *testing.T) {
	c := owner(t, developer(boxtest.New(at)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	said := bytes.Repeat([]byte("all that there is to say\n"), 2000)
	go func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			conn.Write(said)
			conn.Close()
		}
	}()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for i := range 200 {
		runtime.GOMAXPROCS(1 + i%4)
		conn, err := c.DialModule(t.Context(), "page", l.Addr().(*net.TCPAddr).Port)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(iotest.OneByteReader(io.LimitReader(conn, 200))) // slowly, then as fast as it comes
		if err == nil {
			var rest []byte
			rest, err = io.ReadAll(conn)
			got = append(got, rest...)
		}
		if err != nil || !bytes.Equal(got, said) {
			t.Fatalf("answer %d: %d bytes of %d, %v", i, len(got), len(said), err)
		}
		conn.Close()
	}
}

func TestFollowedEventsComeAsTheyHappen(t *testing.T) {
	box := boxtest.New(at)
	follow(t, box, owner(t, Config{Box: box}))
}

// follow wants each event before it lets the next one happen.
func follow(t *testing.T, box *boxtest.Box, c *api.Client) {
	t.Helper()
	seen := 0
	for e, err := range c.Events(t.Context(), api.EventQuery{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if seen++; seen == 3 {
			return
		}
		box.Happen(api.Event{Text: fmt.Sprint("after ", e.Number)})
	}
	t.Error("the stream has ended")
}

// TestClasses wants that each class can use just the routes of its own class and those below.
func TestClasses(t *testing.T) {
	for class := api.Public; class <= api.Developer; class++ {
		box := boxtest.New(at)
		c := Config{Box: box}
		if class == api.Developer {
			c.Developer = box
		}
		s := serve(t, c)
		for _, r := range api.Routes() {
			ctx, cancel := context.WithCancel(context.WithValue(t.Context(), accessKey{}, min(class, api.Owner)))
			path := strings.NewReplacer("{module}", "page", "{service}", "nginx", "{kind}", "journey", "{task}", "read",
				"{digest}", "x", "{pid}", "x", "{signal}", "x", "{port}", "x", "{seconds}", "x").Replace(r.Path)
			request, err := http.NewRequestWithContext(ctx, r.Method, path, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			a := &recorder{header: http.Header{}}
			s.http.Handler.ServeHTTP(a, request)
			cancel()
			refused := a.status == http.StatusForbidden || strings.Contains(a.body.String(), "no developer image")
			if want := r.Access > class; refused != want {
				t.Errorf("class %s, %s: status %d, %s; want refused %t", class, r.Pattern(), a.status, a.body.String(), want)
			}
		}
	}
}

// TestRoutesOfAUser wants that a user can use the routes that are named for it, and no others of their class.
func TestRoutesOfAUser(t *testing.T) {
	const restart, tidy = "POST /v1/update/restart", "POST /v1/update/tidy"
	box := boxtest.New(at)
	s := serve(t, Config{Box: box})
	for _, r := range api.Routes() {
		if r.Access != api.Owner {
			continue
		}
		ctx := context.WithValue(context.WithValue(t.Context(), accessKey{}, api.Public), routesKey{}, []string{restart, tidy})
		a := &recorder{header: http.Header{}}
		s.http.Handler.ServeHTTP(a, httptest.NewRequestWithContext(ctx, r.Method, r.Path, strings.NewReader("{}")))
		if allowed := a.status != http.StatusForbidden; allowed != (r.Pattern() == restart || r.Pattern() == tidy) {
			t.Errorf("%s: status %d, %s", r.Pattern(), a.status, a.body.String())
		}
	}
	if got := box.Done(); !slices.Equal(got, []string{"update tidy"}) {
		t.Errorf("the box was told %q", got)
	}
}

// recorder keeps an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header    { return r.header }
func (r *recorder) WriteHeader(status int) { r.status = status }
func (r *recorder) FlushError() error      { return nil }
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.body.Write(p)
}

func TestSocketKnowsItsCaller(t *testing.T) {
	me := uint32(os.Getuid())
	for class, want := range map[api.Access]error{
		api.Officer: nil, api.Owner: nil, api.Member: &api.Error{Code: api.Refused}, api.Public: &api.Error{Code: api.Refused},
	} {
		s := serve(t, Config{Box: boxtest.New(at), Access: map[uint32]api.Access{me: class}})
		if me == 0 { // root is the owner whatever the table says: look at the class of others
			s.config.Access[1] = class
			if got := s.class(1); got != class {
				t.Errorf("user 1 is %s, want %s", got, class)
			}
			continue
		}
		path := filepath.Join(t.TempDir(), "api.sock")
		l, err := ListenUnix(path)
		if err != nil {
			t.Fatal(err)
		}
		go s.Serve(l)
		_, err = api.Unix(path).Tasks(t.Context())
		if want == nil && err != nil || want != nil && !errors.Is(err, want) {
			t.Errorf("class %s: %v", class, err)
		}
	}
	s := serve(t, Config{Box: boxtest.New(at)})
	if s.class(0) != api.Owner || s.class(1) != api.Public {
		t.Errorf("root is %s, others are %s", s.class(0), s.class(1))
	}
}

func TestSocketIsPrivate(t *testing.T) {
	path := socket(t, Config{Box: boxtest.New(at)})
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", st.Mode(), err)
	}
	if os.Getuid() == 0 {
		if _, err := api.Unix(path).Tasks(t.Context()); err != nil {
			t.Errorf("root: %v", err)
		}
	}
	again, err := ListenUnix(path) // as the next supervisor does
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestRefusals(t *testing.T) {
	c := owner(t, developer(boxtest.New(at)))
	ctx := t.Context()
	var one api.Error
	for what, v := range map[string]struct {
		err  error
		code api.Code
	}{
		"unknown module":    {second(c.Module(ctx, "mail")), api.NotFound},
		"unknown service":   {c.Restart(ctx, "page", "apache"), api.NotFound},
		"unknown task":      {failure(c.RunTask(ctx, api.Task{Module: "page", Kind: api.Backup, Name: "dump"})), api.NotFound},
		"core module off":   {c.Switch(ctx, "page", false), api.Conflict},
		"unknown setting":   {c.SetSettings(ctx, "page", map[string]any{"colour": "red"}), api.Invalid},
		"no users":          {failure(c.Provision(ctx, api.Provision{})), api.Invalid},
		"too many users":    {failure(c.Provision(ctx, api.Provision{Users: mostUsers + 1})), api.Invalid},
		"no such signal":    {c.Signal(ctx, 1, "SIGNONE"), api.Invalid},
		"no such process":   {c.Signal(ctx, -1, "SIGKILL"), api.Invalid},
		"no such port":      {second(c.DialModule(ctx, "page", 0)), api.Invalid},
		"no command":        {failure(c.Run(ctx, "page", "nginx")), api.Invalid},
		"no digest":         {second(c.HasLayer(ctx, "sha1:00")), api.Invalid},
		"traversal":         {second(c.Module(ctx, "../health")), api.NotFound},
		"body too long":     {c.SetSettings(ctx, "page", map[string]any{"posts": strings.Repeat("x", mostBody)}), api.Invalid},
		"longest of bodies": {c.SetSettings(ctx, "page", map[string]any{"posts": strings.Repeat("x", mostBody-100)}), ""},
	} {
		if v.code == "" {
			if v.err != nil {
				t.Errorf("%s: %v", what, v.err)
			}
			continue
		}
		if one.Code = v.code; !errors.Is(v.err, &one) {
			t.Errorf("%s: error %v, want code %s", what, v.err, v.code)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// failure is the error in which a stream ends.
func failure[T any](items func(func(T, error) bool)) (err error) {
	for _, err = range items {
	}
	return err
}

func TestBodiesMustBeUnderstood(t *testing.T) {
	path := socket(t, Config{Box: boxtest.New(at), Access: map[uint32]api.Access{uint32(os.Getuid()): api.Owner}})
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	for body, want := range map[string]int{
		`{"users": 2}`: http.StatusOK, `{"users": 2, "admin": true}`: http.StatusUnprocessableEntity, `{"users": 2} {}`: http.StatusUnprocessableEntity,
		`users=2`: http.StatusUnprocessableEntity, ``: http.StatusUnprocessableEntity,
	} {
		answer, err := client.Post("http://box/v1/provision", "application/json", strings.NewReader(body)) // HTTP/1.1, as curl
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("%q: status %s, want %d", body, answer.Status, want)
		}
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	path := socket(t, Config{Box: boxtest.New(at)})
	var open []net.Conn
	connect := func() bool { // tells whether the server keeps the connection
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "GET /v1 HTTP/1.1\r\nHost: box\r\n\r\n")
		n, _ := c.Read(make([]byte, 1))
		if n == 1 {
			open = append(open, c)
		}
		return n == 1
	}
	for i := range mostConnections {
		if !connect() {
			t.Fatalf("connection %d was closed", i+1)
		}
	}
	if connect() {
		t.Error("one connection too many was kept")
	}
	for _, c := range open {
		c.Close()
	}
	for !connect() { // the twin: once there is room again
	}
}

// slow is a box on which switching takes as long as it may.
type slow struct{ *boxtest.Box }

func (slow) Switch(ctx context.Context, _ string, _ bool) error {
	select {
	case <-time.After(answerTime - time.Second):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// request sends an HTTP/1.1 request by its text, in the time of a synctest bubble, and returns the answer's status.
func request(t *testing.T, text string) int {
	p := newPipes()
	go serve(t, Config{Box: slow{boxtest.New(at)}}).Serve(p)
	c, err := p.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer p.Close()
	go io.WriteString(c, text)
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	return answer.StatusCode
}

func TestAnswersMayTakeLongerThanBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if got := request(t, "POST /v1/modules/page/on HTTP/1.1\r\nHost: box\r\n\r\n"); got != http.StatusNoContent {
			t.Errorf("a long answer has status %d", got)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		got := request(t, "PATCH /v1/settings HTTP/1.1\r\nHost: box\r\nContent-Length: 10\r\n\r\n{")
		if took := time.Since(begin); got != http.StatusUnprocessableEntity || took != bodyTime {
			t.Errorf("a body that does not come: status %d after %v", got, took)
		}
	})
}

func TestWhoFollowsIsToldAtOnce(t *testing.T) {
	box := boxtest.New(at)
	box.Log = nil
	path := socket(t, Config{Box: box, Access: map[uint32]api.Access{uint32(os.Getuid()): api.Owner}})
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	for query, want := range map[string]int{"module=page&follow=true": http.StatusOK, "module=mail&follow=true": http.StatusNotFound} {
		answer, err := client.Get("http://box/v1/logs?" + query) // returns when the status is there
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("%s: status %s, want %d", query, answer.Status, want)
		}
	}
}
