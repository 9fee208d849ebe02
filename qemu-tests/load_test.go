package qemutests

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"allotment/api"
)

// testLoad drives one service to its limits, and looks that no other one suffers.
func (p probes) testLoad(t *testing.T) {
	before := map[string]string{}
	for _, module := range []string{"probe", "victim", "friend"} {
		before[module] = p.life(t, module)
	}
	t.Run("processes", p.testForkBomb)
	t.Run("memory", p.testFullMemory)
	t.Run("disk", p.testFullDisk)
	for module, life := range before {
		if now := p.life(t, module); now != life {
			t.Errorf("the first service of %s was started again", module)
		}
	}
}

// life is a number that tells one life of a module's first service from the next.
func (p probes) life(t *testing.T, module string) string {
	t.Helper()
	resp, err := http.Get("http://" + p.m.Address(80) + "/" + module)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s answers %s, %v", module, resp.Status, err)
	}
	return string(b)
}

// howMany finds the number in what an attempt said before it failed.
var howMany = regexp.MustCompile(`after (\d+) `)

func countIn(t *testing.T, a answer) int {
	t.Helper()
	m := howMany.FindStringSubmatch(a.Text)
	if m == nil {
		t.Fatalf("there is no number in %+v", a)
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

func (p probes) testForkBomb(t *testing.T) {
	a := p.ask(t, "probe", order{What: "fork-bomb", On: hog})
	if n := countIn(t, a); a.Errno != "EAGAIN" || n >= 128 {
		t.Errorf("%d processes, then %s: want less than the module's 128", n, a.Text)
	}
	// The twin: a module that may have 256.
	a = p.ask(t, "friend", order{What: "fork-bomb"})
	if n := countIn(t, a); a.Errno != "EAGAIN" || n <= 128 || n >= 256 {
		t.Errorf("%d processes, then %s: want less than the module's 256, but more than 128", n, a.Text)
	}
}

func (p probes) testFullMemory(t *testing.T) {
	p.mustWork(t, "probe", order{What: "fill-memory", Args: []string{"20"}, On: hog})
	life := p.process(t, "probe", "hog")
	a := p.ask(t, "probe", order{What: "fill-memory", Args: []string{"100"}, On: hog})
	if a.Errno != "GONE" {
		t.Fatalf("a service with 64 MiB took 100: %+v", a)
	}
	p.awaitEvent(t, 0, func(e api.Event) bool {
		return e.Module == "probe" && strings.Contains(e.Text, "needed more than its 64 MiB")
	})
	p.awaitService(t, "probe", "hog", func(s api.Service) bool { return s.State == "ready" && s.PID != life })
	p.mustWork(t, "probe", order{What: "fill-memory", Args: []string{"20"}, On: hog})
}

func (p probes) testFullDisk(t *testing.T) {
	a := p.ask(t, "probe", order{What: "fill-disk", Args: []string{"/data", "64", "keep"}})
	if n := countIn(t, a); a.Errno != "EDQUOT" || n > 16 {
		t.Errorf("%d MiB, then %s: want the volume's quota of 16", n, a.Text)
	}
	p.mustWork(t, "friend", order{What: "fill-disk", Args: []string{"/data", "8"}})
	p.mustWork(t, "probe", order{What: "remove", Args: []string{"/data/filler"}})
	p.mustWork(t, "probe", order{What: "fill-disk", Args: []string{"/data", "4"}})
	a = p.ask(t, "probe", order{What: "fill-disk", Args: []string{"/tmp", "100"}})
	if n := countIn(t, a); a.Errno != "ENOSPC" || n > 64 {
		t.Errorf("%d MiB in memory, then %s: want no more than 64", n, a.Text)
	}
}

// process is the number of a service's first process.
func (p probes) process(t *testing.T, module, service string) int {
	t.Helper()
	return p.awaitService(t, module, service, func(s api.Service) bool { return s.PID != 0 }).PID
}

// awaitService asks until a service is as it should be.
func (p probes) awaitService(t *testing.T, module, service string, fits func(api.Service) bool) api.Service {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	last := "it has no such service"
	for {
		m, err := p.m.API().Module(ctx, module)
		for _, s := range m.Services {
			if err == nil && s.Name == service {
				if fits(s) {
					return s
				}
				last = fmt.Sprintf("%+v", s)
			}
		}
		if err != nil && ctx.Err() == nil {
			last = err.Error()
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s.%s does not become as it should: %s", module, service, last)
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// awaitEvent waits for an event with a greater number than after.
func (p probes) awaitEvent(t *testing.T, after uint64, fits func(api.Event) bool) api.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	var all []string
	for e, err := range p.m.API().Events(ctx, api.EventQuery{After: after, Follow: true}) {
		if err != nil {
			t.Fatalf("the event does not come: %v; those that came:\n%s", err, strings.Join(all, "\n"))
		}
		if fits(e) {
			return e
		}
		all = append(all, e.Text)
	}
	t.Fatalf("the event does not come; those that came:\n%s", strings.Join(all, "\n"))
	return api.Event{}
}
