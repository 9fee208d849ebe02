package qemutests

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"allotment/api"
	"allotment/image"
)

// testTroubledServer offers a good release from a server that fails in every way that we know of. The box goes on as it was
// while nothing can be had, and stages the release, whole, when the server gives it at last.
func testTroubledServer(t *testing.T, p *publisher, c *club) {
	c.deferUpdates(t)
	from := len(c.Events())
	down := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) })
	p.spoil.Store(&down)
	defer p.spoil.Store(nil)
	c.ask(t, p, c.API().CheckUpdate)
	if u := c.awaitUpdate(t, "failed"); u.Running != firstVersion || !strings.Contains(u.Reason, "500") {
		t.Errorf("the box says %+v", u)
	}
	p.publish(t, goodVersion, withNewFormat)
	troubled, faults := p.inTrouble()
	p.spoil.Store(&troubled)
	c.ask(t, p, c.API().CheckUpdate)
	if u := c.awaitUpdate(t, "ready"); u.Offered != goodVersion || u.Running != firstVersion {
		t.Errorf("the box says %+v", u)
	}
	if n := faults.Load(); n < troubles {
		t.Errorf("the box met %d troubles, want %d", n, troubles)
	}
	for _, e := range c.Events()[from:] {
		if updateArmed.MatchString(e.Text) {
			t.Error("a release was armed while restarts were deferred")
		}
	}
}

// troubles is how many requests for blobs inTrouble answers wrongly.
const troubles = 4

// inTrouble answers as the repository, but says 403 of what is not there, as object stores do, and fails at the first
// requests for blobs: it stalls, breaks off, has an error of its own, and gives wrong bytes.
func (p *publisher) inTrouble() (http.HandlerFunc, *atomic.Int32) {
	files := http.FileServer(http.Dir(p.repo))
	var blobs atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) {
		honest := httptest.NewRecorder()
		files.ServeHTTP(honest, r)
		body := honest.Body.Bytes()
		maps.Copy(w.Header(), honest.Header())
		if honest.Code == http.StatusNotFound {
			honest.Code = http.StatusForbidden
		}
		trouble := int32(0)
		if strings.HasPrefix(r.URL.Path, "/blobs/") {
			trouble = blobs.Add(1)
		}
		switch trouble {
		case 1:
			<-r.Context().Done()
			return
		case 2:
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			body = body[:len(body)/2]
		case 3:
			http.Error(w, "no", http.StatusInternalServerError)
			return
		case 4:
			for i := range body {
				body[i] ^= 0x55
			}
		}
		w.WriteHeader(honest.Code)
		w.Write(body)
	}, &blobs
}

// ask has the box ask the publisher, as officers do, and waits until it does: what it then says of itself is new.
func (c *club) ask(t *testing.T, p *publisher, how func(context.Context) error) {
	t.Helper()
	before := p.asked.Load()
	if err := how(t.Context()); err != nil {
		t.Fatal(err)
	}
	for p.asked.Load() == before {
		select {
		case <-c.Ended():
			t.Fatal("the machine has ended before it asked")
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// deferUpdates lets the box stage releases and not restart for them.
func (c *club) deferUpdates(t *testing.T) {
	t.Helper()
	later := time.Now().AddDate(0, 0, 7)
	if err := c.API().SetUpdatePolicy(t.Context(), api.UpdatePolicy{DeferUntil: &later}); err != nil {
		t.Fatal(err)
	}
}

// testTwoReleases publishes a second release while the box is fetching the first. What it took of the first serves nothing
// any more, and does no harm: the second is ready to be tried.
func testTwoReleases(t *testing.T, p *publisher, c *club) {
	c.deferUpdates(t)
	const first, second image.Version = "2026.11.11", "2026.11.12"
	newer := p.build(t, second, withNewFormat)
	p.publish(t, first, withNewFormat)
	files := http.FileServer(http.Dir(p.repo))
	begun, offered := make(chan struct{}), make(chan struct{})
	var begin sync.Once
	held := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/blobs/") {
			begin.Do(func() { close(begun) })
			<-offered
		}
		files.ServeHTTP(w, r)
	})
	p.spoil.Store(&held)
	defer p.spoil.Store(nil)
	c.ask(t, p, c.API().CheckUpdate)
	select {
	case <-begun:
	case <-c.Ended():
		t.Fatal("the machine has ended before it fetched anything")
	}
	p.offer(t, newer)
	close(offered)
	u := c.awaitUpdate(t, "ready", "failed")
	if u.Offered != second {
		c.ask(t, p, c.API().CheckUpdate)
		u = c.awaitUpdate(t, "ready")
	}
	if u.Offered != second || u.Running != firstVersion {
		t.Errorf("the box says %+v", u)
	}
}

// testWrongClock moves the box's clock to where no metadata hold any more, and to long before any were made, and has the
// updater begin there. Neither does harm: when the clock is right again, the release that was offered is ready to be tried.
func testWrongClock(t *testing.T, p *publisher, c *club) {
	c.deferUpdates(t)
	now := time.Now()
	for year, want := range map[int]string{2050: "expired", 1970: ""} {
		c.pause(t, true) // a clock that jumps ends what was deferred
		by := now.Sub(time.Date(year, 1, 2, 0, 0, 0, 0, time.UTC))
		if err := c.API().MoveClock(t.Context(), -by); err != nil {
			t.Fatal(err)
		}
		c.killUpdater(t)
		c.pause(t, false)
		c.ask(t, p, c.API().CheckUpdate)
		if u := c.awaitUpdate(t, "idle", "waiting", "failed", "ready"); !strings.Contains(u.Reason, want) || want != "" && u.State != "failed" {
			t.Errorf("in %d the box says %+v", year, u)
		}
		if err := c.API().MoveClock(t.Context(), by); err != nil {
			t.Fatal(err)
		}
	}
	c.ask(t, p, c.API().CheckUpdate)
	if u := c.awaitUpdate(t, "idle", "waiting", "failed", "ready"); u.State != "ready" || u.Offered != fullVersion || u.Running != firstVersion {
		t.Errorf("with the right clock again the box says %+v", u)
	}
}

// pause lets officers pause updates, or resume them.
func (c *club) pause(t *testing.T, paused bool) {
	t.Helper()
	if err := c.API().SetUpdatePolicy(t.Context(), api.UpdatePolicy{Paused: &paused}); err != nil {
		t.Fatal(err)
	}
}

// killUpdater ends the updater, which then begins anew and remembers nothing of what it was offered.
func (c *club) killUpdater(t *testing.T) {
	t.Helper()
	all, err := c.API().Processes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(p api.Process) bool { return strings.Contains(p.Command, "allot-updater") })
	if i < 0 {
		t.Fatalf("no updater runs: %+v", all)
	}
	if err := c.API().Signal(t.Context(), all[i].PID, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
}

// fullVersion is a release that finds no room at first.
const fullVersion image.Version = "2026.11.10"

// testLittleRoom fills the state partition as far as members can, and offers a release. It is staged whole or refused for
// want of room, and the old version goes on; when members have deleted what they do not need, it is staged.
func testLittleRoom(t *testing.T, p *publisher, c *club) {
	c.deferUpdates(t)
	c.python(t, `import os
def free(folder):
    v = os.statvfs(folder)
    return v.f_bavail * v.f_frsize >> 20
for folder in "/var/lib/radicale", "/var/cache/radicale":
    f = os.open(folder + "/filling", os.O_CREAT | os.O_WRONLY)
    size, step = 0, 256 << 20
    while step > 1 << 20:
        try:
            if free(folder) - (step >> 20) < 70:
                raise OSError
            os.posix_fallocate(f, size, step)
            size += step
        except OSError:
            step //= 2
    print(folder, size >> 20, "MiB, of which are left", free(folder))`)
	p.publish(t, fullVersion, withNewFormat)
	c.ask(t, p, c.API().CheckUpdate)
	u := c.awaitUpdate(t, "idle", "failed", "ready")
	if u.Running != firstVersion || u.State == "idle" || u.State == "failed" && !strings.Contains(u.Reason, "room") {
		t.Errorf("the box says %+v", u)
	}
	c.python(t, `import os
os.remove("/var/lib/radicale/filling"); os.remove("/var/cache/radicale/filling")`)
}

// python runs a program in the calendar's container.
func (c *club) python(t *testing.T, program string) {
	t.Helper()
	for o, err := range c.API().Run(t.Context(), "calendar", "radicale", "/usr/bin/python3", "-IBc", program) {
		if err != nil || o.Exit != nil && *o.Exit != 0 {
			t.Fatalf("%+v, %v", o, err)
		}
		if o.Text != "" {
			t.Log(strings.TrimSpace(o.Text))
		}
	}
}
