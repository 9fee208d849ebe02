package qemutests

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"allotment/api"
	"allotment/builder/profile"
	"allotment/image"
	"allotment/qemu-tests/vm"
)

// The three releases of the updates' tests: what a box is installed from, a good one, and one that fails its trial.
const (
	firstVersion  image.Version = "2026.11.1"
	goodVersion   image.Version = "2026.11.2"
	brokenVersion image.Version = "2026.11.3"
)

var (
	updateArmed   = regexp.MustCompile(`UPDATE-ARMED `)
	updateOutcome = regexp.MustCompile(`UPDATE-(OK|UNDONE|STRANDED) `)
)

// TestUpdate has a box take one release that works and one that does not, by UEFI, with members' data in it.
func TestUpdate(t *testing.T) {
	testUpdates(t, vm.Options{Arch: image.AMD64, Firmware: vm.UEFI}, "directory", "calendar")
}

// TestDemoUpdate does the same with all modules of the garden club, by UEFI and by BIOS, and with fewer on the other
// architecture. It is what make demo-update shows.
func TestDemoUpdate(t *testing.T) {
	full(t)
	t.Run("uefi", func(t *testing.T) {
		testUpdates(t, vm.Options{Arch: image.AMD64, Firmware: vm.UEFI}, "directory", "web", "chat", "calendar")
	})
	t.Run("bios", func(t *testing.T) {
		testUpdates(t, vm.Options{Arch: image.AMD64, Firmware: vm.BIOS}, "directory", "web", "chat", "calendar")
	})
	t.Run("arm64", func(t *testing.T) {
		testUpdates(t, vm.Options{Arch: image.ARM64, Firmware: vm.UEFI}, "directory", "calendar")
	})
}

func testUpdates(t *testing.T, o vm.Options, modules ...string) {
	p := newPublisher(t, o.Arch, modules...)
	c := p.install(t, o)
	defer showLogs(t, c.VM)
	again := fillClub(t, c)

	p.publish(t, goodVersion, withNewFormat)
	c.mustUpdate(t, "UPDATE-OK version="+string(goodVersion), goodVersion)
	again(t)
	last := c.lastAttempt(t)
	if !last.Stays || last.To != goodVersion || last.From != firstVersion {
		t.Errorf("the history says %+v", last)
	}
	c.mustHaveMigrated(t, true)

	phone := c.openCalendar(t, "user02")
	if err := phone.AddEvents(t.Context(), 7); err != nil { // what an undone update must not lose either
		t.Fatal(err)
	}
	p.publish(t, brokenVersion, withBrokenCalendar)
	c.mustUpdate(t, "UPDATE-UNDONE check=", goodVersion)
	again(t)
	mustHave(t, c.openCalendar(t, "user02"), 7, 0)
	last = c.lastAttempt(t)
	if last.Stays || last.To != brokenVersion || last.Module != "calendar" {
		t.Errorf("the history says %+v", last)
	}
	c.mustHaveMigrated(t, true)
	c.mustNotTryAgain(t, p)
	if os.Getenv("ALLOT_FULL") != "" {
		c.logDowntime(t)
	}
}

// install boots the first release of a publisher's and makes members.
func (p *publisher) install(t *testing.T, o vm.Options) *club {
	t.Helper()
	path := p.build(t, firstVersion, nil)
	p.offer(t, path) // so that there are deltas from it
	o.Forward, o.Limit = []int{80, ldapPort, 5222}, cmp.Or(o.Limit, vm.Patience(45*time.Minute))
	m := bootImage(t, path, o)
	return &club{m, accounts(t, m, 5)}
}

// fillClub has members write into the modules that the box has, and returns what looks whether it is still there. That
// members can log in shows that the directory has kept them.
func fillClub(t *testing.T, c *club) (again func(*testing.T)) {
	t.Helper()
	modules, err := c.API().Modules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	has := func(name string) bool {
		return slices.ContainsFunc(modules, func(m api.Module) bool { return m.Name == name })
	}
	const events, cards = 12, 5
	phone := c.openCalendar(t, "user01")
	if err := errors.Join(phone.AddEvents(t.Context(), events), phone.AddCards(t.Context(), cards)); err != nil {
		t.Fatal(err)
	}
	tag := mustAnswer(t, phone, phone.Event(0), http.StatusOK)
	looks := []func(*testing.T){func(t *testing.T) {
		t.Helper()
		phone := c.openCalendar(t, "user01")
		mustHave(t, phone, events, cards)
		if now := mustAnswer(t, phone, phone.Event(0), http.StatusOK); now != tag {
			t.Errorf("the tag of an event was %s and is %s", tag, now)
		}
	}}
	if has("web") {
		looks = append(looks, useWeb(t, c))
	}
	if has("chat") {
		looks = append(looks, useChat(t, c))
	}
	return func(t *testing.T) {
		t.Helper()
		for _, look := range looks {
			look(t)
		}
	}
}

// mustUpdate asks for what the publisher offers, wants an outcome, and that the box then runs a version as usual.
func (c *club) mustUpdate(t *testing.T, outcome string, running image.Version) {
	t.Helper()
	from := len(c.Events())
	begun := time.Now()
	if err := c.API().UpdateNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.mustSay(t, &from, updateArmed)
	armed := time.Now()
	line := c.mustSay(t, &from, updateOutcome)
	if ok, _ := regexp.MatchString("^"+regexp.QuoteMeta(outcome), line); !ok {
		t.Fatalf("the box said %q, want %q", line, outcome)
	}
	if outcome == "UPDATE-UNDONE check=" {
		line = c.mustSay(t, &from, anyOutcome)
		if ok, _ := regexp.MatchString(fmt.Sprintf("BOOT-OK .*version=%s trial=no", running), line); !ok {
			t.Fatalf("after the undo the box said %q", line)
		}
	}
	t.Logf("%s: armed after %v, over %v later", outcome, armed.Sub(begun).Round(time.Second), time.Since(armed).Round(time.Second))
	info, err := c.API().Info(t.Context())
	if err != nil || info.Version != running || info.Trial {
		t.Fatalf("the box runs %+v, %v", info, err)
	}
	if _, err := c.Get(t.Context(), 80, "/.well-known/allotment/health"); err != nil { // the outside is let in
		t.Fatal(err)
	}
}

// mustSay waits for a line of the console after the event number from.
func (c *club) mustSay(t *testing.T, from *int, what *regexp.Regexp) string {
	t.Helper()
	bad := regexp.MustCompile(`BOOT-FAIL |Kernel panic`)
	e, next, err := c.Wait(t.Context(), *from, func(e vm.Event) bool {
		return e.Kind == vm.Line && (what.MatchString(e.Text) || bad.MatchString(e.Text))
	})
	if err != nil {
		t.Fatalf("waiting for %v: %v", what, err)
	}
	*from = next
	if !what.MatchString(e.Text) {
		t.Fatalf("waiting for %v: %s", what, e.Text)
	}
	return e.Text
}

// lastAttempt is the newest in the history; its letter is shown.
func (c *club) lastAttempt(t *testing.T) api.UpdateAttempt {
	t.Helper()
	all, err := c.API().UpdateHistory(t.Context())
	if err != nil || len(all) == 0 {
		t.Fatalf("the history has %d attempts, %v", len(all), err)
	}
	t.Logf("letter: %s\n\n%s", all[0].Subject, all[0].Letter)
	return all[0]
}

// mustHaveMigrated wants the calendar's data to have been worked on by the good release's migration, and by no other.
func (c *club) mustHaveMigrated(t *testing.T, want bool) {
	t.Helper()
	r, err := c.API().Resources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	format := 0
	for _, m := range r.Modules {
		for _, v := range m.Volumes {
			if m.Name == "calendar" && v.Name == "collections" {
				format = v.Format
			}
		}
	}
	if (format == 1) != want || format > 1 {
		t.Errorf("the calendar's volume has format %d", format)
	}
}

// mustNotTryAgain wants the box to leave a release alone that has failed.
func (c *club) mustNotTryAgain(t *testing.T, p *publisher) {
	t.Helper()
	from := len(c.Events())
	c.ask(t, p, c.API().UpdateNow)
	for {
		u, err := c.API().Update(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if u.State == "idle" || u.State == "waiting" || u.State == "failed" {
			t.Logf("the box says: %s %s", u.Text, u.Reason)
			break
		}
		time.Sleep(200 * time.Millisecond) // until the daemon has made up its mind
	}
	if slices.ContainsFunc(c.Events()[from:], func(e vm.Event) bool { return updateArmed.MatchString(e.Text) }) {
		t.Error("a release that had failed is tried again")
	}
}

// calendarOf is the calendar of a profile.
func calendarOf(p *profile.Profile) *profile.ModuleSpec {
	i := slices.IndexFunc(p.Modules, func(m *profile.ModuleSpec) bool { return m.Name == "calendar" })
	return p.Modules[i]
}

// migrateTo lets the calendar's data come to a format by a few lines of Python.
func migrateTo(m *profile.ModuleSpec, format int, program string) {
	for i := range m.Volumes {
		if m.Volumes[i].Name == "collections" {
			m.Volumes[i].Format = format
		}
	}
	m.Migrations = append(m.Migrations, image.Migration{Volume: "collections", Format: format,
		Task: image.Task{Command: []string{"/usr/bin/python3", "-IBc", program}, User: "radicale", Timeout: 60}})
}

// withNewFormat is a release whose calendar has one file more and keeps its data in format 1.
func withNewFormat(p *profile.Profile) {
	m := calendarOf(p)
	m.Tree.Files = append(slices.Clone(m.Tree.Files), profile.File{Path: "/usr/share/doc/allotment/news", Content: "A calendar that is newer.\n"})
	migrateTo(m, 1, `open("/var/lib/radicale/format-1", "w").write("made by a migration\n")`)
}

// withBrokenCalendar is a release whose calendar destroys its data and then cannot start.
func withBrokenCalendar(p *profile.Profile) {
	withNewFormat(p)
	m := calendarOf(p)
	migrateTo(m, 2, `import shutil; shutil.rmtree("/var/lib/radicale/collection-root", ignore_errors=True)`)
	m.Services = slices.Clone(m.Services)
	m.Services[0].Command = []string{"/usr/bin/python3", "-IBc", `raise SystemExit("the calendar of this release does not work")`}
}
