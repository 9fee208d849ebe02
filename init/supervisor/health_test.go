package supervisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"allotment/api"
	"allotment/image"
	"allotment/init/state"
)

// roomy is a disk with room.
var roomy = state.Disk{Total: 1000 << 20, Free: 500 << 20, Volumes: state.Usage{Used: 300 << 20, Limit: 700 << 20}}

// fakeDisk is a state partition that knows nothing but how full it is.
type fakeDisk struct {
	openState
	disk state.Disk
}

func (f fakeDisk) Disk() (state.Disk, error) { return f.disk, nil }

// The disk is full when modules can write no more, whatever is kept back for the system.
func TestDiskLamp(t *testing.T) {
	for _, c := range []struct {
		name       string
		free, used int64 // MiB
		level      api.Level
		text       string
	}{
		{"roomy", 500, 300, api.Good, "500 of 1000 MiB are free, 400 for modules"},
		{"volumes nearly full", 300, 650, api.Fair, "300 of 1000 MiB are free, 50 for modules"},
		{"volumes full", 250, 701, api.Bad, "250 of 1000 MiB are free, 0 for modules"},
		{"filled by something else", 20, 300, api.Bad, "20 of 1000 MiB are free, 20 for modules"},
	} {
		d := roomy
		d.Free, d.Volumes.Used = c.free<<20, c.used<<20
		s := &Supervisor{state: fakeDisk{disk: d}}
		if l := s.diskLamp(); l.Level != c.level || l.Text != c.text {
			t.Errorf("%s: %+v", c.name, l)
		}
	}
}

// A certificate that was renewed reaches the services of its module, and no others; one that was not disturbs nobody.
func TestRenewedCertificate(t *testing.T) {
	dir := t.TempDir()
	b := newDeclared(t, dir, &image.Manifest{Modules: []image.Module{
		{Name: "chat", Services: []image.Service{trueService("prosody")},
			Secrets: []image.Secret{{Name: "tls", Kind: "certificate", User: "root"}}},
		{Name: "web", Services: []image.Service{trueService("php")}},
	}}, nil)
	b.awaitState(t, "chat.prosody", ready)
	b.awaitState(t, "web.php", ready)
	shown := filepath.Join(dir, "run/secrets/chat/tls.crt")
	before, err := os.ReadFile(shown)
	if err != nil {
		t.Fatal(err)
	}
	b.renewFiles(t.Context())
	if d := b.diary.String(); strings.Contains(d, "-chat") {
		t.Errorf("without a reason: %s", d)
	}
	if err := os.Remove(filepath.Join(dir, "state/secrets/chat/tls.pem")); err != nil { // as if it were old
		t.Fatal(err)
	}
	b.renewFiles(t.Context())
	b.awaitState(t, "chat.prosody", ready)
	if after, err := os.ReadFile(shown); err != nil || string(after) == string(before) {
		t.Errorf("the certificate is as before; error %v", err)
	}
	if d := b.diary.String(); strings.Count(d, "+chat.prosody") != 2 || strings.Contains(d, "-web") {
		t.Errorf("what was restarted: %s", d)
	}
}
