package qemutests

import (
	"net/http"
	"slices"
	"testing"

	"allotment/modules/calendar/davtest"
	"allotment/qemu-tests/vm"
)

// TestCalendar has members' programs use the calendar from outside the box, through the gateway.
func TestCalendar(t *testing.T) {
	m := bootModule(t, "calendar", vm.Options{Forward: []int{80}})
	defer showLogs(t, m)
	ctx := t.Context()
	passwords := accounts(t, m, 3)
	logIn := func(name string) *davtest.Member {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{}}
		member, err := davtest.LogIn(ctx, client, "http://"+m.Address(80), name, passwords[name])
		if err != nil {
			t.Fatal(err)
		}
		return member
	}
	phone, laptop, other := logIn("user01"), logIn("user01"), logIn("user02")

	const items, cards = 100, 20
	if err := phone.AddEvents(ctx, items); err != nil {
		t.Fatal(err)
	}
	if err := phone.AddCards(ctx, cards); err != nil {
		t.Fatal(err)
	}
	if err := other.AddEvents(ctx, 3); err != nil {
		t.Fatal(err)
	}
	mustHave := func(who *davtest.Member, events, people int) {
		t.Helper()
		s, err := who.Summaries(ctx)
		if err != nil || len(s) != events || len(slices.Compact(s)) != events {
			t.Errorf("%s has %d events, want %d; error %v", who.Name, len(s), events, err)
		}
		n, err := who.Names(ctx)
		if err != nil || len(n) != people || len(slices.Compact(n)) != people {
			t.Errorf("%s has %d cards, want %d; error %v", who.Name, len(n), people, err)
		}
	}
	mustHave(laptop, items, cards)
	mustHave(other, 3, 0)
	if err := laptop.Conflict(ctx, 42); err != nil {
		t.Error(err)
	}
	mustAnswer := func(who *davtest.Member, path string, want int) string {
		t.Helper()
		a, err := who.Do(ctx, "GET", path, "", "")
		if err != nil || a.Status != want {
			t.Errorf("%s gets %s with status %d, want %d; error %v", who.Name, path, a.Status, want, err)
		}
		return a.ETag
	}
	mustAnswer(other, phone.Event(0), http.StatusForbidden)
	stranger := *phone
	stranger.Password = passwords["user02"]
	mustAnswer(&stranger, phone.Event(0), http.StatusUnauthorized)
	tag := mustAnswer(phone, phone.Event(0), http.StatusOK)

	mustRun(t, m.API(), "journey", "calendar")
	mustRun(t, m.API(), "repair", "calendar")
	mustRun(t, m.API(), "backup", "calendar", "restore-test")

	restart(t, m.API(), "calendar", "radicale")
	mustHave(phone, items, cards)
	if err := m.Reset(ctx); err != nil { // no time to write anything
		t.Fatal(err)
	}
	mustBeReadyAgain(t, m)
	phone = logIn("user01") // by new connections
	mustHave(phone, items, cards)
	if now := mustAnswer(phone, phone.Event(0), http.StatusOK); now != tag {
		t.Errorf("the tag of an event that did not change was %s and is %s", tag, now)
	}
	report(t, m, "directory", "calendar")
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
