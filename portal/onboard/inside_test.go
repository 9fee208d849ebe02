package onboard

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestLoginName(t *testing.T) {
	for _, c := range []struct {
		given, family, mail string
		n                   int
		want                string
	}{
		{"Anna", "Archer", "", 1, "anna.archer"}, {"Anna", "Archer", "", 2, "anna.archer2"}, {"Änne", "Müller-Weiß", "", 1, "aenne.muellerweiss"},
		{"Zoë", "", "", 1, "zoe"}, {"Łukasz", "Żółć", "", 1, "lukasz.zolc"}, {"Ann Mary", "O’Brien", "", 1, "annmary.obrien"},
		{"Владимир", "Ленин", "vova@mail.example", 1, "vova"}, {"小", "明", "小明@mail.example", 1, "member"}, {"🌱", "", "1234@x.example", 3, "member3"},
		{"Probe", "Web", "", 1, "memberprobe.web"}, {"7", "of Nine", "", 1, "ofnine"}, {strings.Repeat("a", 100), "b", "", 2, strings.Repeat("a", 40) + "2"},
	} {
		if got := loginName(c.given, c.family, c.mail, c.n); got != c.want {
			t.Errorf("%s %s %s: %q, want %q", c.given, c.family, c.mail, got, c.want)
		}
	}
}

func FuzzLoginName(f *testing.F) {
	f.Add("Änne", "Müller", "a@b.example", 1)
	f.Add("\u202eanna", "ﬁ①½Ⅷ", "..@", 999)
	form := regexp.MustCompile(`^[a-z][a-z0-9._-]{0,62}$`)
	f.Fuzz(func(t *testing.T, given, family, mail string, n int) {
		if got := loginName(given, family, mail, n%1000); !form.MatchString(got) {
			t.Errorf("%q", got)
		}
	})
}

func TestClientOf(t *testing.T) {
	for address, want := range map[string]string{"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8:1:2:3::4": "2001:db8:1:2::/64",
		"fe80::1%eth0": "fe80::/64", "nonsense": "nonsense"} {
		if got := clientOf(address); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}

// TestLimitsForget fills the limits with more clients than they count, and waits until they can be forgotten.
func TestLimitsForget(t *testing.T) {
	g := newGuard()
	for n := range maxKeys {
		if !g.clients.allow(fmt.Sprint(n), start) {
			t.Fatalf("client %d", n)
		}
	}
	if g.clients.allow("one more", start) {
		t.Error("more are counted than there is room for")
	}
	if !g.clients.allow("one more", start.Add(time.Hour)) || len(g.clients.by) != 1 {
		t.Errorf("%d are kept", len(g.clients.by))
	}
}

// TestFormsForget does the same with tokens of forms, which are also refused when they are changed anywhere.
func TestFormsForget(t *testing.T) {
	g := newGuard()
	for range maxKeys {
		if !g.checkForm(g.newForm(start), start.Add(time.Minute)) {
			t.Fatal("a good one is refused")
		}
	}
	token := g.newForm(start)
	if g.checkForm(token, start.Add(time.Minute)) {
		t.Error("more are kept than there is room for")
	}
	later := start.Add(slowest + time.Hour)
	if !g.checkForm(g.newForm(later), later.Add(time.Minute)) || len(g.used) != 1 {
		t.Errorf("%d are kept", len(g.used))
	}
	if newGuard().checkForm(token, start.Add(time.Minute)) {
		t.Error("another's token is taken")
	}
	token = g.newForm(later)
	for i := range token {
		other := byte('A')
		if token[i] == 'A' {
			other = 'B'
		}
		if i < len(token)-1 && g.checkForm(token[:i]+string(other)+token[i+1:], later.Add(time.Minute)) {
			t.Errorf("taken with another character %d", i)
		}
	}
	if g.checkForm(token, later.Add(quickest-time.Millisecond)) || g.checkForm(token, later.Add(slowest+time.Second)) ||
		!g.checkForm(token, later.Add(quickest)) {
		t.Error("its age is not looked at")
	}
}
