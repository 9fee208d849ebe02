package qemutests

import (
	"net/http"
	"slices"
	"testing"

	"allotment/modules/calendar/davtest"
)

// useCalendar has members' programs use the calendar from outside the box, through the gateway.
func useCalendar(t *testing.T, c *club) (again func(*testing.T)) {
	ctx := t.Context()
	phone, laptop, other := c.openCalendar(t, "user01"), c.openCalendar(t, "user01"), c.openCalendar(t, "user02")

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
	mustHave(t, laptop, items, cards)
	mustHave(t, other, 3, 0)
	if err := laptop.Conflict(ctx, 42); err != nil {
		t.Error(err)
	}
	mustAnswer(t, other, phone.Event(0), http.StatusForbidden)
	stranger := *phone
	stranger.Password = c.passwords["user02"]
	mustAnswer(t, &stranger, phone.Event(0), http.StatusUnauthorized)
	tag := mustAnswer(t, phone, phone.Event(0), http.StatusOK)

	mustRun(t, c.API(), "journey", "calendar")
	mustRun(t, c.API(), "repair", "calendar")
	mustRun(t, c.API(), "backup", "calendar", "restore-test")

	restart(t, c.API(), "calendar", "radicale")
	mustHave(t, phone, items, cards)
	return func(t *testing.T) {
		phone := c.openCalendar(t, "user01") // by new connections
		mustHave(t, phone, items, cards)
		if now := mustAnswer(t, phone, phone.Event(0), http.StatusOK); now != tag {
			t.Errorf("the tag of an event that did not change was %s and is %s", tag, now)
		}
	}
}

// openCalendar logs a member's program in.
func (c *club) openCalendar(t *testing.T, name string) *davtest.Member {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{}}
	member, err := davtest.LogIn(t.Context(), client, "http://"+c.Address(80), name, c.passwords[name])
	if err != nil {
		t.Fatal(err)
	}
	return member
}

// mustHave wants a member to have so many events and cards, all different.
func mustHave(t *testing.T, who *davtest.Member, events, people int) {
	t.Helper()
	s, err := who.Summaries(t.Context())
	if err != nil || len(s) != events || len(slices.Compact(s)) != events {
		t.Errorf("%s has %d events, want %d; error %v", who.Name, len(s), events, err)
	}
	n, err := who.Names(t.Context())
	if err != nil || len(n) != people || len(slices.Compact(n)) != people {
		t.Errorf("%s has %d cards, want %d; error %v", who.Name, len(n), people, err)
	}
}

// mustAnswer wants a status for an item and returns its tag.
func mustAnswer(t *testing.T, who *davtest.Member, path string, want int) string {
	t.Helper()
	a, err := who.Do(t.Context(), "GET", path, "", "")
	if err != nil || a.Status != want {
		t.Errorf("%s gets %s with status %d, want %d; error %v", who.Name, path, a.Status, want, err)
	}
	return a.ETag
}
