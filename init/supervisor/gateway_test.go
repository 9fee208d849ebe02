package supervisor

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"allotment/image"
	"allotment/init/plan"
)

// A supervisor that takes over leaves the gateway's routes alone until it knows how the services are; but not for ever.
func TestTakingOverKeepsRoutes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	told := func() bool { _, err := os.Stat(path); return err == nil }
	p := &plan.Module{Name: "web", Declared: &image.Module{Name: "web"}}
	service := &unit{name: "web.page", module: &module{plan: p, on: true}, machine: machine{state: checking}}
	s := &Supervisor{
		learns: true, began: time.Now(), state: openState{}, units: []*unit{service},
		gateway: &unit{name: "gateway", job: &daemon{config: path}},
	}
	s.configureDaemons()
	if told() {
		t.Fatal("the gateway was told before the service had answered")
	}
	s.began = time.Now().Add(-2 * learnTime)
	s.configureDaemons()
	if !told() {
		t.Error("one service that never answers keeps the gateway from being told")
	}

	os.Remove(path)
	s.gateway.job = &daemon{config: path}
	s.learns, s.began, service.machine.state = true, time.Now(), ready
	if s.configureDaemons(); !told() {
		t.Error("the gateway is not told although every service has answered")
	}
}
