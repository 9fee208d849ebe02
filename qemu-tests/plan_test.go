package qemutests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"allotment/builder/profile"
	"allotment/image"
	"allotment/init/plan"
)

// manifestOf is what the device knows of a profile's modules.
func manifestOf(t *testing.T, path string) *image.Manifest {
	t.Helper()
	p, err := profile.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	m := &image.Manifest{Organisation: p.Organisation, Settings: p.Settings}
	for _, spec := range p.Modules {
		spec.Layers = []image.Digest{"sha256:" + image.Digest(strings.Repeat("0", 64))}
		m.Modules = append(m.Modules, spec.Module)
	}
	return m
}

// planOf plans the modules of a profile as the device would.
func planOf(t *testing.T, path string) (*plan.Plan, error) {
	t.Helper()
	return plan.New(manifestOf(t, path))
}

// TestWhatIsBuiltCanBePlanned plans the profiles that we ship: the builder must take nothing that the device refuses.
func TestWhatIsBuiltCanBePlanned(t *testing.T) {
	profiles, err := filepath.Glob("../profiles/*.toml")
	if err != nil || len(profiles) == 0 {
		t.Fatalf("no profiles: %v", err)
	}
	for _, path := range profiles {
		if _, err := planOf(t, path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// everything is the path of a profile with a module that uses every key, in a source folder of the test's own.
func everything(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"source", "everything"} {
		files, err := txtar.ParseFile("../builder/profile/testdata/good/" + name + ".txtar")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files.Files {
			path := filepath.Join(dir, f.Name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, f.Data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return filepath.Join(dir, "profiles", "club.toml")
}

// TestEveryKeyCanBePlanned plans modules that use every key, with all their tasks.
func TestEveryKeyCanBePlanned(t *testing.T) {
	p, err := planOf(t, everything(t))
	if err != nil {
		t.Fatal(err)
	}
	m := p.Module("everything")
	var order []string
	for _, s := range p.Services() {
		order = append(order, s.ID)
	}
	const want = "directory.slapd everything.database everything.search everything.names web.nginx everything.app web.feeder"
	if got := strings.Join(order, " "); got != want {
		t.Errorf("order is %s", got)
	}
	for name, task := range map[string]*image.Task{
		"journey-post-3": m.Declared.Journeys[0].Steps[2].Task, "repair-index": &m.Declared.Repairs[0].Task,
		"backup-restore-test": m.Declared.Backup.RestoreTest,
	} {
		if s, err := plan.Task(m, name, task); err != nil || s.UID != 1300 {
			t.Errorf("task %s: %+v, %v", name, s, err)
		}
	}
}
