package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"allotment/gateway"
)

// members answers as the portal does: who has which cookie.
type members struct {
	known sync.Map // cookie's value: visitor
	asked atomic.Int64
	hold  chan struct{} // if not nil, answers wait for it
}

func (m *members) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != whoisPath {
		if r.URL.Path == "/portal/logout" {
			w.Header().Add("Set-Cookie", "__Host-portal=; Max-Age=0")
		} else {
			w.Header().Add("Set-Cookie", "__Host-portal-visitor=x")
		}
		fmt.Fprint(w, r.Header.Get("Cookie"))
		return
	}
	m.asked.Add(1)
	if m.hold != nil {
		<-m.hold
	}
	c, err := r.Cookie("__Host-portal")
	if err != nil || r.Header.Get("X-Forwarded-Host") != "club.example" || len(r.Cookies()) != 1 {
		http.Error(w, "no", http.StatusUnauthorized)
		return
	}
	v, ok := m.known.Load(c.Value)
	if !ok {
		http.Error(w, "no", http.StatusUnauthorized)
		return
	}
	one := v.(visitor)
	one.Groups = append(one.Groups, r.URL.Query().Get("module"))
	json.NewEncoder(w).Encode(one)
}

var ann = visitor{Person: "ann", Name: "Änn\r\nX-Evil: 1", Mail: "ann@club.example", Groups: []string{"members", "board"},
	Permits: []string{"use", "edit"}, Password: "app-1"}

// told shows what a module is told.
func told(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	fmt.Fprintf(w, "%s|%s|%s|%s|%s:%s|%s", r.Header.Get("X-Remote-User"), r.Header.Get("X-Remote-Name"),
		r.Header.Get("X-Remote-Email"), r.Header.Get("X-Remote-Groups")+r.Header.Get("X-Remote-Permissions"), user, password, r.Header.Get("Cookie"))
}

func TestModulesAreToldWhoIsAsking(t *testing.T) {
	m := &members{}
	m.known.Store("s1", ann)
	target := module(t, told)
	addr, _ := serve(t, gateway.Config{Portal: portalAt(t, m.ServeHTTP), Routes: []gateway.Route{
		{Path: "/", Target: target, Ready: true, Module: "web", SSO: "header"},
		{Path: "/basic", Target: target, Ready: true, Module: "calendar", SSO: "basic"},
		{Path: "/none", Target: target, Ready: true, Module: "chat", SSO: "none"},
	}}, DefaultLimits())
	const session = "a=1; __Host-portal=s1; b=2"
	const toWeb = "ann|ÄnnX-Evil: 1|ann@club.example|members,board,webuse,edit|"
	for _, c := range []struct {
		path    string
		headers []string
		want    string
	}{
		{"/", []string{"Cookie", session}, toWeb + ":|a=1; b=2"},
		{"/", []string{"Cookie", session, "X-Remote-User", "root", "X-Remote-Groups", "admin"}, toWeb + ":|a=1; b=2"},
		{"/", []string{"Cookie", "__Host-portal=s2"}, "||||:|"},
		{"/", []string{"Cookie", "a=1", "X-Remote-User", "root", "X_Remote_User", "root", "X-Remote-Groups", "admin"}, "||||:|a=1"},
		{"/", []string{"Cookie", "__Host-portal=s1", "Cookie", "c=3"}, toWeb + ":|c=3"},
		{"/basic", []string{"Cookie", session}, "||||ann:app-1|a=1; b=2"},
		{"/basic", []string{"Cookie", session, "Authorization", "Basic Ym9iOnNlY3JldA=="}, "||||bob:secret|a=1; b=2"},
		{"/basic", nil, "||||:|"},
		{"/none", []string{"Cookie", session}, "||||:|a=1; b=2"},
		{"/none", []string{"Cookie", "PORTAL=x; __secure-Portal-csrf=y;portal-lang=de; portals=1"}, "||||:|portals=1"},
	} {
		if _, body, _ := get(t, addr, c.path, c.headers...); body != c.want {
			t.Errorf("%s %q: %q, want %q", c.path, c.headers, body, c.want)
		}
	}
	if _, body, _ := get(t, addr, "/portal/", "Cookie", session); body != session {
		t.Errorf("the portal gets the cookies %q", body)
	}
}

// TestModulesCannotSetThePortalsCookies, nor make the gateway follow a redirect with somebody's password.
func TestModulesCannotSetThePortalsCookies(t *testing.T) {
	var elsewhere atomic.Int64
	other := module(t, func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) })
	m := &members{}
	m.known.Store("s1", ann)
	target := module(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Set-Cookie"] = []string{"a=1", "__Host-portal=evil; Path=/", " portal=evil", "__HOST-PORTAL=x"}
		http.Redirect(w, r, other, http.StatusFound)
	})
	addr, _ := serve(t, gateway.Config{Portal: portalAt(t, m.ServeHTTP), Routes: []gateway.Route{
		{Path: "/", Target: target, Ready: true, Module: "calendar", SSO: "basic"}}}, DefaultLimits())
	status, _, h := get(t, addr, "/", "Cookie", "__Host-portal=s1")
	if got := strings.Join(h.Values("Set-Cookie"), "|"); got != "a=1" || status != http.StatusFound || elsewhere.Load() != 0 {
		t.Errorf("%d, cookies %q, %d requests elsewhere", status, got, elsewhere.Load())
	}
}

func TestAnswersAreKeptForAShortTime(t *testing.T) {
	m := &members{}
	m.known.Store("s1", ann)
	addr, g := serve(t, gateway.Config{Portal: portalAt(t, m.ServeHTTP), Routes: []gateway.Route{
		{Path: "/", Target: module(t, told), Ready: true, Module: "web", SSO: "header"}}}, DefaultLimits())
	var ahead atomic.Int64
	g.registry.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	ask := func(want string) {
		t.Helper()
		if _, body, _ := get(t, addr, "/", "Cookie", "__Host-portal=s1"); !strings.HasPrefix(body, want+"|") {
			t.Errorf("%q, want %q", body, want)
		}
	}
	ask("ann")
	ask("ann")
	if n := m.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	m.known.Delete("s1") // she is deactivated
	ahead.Store(int64(9 * time.Second))
	ask("ann")
	ahead.Store(int64(10*time.Second + time.Millisecond))
	ask("")

	m.known.Store("s1", ann)
	ask("")
	get(t, addr, "/portal/")
	ask("")                        // that was no login
	get(t, addr, "/portal/logout") // whoever logs in or out is known at once
	ask("ann")
}

// TestOneQuestionAtATime: a page's many parts make one question.
func TestOneQuestionAtATime(t *testing.T) {
	m := &members{hold: make(chan struct{})}
	m.known.Store("s1", ann)
	addr, _ := serve(t, gateway.Config{Portal: portalAt(t, m.ServeHTTP), Routes: []gateway.Route{
		{Path: "/", Target: module(t, told), Ready: true, Module: "web", SSO: "header"}}}, DefaultLimits())
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if _, body, _ := get(t, addr, "/", "Cookie", "__Host-portal=s1"); !strings.HasPrefix(body, "ann|") {
				t.Errorf("%q", body)
			}
		})
	}
	close(m.hold)
	group.Wait()
	if n := m.asked.Load(); n > 20/2 {
		t.Errorf("asked %d times", n)
	}
}

// TestPortalIsAway: public pages stay, without anybody's name.
func TestPortalIsAway(t *testing.T) {
	for name, portal := range map[string]string{
		"not there": "unix:" + t.TempDir() + "/none.sock",
		"broken":    portalAt(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusInternalServerError) }),
		"confused":  portalAt(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ann") }),
	} {
		t.Run(name, func(t *testing.T) {
			addr, _ := serve(t, gateway.Config{Portal: portal, Routes: []gateway.Route{
				{Path: "/", Target: module(t, told), Ready: true, Module: "web", SSO: "header"}}}, DefaultLimits())
			if status, body, _ := get(t, addr, "/", "Cookie", "__Host-portal=s1"); status != http.StatusOK || body != "||||:|" {
				t.Errorf("%d %q", status, body)
			}
		})
	}
}

func TestAnswersAreBounded(t *testing.T) {
	g := newRegistry(nil)
	for i := range whoisMost * 2 {
		g.keep([32]byte{byte(i), byte(i >> 8), byte(i >> 16)}, answer{until: g.now().Add(time.Minute)})
	}
	if len(g.answers) > whoisMost {
		t.Errorf("%d answers", len(g.answers))
	}
}

func FuzzCookies(f *testing.F) {
	f.Add("a=1; __Host-portal=s; b")
	f.Add("portal; =portal; \"portal=x\"; PORTAL = y")
	f.Fuzz(func(t *testing.T, line string) {
		r := &http.Request{Header: http.Header{"Cookie": {line}}}
		hideCookies(r.Header)
		for _, c := range r.Cookies() {
			if ours(c.Name) {
				t.Errorf("%q leaves %q", line, r.Header.Get("Cookie"))
			}
		}
	})
}
