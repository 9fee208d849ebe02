package qemutests

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/api"
	"allotment/builder"
	"allotment/builder/profile"
	"allotment/image"
	"allotment/image/disk"
	"allotment/qemu-tests/vm"
	"allotment/updater/attempt"
)

// failure is a release that must not stay, or what happens to the machine while it is tried.
type failure struct {
	name   string
	change func(*profile.Profile)
	source func(t *testing.T, dir string) // changes a copy of the source code; nil: the release is built from our own
	armed  func(t *testing.T, c *club)    // done when the box has said that it restarts to try the release
	hangs  bool                           // nothing resets the machine: its host does, as often as the release is tried
	check  string                         // what the history says that failed
	module string                         // and of which module
}

// TestUpdateFailures has one box try releases that fail in every way that we know of, from the kernel to what members do.
// After each the old version runs with all data, says why, and does not try it again.
func TestUpdateFailures(t *testing.T) {
	full(t)
	p := newPublisher(t, image.AMD64, "directory", "calendar")
	c := p.install(t, vm.Options{Arch: image.AMD64, Firmware: vm.BIOS, DiskSize: 3584 << 20, // small enough to be filled
		Limit: vm.Patience(3 * time.Hour)})
	defer showLogs(t, c.VM)
	again := fillClub(t, c)
	t.Run("server in trouble", func(t *testing.T) { testTroubledServer(t, p, c) })
	t.Run("little room", func(t *testing.T) { testLittleRoom(t, p, c) })
	t.Run("wrong clock", func(t *testing.T) { testWrongClock(t, p, c) })
	t.Run("two releases", func(t *testing.T) { testTwoReleases(t, p, c) })
	for i, f := range failures(t, p) {
		t.Run(f.name, func(t *testing.T) {
			c.mustSurvive(t, p, image.Version(fmt.Sprintf("2026.11.%d", 20+i)), f)
			again(t)
		})
	}
}

func failures(t *testing.T, p *publisher) []failure {
	return []failure{
		{name: "kernel panics", change: withArguments("rdinit=/nowhere"), check: attempt.CheckStart},
		{name: "kernel hangs", change: withArguments("earlyprintk=ttyS0,115200 ignore_loglevel boot_delay=10000"), hangs: true,
			check: attempt.CheckStart},
		{name: "root is damaged", armed: func(t *testing.T, c *club) { c.spoilRoot(t, p) }, check: attempt.CheckStart},
		{name: "init panics", source: withPanic, check: attempt.CheckStart},
		{name: "journey fails", change: withBrokenJourney, check: attempt.CheckJourney, module: "calendar"},
		{name: "migration never ends", change: withEndlessMigration, check: attempt.CheckMigration, module: "calendar"},
		{name: "supervisor loops", source: withLoop, check: attempt.CheckStart},
	}
}

// mustSurvive publishes a release that fails and lets the box try it.
func (c *club) mustSurvive(t *testing.T, p *publisher, v image.Version, f failure) {
	t.Helper()
	if f.source != nil {
		dir := copySource(t)
		f.source(t, dir)
		p.source = builder.Source(dir)
		defer func() { p.source = "" }()
	}
	p.publish(t, v, f.change)
	from := len(c.Events())
	if err := c.API().UpdateNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.mustSay(t, &from, updateArmed)
	begun := time.Now()
	if f.armed != nil {
		f.armed(t, c)
	}
	for range attempt.MaxStarts {
		if f.hangs {
			c.await(t, &from, `ignoring loglevel setting`) // the first line that this kernel says here
			if err := c.Reset(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	line := c.await(t, &from, `BOOT-OK .*trial=no`) // a release whose modules all start says trial=yes before it fails
	if want := fmt.Sprintf("version=%s trial=no", firstVersion); !strings.Contains(line, want) {
		t.Fatalf("the box said %q, want %s", line, want)
	}
	t.Logf("the old version ran again %v after the restart", time.Since(begun).Round(time.Second))
	last := c.lastAttempt(t)
	if last.Stays || last.To != v || last.From != firstVersion || last.Check != f.check || last.Module != f.module {
		t.Errorf("the history says %+v, want check %q of %q", last, f.check, f.module)
	}
	if !strings.Contains(last.Letter, string(v)) {
		t.Errorf("the letter does not name version %s", v)
	}
	if _, err := c.Get(t.Context(), 80, "/.well-known/allotment/health"); err != nil { // the outside is let in
		t.Fatal(err)
	}
	c.ask(t, p, c.API().UpdateNow)
	if u := c.awaitUpdate(t, "idle", "waiting", "failed", "restarting"); u.State != "idle" || !strings.Contains(u.Text, "not tried again") {
		t.Errorf("the box says %+v", u)
	}
}

// await waits for a line of the console after the event number from, whatever comes before it.
func (c *club) await(t *testing.T, from *int, what string) string {
	t.Helper()
	pattern := regexp.MustCompile(what)
	e, next, err := c.Wait(t.Context(), *from, func(e vm.Event) bool { return e.Kind == vm.Line && pattern.MatchString(e.Text) })
	if err != nil {
		t.Fatalf("waiting for %s: %v", what, err)
	}
	*from = next
	return e.Text
}

// awaitUpdate waits until the updater is in one of some states.
func (c *club) awaitUpdate(t *testing.T, states ...string) api.Update {
	t.Helper()
	for {
		u, err := c.API().Update(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(states, u.State) {
			t.Logf("the box says: %s %s", u.Text, u.Reason)
			return u
		}
		time.Sleep(200 * time.Millisecond) // until the daemon has made up its mind
	}
}

// withArguments gives the kernel further arguments.
func withArguments(more string) func(*profile.Profile) {
	return func(p *profile.Profile) { p.Kernel.CommandLine = more }
}

// withBrokenJourney is a release in which members do not find what they have entered.
func withBrokenJourney(p *profile.Profile) {
	m := calendarOf(p)
	m.Journeys = slices.Clone(m.Journeys)
	j := &m.Journeys[0]
	j.Steps = slices.Clone(j.Steps)
	for i := range j.Steps {
		if h := j.Steps[i].HTTP; h != nil && h.Contains != "" {
			other := *h
			other.Contains = "what no calendar holds"
			j.Steps[i].HTTP = &other
		}
	}
}

// withEndlessMigration is a release that destroys the calendars and then never comes to an end.
func withEndlessMigration(p *profile.Profile) {
	migrateTo(calendarOf(p), 1, `import shutil, time
shutil.rmtree("/var/lib/radicale/collection-root", ignore_errors=True)
while True: time.sleep(1000)`)
}

// withPanic is the source of an init that panics on the root, as PID 1.
func withPanic(t *testing.T, dir string) {
	change(t, filepath.Join(dir, "cmd/allot-init/main.go"), "\tdefault:\n", "\tdefault:\n\t\tpanic(\"this release is broken\")\n")
}

// withLoop is the source of a supervisor that ends as soon as it starts.
func withLoop(t *testing.T, dir string) {
	change(t, filepath.Join(dir, "cmd/allot-supervisor/main.go"), "\tdebug.SetMemoryLimit(memoryLimit)\n", "\tos.Exit(1)\n")
}

// spoilRoot changes the first block of the other slot's root on the disk of the machine, which runs. The changes go the way
// of the machine's own, so that no cache knows better.
func (c *club) spoilRoot(t *testing.T, p *publisher) {
	t.Helper()
	path := p.build(t, firstVersion, nil)
	f, err := disk.Open(t.Context(), toolRoot(t).With(filepath.Dir(path)), path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	parts, err := disk.ReadGPT(f, f.Size)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(parts, func(p disk.Partition) bool { return p.Name == "root-b" })
	said, err := c.Execute(t.Context(), "query-block", nil)
	if err != nil {
		t.Fatal(err)
	}
	var drives []struct {
		QDev     string `json:"qdev"`
		Inserted struct {
			Node string `json:"node-name"`
		} `json:"inserted"`
	}
	if err := json.Unmarshal(said, &drives); err != nil {
		t.Fatal(err)
	}
	for _, d := range drives {
		if d.Inserted.Node != "overlay" {
			continue
		}
		const superblock = 1024 // EROFS: fs/erofs/erofs_fs.h
		line := fmt.Sprintf(`qemu-io -d %s "write -P 0xa5 %d 512"`, d.QDev, parts[i].Start+superblock)
		said, err := c.Execute(t.Context(), "human-monitor-command", map[string]string{"command-line": line})
		if err != nil || strings.Contains(string(said), "rror") {
			t.Fatalf("%s: %s, %v", line, said, err)
		}
		return
	}
	t.Fatalf("no drive has the overlay: %s", said)
}
