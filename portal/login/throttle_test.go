package login

import (
	"fmt"
	"testing"
	"time"
)

// TestStrangersStayBelowTheLock guesses as fast as the throttle allows for a day, and looks that no quarter of an hour has
// the ten wrong passwords at which the directory locks an account for everybody.
func TestStrangersStayBelowTheLock(t *testing.T) {
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	end := now.Add(24 * time.Hour)
	th := newThrottle(func() time.Time { return now })
	var made []time.Time
	for i := 0; now.Before(end); i++ {
		if _, err := th.begin("anna", false, fmt.Sprintf("198.51.100.%d", i%250)); err != nil {
			now = mustWait(t, err)
			continue
		}
		made = append(made, now)
	}
	for i := range made {
		n := 0
		for _, m := range made[i:] {
			if m.Sub(made[i]) < 15*time.Minute {
				n++
			}
		}
		if n >= 10 {
			t.Fatalf("%d tries within a quarter of an hour", n)
		}
	}
	if len(made) < 24*4 { // never locked out for good
		t.Errorf("only %d tries in a day", len(made))
	}
}

func TestThousandLogins(t *testing.T) {
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	th := newThrottle(func() time.Time { return now })
	for i := range 1000 {
		try, err := th.begin(fmt.Sprintf("person%d", i%200), i%2 == 0, "192.0.2.1") // one router for all
		if err != nil {
			t.Fatalf("login %d: %v", i, err)
		}
		try.right()
	}
}

func TestAddressIsSlowedDown(t *testing.T) {
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	th := newThrottle(func() time.Time { return now })
	for i := range addressRule.free {
		try, err := th.begin("mallory", false, "2001:db8::1") // his own account does not help him
		if err != nil {
			t.Fatal(err)
		}
		try.right()
		if _, err := th.begin(fmt.Sprintf("person%d", i), false, fmt.Sprintf("2001:db8::%x", i)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := th.begin("another", false, "2001:db8::ffff") // the same network
	mustWait(t, err)
	if _, err := th.begin("another", false, "2001:db8:0:1::1"); err != nil {
		t.Errorf("another network: %v", err)
	}
	now = now.Add(time.Hour)
	if _, err := th.begin("another", false, "2001:db8::ffff"); err != nil {
		t.Errorf("an hour later: %v", err)
	}
}

// TestThrottleIsBounded tries from more addresses than are counted: what waits longest stays.
func TestThrottleIsBounded(t *testing.T) {
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	th := newThrottle(func() time.Time { return now })
	for range accountRule.free {
		if _, err := th.begin("anna", false, "192.0.2.1"); err != nil {
			t.Fatal(err)
		}
	}
	for i := range mostCounts {
		if _, err := th.begin(fmt.Sprintf("person%d", i), false, fmt.Sprintf("10.%d.%d.1", i>>8, i&255)); err != nil {
			t.Fatal(err)
		}
	}
	if len(th.counts) > mostCounts+2 {
		t.Errorf("%d counts", len(th.counts))
	}
	_, err := th.begin("anna", false, "192.0.2.9")
	mustWait(t, err)
}
