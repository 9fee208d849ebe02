package portal_test

import (
	"context"
	"net/http"
	"strings"
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

// TestOfficersForgotten has an officer set a new password by mail: the other officer is told, in her language. The link leads to
// the portal, whatever host a stranger's request names.
func TestOfficersForgotten(t *testing.T) {
	p := start(t)
	relayed(t, p)
	ctx := context.Background()
	p.Config.Origin = "https://portal.club.example"
	if err := p.Directory.AppointTo(ctx, "chair", portaltest.Owner, time.Time{}, time.Time{}); err != nil {
		t.Fatal(err)
	}
	err := p.Directory.ChangePerson(ctx, portaltest.Owner, "", func(v *directory.Person) { v.Language = "de" })
	if err == nil {
		err = p.Deps().Login.KnowAddress(portaltest.Officer, "olga@mail.example")
	}
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodPost, "http://evil.example/portal/login/forgotten/mail", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Forwarded-Host", "evil.example")
	r.RemoteAddr = "192.0.2.9:1234"
	if err := p.Deps().Login.SendReset(r, portaltest.Officer); err != nil {
		t.Fatal(err)
	}
	p.Deps().Login.Wait()
	const begin = "https://portal.club.example/portal/login/reset?token="
	token := strings.TrimPrefix(textTo(t, p, "olga@mail.example", begin), begin)
	if _, err := p.Deps().Login.Reset(ctx, token, "runner beans in june"); err != nil {
		t.Fatal(err)
	}
	if textTo(t, p, "berta@mail.example", "Olga") == "" {
		t.Error("the other officer is not told")
	}
	if got := textTo(t, p, "otto@mail.example", ""); got != "" {
		t.Errorf("a member is told %q", got)
	}
	if page := p.LogIn(t, portaltest.Owner).Get("/portal/people/log"); !page.Says("Olga Oberst (olga) hat durch einen Link in einer E-Mail ein neues Passwort gesetzt") {
		t.Errorf("the log says %s", page.Words())
	}
}

// textTo is the first word of a mail to an address that begins with a prefix, or empty.
func textTo(t *testing.T, p *portaltest.Portal, to, prefix string) string {
	t.Helper()
	all, err := p.Deps().Mail.Pending()
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range all {
		if item.Message.To != to {
			continue
		}
		for word := range strings.FieldsSeq(item.Message.Text) {
			if strings.HasPrefix(word, prefix) {
				return word
			}
		}
	}
	return ""
}
