package portal_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"allotment/portal/directory"
	"allotment/portal/mail"
	"allotment/portal/portaltest"
	"allotment/portal/store"
)

// relayed gives the portal somebody who takes its mail; nobody delivers it here.
func relayed(t *testing.T, p *portaltest.Portal) {
	t.Helper()
	relay := mail.Relay{Host: "relay.example", Port: 465, TLS: mail.TLS, From: "club@club.example"}
	if err := p.Deps().DB.Update(func(tx *store.Tx) error { return mail.SetRelay(tx, relay) }); err != nil {
		t.Fatal(err)
	}
}

// TestForgotten leads a member who has forgotten her password to a new one by mail: first she confirms her address.
func TestForgotten(t *testing.T) {
	p := start(t)
	b := p.Stranger(t)
	if page := b.Get("/portal/login/forgotten"); !page.Says("cannot send mail just now") || page.Says("Send me a link") {
		t.Errorf("without a relay: %s", page.Words())
	}
	if page := b.Send("/portal/login/forgotten/mail", "account", portaltest.Member); page.Status != http.StatusUnprocessableEntity {
		t.Errorf("without a relay: %d %s", page.Status, page.Words())
	}
	relayed(t, p)
	anna := p.LogIn(t, portaltest.Member)
	if page := anna.Get("/portal/"); !page.Says("Please confirm your own mail address") {
		t.Errorf("no hint: %s", page.Words())
	}
	if page := anna.Send("/portal/me/confirm"); !page.Says("on its way to anna@mail.example") {
		t.Fatalf("%d %s", page.Status, page.Words())
	}
	link := mailed(t, p, "anna@mail.example")
	fields := formsOf(b.Get(link), "")["/portal/address"] // in another browser than the one that she is logged in with
	if page := b.Post("/portal/address", fields); !page.Says("The address is confirmed") {
		t.Fatalf("%d %s", page.Status, page.Words())
	}
	if page := anna.Get("/portal/me"); !page.Says("You have confirmed anna@mail.example") {
		t.Errorf("%s", page.Words())
	}

	ask := func(name string) *portaltest.Page {
		page := b.Send("/portal/login/forgotten/mail", "account", name)
		p.Deps().Login.Wait()
		return page
	}
	page := ask(portaltest.Member)
	if stranger := ask("nobody"); page.Status != http.StatusOK || page.Text != stranger.Text || page.Path != stranger.Path {
		t.Errorf("%d %s, but for nobody %d %s", page.Status, page.Words(), stranger.Status, stranger.Words())
	}
	link = mailed(t, p, "anna@mail.example")
	fields = formsOf(b.Get(link), "")["/portal/login/reset"]
	fields.Set("password", "runner beans in june")
	if page := b.Post("/portal/login/reset", fields); page.Status != http.StatusUnprocessableEntity || !page.Says("The two are different") {
		t.Errorf("%d %s", page.Status, page.Words())
	}
	fields.Set("repeat", "runner beans in june")
	if page := b.Follow(b.Post("/portal/login/reset", fields)); !page.Says("Your password is changed. Please log in with it.") {
		t.Fatalf("%d %s", page.Status, page.Words())
	}
	if page := anna.Get("/portal/me"); page.Status != http.StatusSeeOther {
		t.Errorf("her session of before goes on: %d", page.Status)
	}
	if page := b.Post("/portal/login/reset", fields); page.Status != http.StatusGone || !page.Says("not good any more") {
		t.Errorf("the link a second time: %d %s", page.Status, page.Words())
	}
	if page := b.Send("/portal/login", "name", portaltest.Member, "password", "runner beans in june"); !page.Says("Hello, Anna Apfel") {
		t.Errorf("%d %s", page.Status, page.Words())
	}
}

// TestNewAddress sends a link by itself when a member writes down another address; the former one gets none any more.
func TestNewAddress(t *testing.T) {
	p := start(t)
	relayed(t, p)
	anna := p.LogIn(t, portaltest.Member)
	fields := formsOf(anna.Get("/portal/me"), "")["/portal/me"]
	fields.Set("given", "Anna")
	fields.Set("outside", "new@mail.example")
	fields.Del("forward")
	if page := anna.Follow(anna.Post("/portal/me", fields)); !page.Says("on its way to new@mail.example") {
		t.Fatalf("%d %s", page.Status, page.Words())
	}
	link := mailed(t, p, "new@mail.example")
	p.Advance(2 * time.Hour)
	if page := anna.Get(link); page.Status != http.StatusGone {
		t.Errorf("two hours later: %d", page.Status)
	}
}

// TestProvenByJoining looks that who has used the link that only her mailbox had need not confirm the address again, and
// who has used one that an officer saw must.
func TestProvenByJoining(t *testing.T) {
	p := start(t)
	relayed(t, p)
	ctx := context.Background()
	nora := directory.Person{Name: "nora", Given: "Nora", OutsideMail: "nora@mail.example"}
	if err := p.Directory.AddPerson(ctx, nora); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Onboarding().Welcome(ctx, portaltest.Officer, "nora"); err != nil {
		t.Fatal(err)
	}
	b := p.Stranger(t)
	fields := formsOf(b.Get(mailed(t, p, "nora@mail.example")), "")["/portal/setup"]
	fields.Set("password", portaltest.Password)
	fields.Set("repeat", portaltest.Password)
	if page := b.Follow(b.Post("/portal/setup", fields)); !page.Says("Please confirm your own mail address") {
		t.Errorf("%d %s", page.Status, page.Words())
	}
	joined := p.Stranger(t)
	join(t, p, joined, "Jo", "jo@mail.example")
	if page := joined.Get("/portal/me"); !page.Says("You have confirmed jo@mail.example") {
		t.Errorf("%s", page.Words())
	}
}

// join has somebody become a member of group bees.
func join(t *testing.T, p *portaltest.Portal, b *portaltest.Browser, given, address string) {
	t.Helper()
	fields := formsOf(b.Get("/portal/register"), "")["/portal/register"]
	fields.Set("given", given)
	fields.Set("mail", address)
	fields.Set("group", "bees")
	p.Advance(10 * time.Second) // a person takes her time
	b.Post("/portal/register", fields)
	b.Post("/portal/register/confirm", formsOf(b.Get(mailed(t, p, address)), "")["/portal/register/confirm"])
	p.LogIn(t, portaltest.Owner).Send(mailed(t, p, "berta@mail.example"), "answer", "yes")
	fields = formsOf(b.Get(mailed(t, p, address)), "")["/portal/setup"]
	fields.Set("password", portaltest.Password)
	fields.Set("repeat", portaltest.Password)
	if page := b.Follow(b.Post("/portal/setup", fields)); !page.Says("Welcome! You are logged in.") {
		t.Fatalf("%d %s", page.Status, page.Words())
	}
}
