package qemutests

import (
	"slices"
	"testing"
	"time"

	"allotment/image"
	"allotment/qemu-tests/vm"
)

// club is a box with all modules of the garden club that runs, and its members' passwords by their names.
type club struct {
	*vm.VM
	passwords map[string]string
}

// TestClub uses every module of the garden club from outside one box, as visitors, members and officers do, takes the
// power away, and looks whether everything is still there.
func TestClub(t *testing.T) {
	c := bootClub(t, image.AMD64, "directory", "web", "chat", "calendar")
	defer showLogs(t, c.VM)
	again := map[string]func(*testing.T){}
	modules := []struct {
		name string
		use  func(*testing.T, *club) func(*testing.T)
	}{
		{"directory", useDirectory}, {"calendar", useCalendar}, {"chat", useChat}, {"web", useWeb},
	}
	for _, m := range modules {
		t.Run(m.name, func(t *testing.T) { again[m.name] = m.use(t, c) })
	}
	if err := c.Reset(t.Context()); err != nil { // no time to write anything
		t.Fatal(err)
	}
	mustBeReadyAgain(t, c.VM)
	if _, err := c.Get(t.Context(), 80, "/"); err != nil { // until the gateway has heard of it
		t.Fatal(err)
	}
	for _, m := range modules {
		if again[m.name] != nil { // nil: it has failed before
			t.Run(m.name+" after a reset", again[m.name])
		}
	}
	report(t, c.VM, "directory", "calendar", "chat", "web")
}

// TestClubARM64 uses the modules that most of the others need, on the other architecture.
func TestClubARM64(t *testing.T) {
	full(t)
	c := bootClub(t, image.ARM64, "directory", "calendar")
	defer showLogs(t, c.VM)
	useDirectory(t, c)
	useCalendar(t, c)
	report(t, c.VM, "directory", "calendar")
}

// bootClub boots a developer image of the garden club with these modules and makes five members.
func bootClub(t *testing.T, arch image.Arch, modules ...string) *club {
	t.Helper()
	m := bootImage(t, clubImage(t, arch, modules), vm.Options{Arch: arch, Forward: []int{80, ldapPort, 5222},
		Limit: vm.Patience(25 * time.Minute)})
	return &club{m, accounts(t, m, 5)}
}

// report logs what modules use.
func report(t *testing.T, m *vm.VM, modules ...string) {
	t.Helper()
	r, err := m.API().Resources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range r.Modules {
		if slices.Contains(modules, x.Name) {
			t.Logf("%s: %d KiB of memory of its own, %d KiB at most", x.Name, x.Usage.Anonymous>>10, x.Usage.MemoryPeak>>10)
		}
	}
}
