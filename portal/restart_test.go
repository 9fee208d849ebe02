package portal_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"allotment/portal/portaltest"
	"allotment/portal/store"
)

// TestJoiningOverNight restarts the portal between any two steps of a newcomer's, as an update of the box does: the links in
// her mails serve, each once.
func TestJoiningOverNight(t *testing.T) {
	p := start(t)
	b := p.Stranger(t)
	fields := formsOf(b.Get("/portal/register"), "")["/portal/register"]
	fields.Set("given", "Nora")
	fields.Set("mail", "nora@mail.example")
	fields.Set("group", "bees")
	p.Advance(10 * time.Second) // a person takes her time
	b.Post("/portal/register", fields)
	p.Restart(t)

	twice(t, p, b, mailed(t, p, "nora@mail.example"), "/portal/register/confirm", "Thank you")
	berta := p.LogIn(t, portaltest.Owner)
	p.Restart(t)
	berta.Send(mailed(t, p, "berta@mail.example"), "answer", "yes")
	p.Restart(t)
	link := mailed(t, p, "nora@mail.example")
	twice(t, p, b, link, "/portal/setup", "Welcome! You are logged in.", "password", portaltest.Password, "repeat", portaltest.Password)
	if page := p.Stranger(t).Get(flipped(link)); page.Status != http.StatusGone {
		t.Errorf("a link with another token: %d", page.Status)
	}
}

// TestForgottenOverNight restarts the portal while a member confirms her address, and then while she sets a new password.
func TestForgottenOverNight(t *testing.T) {
	p := start(t)
	relayed(t, p)
	anna, b := p.LogIn(t, portaltest.Member), p.Stranger(t)
	anna.Send("/portal/me/confirm")
	confirm := mailed(t, p, "anna@mail.example")
	p.Restart(t)
	if page := b.Get(flipped(confirm)); page.Status != http.StatusGone {
		t.Errorf("a link with another token: %d", page.Status)
	}
	twice(t, p, b, confirm, "/portal/address", "The address is confirmed")

	b.Send("/portal/login/forgotten/mail", "account", portaltest.Member)
	p.Deps().Login.Wait()
	reset := mailed(t, p, "anna@mail.example")
	unreadable(t, p, reset)
	p.Restart(t)
	if page := b.Get(flipped(reset)); page.Status != http.StatusGone {
		t.Errorf("a link with another token: %d", page.Status)
	}
	const fresh = "runner beans in june"
	twice(t, p, b, reset, "/portal/login/reset", "Your password is changed.", "password", fresh, "repeat", fresh)

	b.Send("/portal/login/forgotten/mail", "account", portaltest.Member)
	p.Deps().Login.Wait()
	late := mailed(t, p, "anna@mail.example")
	p.Advance(59 * time.Minute)
	p.Restart(t)
	if page := b.Get(late); page.Status != http.StatusOK {
		t.Errorf("within the hour: %d", page.Status)
	}
	p.Advance(time.Minute)
	p.Restart(t)
	if page := b.Get(late); page.Status != http.StatusGone {
		t.Errorf("after an hour: %d", page.Status)
	}
}

// twice uses a link that must serve, and once more after a restart, when it must not.
func twice(t *testing.T, p *portaltest.Portal, b *portaltest.Browser, link, action, says string, more ...string) {
	t.Helper()
	fields := formsOf(b.Get(link), "")[action]
	for i := 0; i+1 < len(more); i += 2 {
		fields.Set(more[i], more[i+1])
	}
	if page := b.Follow(b.Post(action, fields)); !page.Says(says) {
		t.Fatalf("%s: %d %s", action, page.Status, page.Words())
	}
	p.Restart(t)
	if page := p.Stranger(t).Get(link); page.Status != http.StatusGone {
		t.Errorf("%s: the link a second time: %d %s", action, page.Status, page.Words())
	}
}

// flipped is a link whose token has another letter.
func flipped(link string) string {
	last := "A"
	if strings.HasSuffix(link, last) {
		last = "B"
	}
	return link[:len(link)-1] + last
}

// unreadable looks that what is kept of links does not have their tokens, so that a copy of the database opens nothing.
func unreadable(t *testing.T, p *portaltest.Portal, link string) {
	t.Helper()
	_, token, _ := strings.Cut(link, "token=")
	n := 0
	err := p.Deps().DB.View(func(tx *store.Tx) error {
		return store.NewBucket[any]("login-links").All(tx, "", func(key string, v any) bool {
			if n++; strings.Contains(key+fmt.Sprint(v), token) {
				t.Errorf("%s is kept as %v", key, v)
			}
			return true
		})
	})
	if err != nil || n == 0 || token == "" {
		t.Errorf("%d links, %v", n, err)
	}
}
