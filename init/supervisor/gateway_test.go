package supervisor

import (
	"os"
	"path/filepath"
	"slices"
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

// The domain's names, and how to reach who certifies them; the twins need nothing of the kind.
func TestNamesOfAuthority(t *testing.T) {
	for domain, want := range map[string]string{"club.org": "www.club.org", "www.club.org": "", "allotment.internal": "", "": ""} {
		if got := wwwHost(domain); got != want {
			t.Errorf("%q has the name %q", domain, got)
		}
	}
	for directory, want := range map[string]struct {
		ports  []uint16
		issuer string
	}{
		"https://acme-v02.api.letsencrypt.org/directory": {nil, "letsencrypt.org"},
		"https://letsencrypt.org.example/directory":      {nil, ""},
		"https://ca.school.lan:9000/acme/directory":      {[]uint16{9000}, ""},
		"https://[fd00::1]:443/directory":                {nil, ""},
		"":                                               {nil, ""},
	} {
		if got := authorityPorts(directory); !slices.Equal(got, want.ports) || issuerName(directory) != want.issuer {
			t.Errorf("%q: ports %v, name %q", directory, got, issuerName(directory))
		}
	}
}
