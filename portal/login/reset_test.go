package login

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"allotment/portal/directory"
	"allotment/portal/session"
)

// askAs asks for a link as a client does, and returns what was sent for it.
func (p *portal) askAs(t *testing.T, client, name string) []letter {
	t.Helper()
	p.sent = nil
	if err := p.SendReset(from(client), name); err != nil {
		t.Fatal(err)
	}
	p.Wait()
	return p.sent
}

// tokenOf is the token of the link in the only letter.
func tokenOf(t *testing.T, sent []letter) string {
	t.Helper()
	if len(sent) != 1 {
		t.Fatalf("sent %+v, want one letter", sent)
	}
	u, err := url.Parse(sent[0].link)
	if err != nil || !strings.HasPrefix(sent[0].link, origin+"/portal/") {
		t.Fatalf("link %q, %v", sent[0].link, err)
	}
	return u.Query().Get("token")
}

func (p *portal) known(t *testing.T, person string) {
	t.Helper()
	if err := p.KnowAddress(person, person+"@elsewhere.example"); err != nil {
		t.Fatal(err)
	}
}

// testReset sets a new password by a link: once, within the hour, and codes are still asked for.
func (p *portal) testReset(t *testing.T) {
	p.later()
	ctx := t.Context()
	p.known(t, "anna")
	_, secret, ticket, err := p.BeginTOTP("anna")
	if err != nil {
		t.Fatal(err)
	}
	code, err := totp.GenerateCode(secret, p.now)
	if err == nil {
		err = p.ConfirmTOTP(ctx, "anna", ticket, code)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Sessions.Begin(httptest.NewRecorder(), from("192.0.2.1"), "anna", session.Password)
	if err != nil {
		t.Fatal(err)
	}
	for range accountRule.free { // strangers have tried
		_, err := p.Password(from("198.51.100.7"), "anna", "wrong password")
		mustBe(t, err, ErrRefused)
	}
	sent := p.askAs(t, "192.0.2.1", " ANNA@elsewhere.example ")
	token := tokenOf(t, sent)
	if sent[0].to != "anna@elsewhere.example" || sent[0].kind != "password.reset" || !sent[0].until.Equal(p.now.Add(linkTime)) {
		t.Errorf("sent %+v", sent[0])
	}
	if _, err := p.Reset(ctx, token, "short"); !errors.Is(err, ErrShort) {
		t.Errorf("a short password: %v", err)
	}
	const fresh = "runner beans in june"
	if got, err := p.Reset(ctx, token, fresh); err != nil || got.Name != "anna" {
		t.Fatalf("%+v, error %v", got, err)
	}
	if _, err := p.Sessions.Get(s.ID); !errors.Is(err, session.ErrNone) {
		t.Errorf("the session of before: %v", err)
	}
	_, err = p.Reset(ctx, token, "another good password")
	mustBe(t, err, ErrTicket)
	half, err := p.Password(from("203.0.113.9"), "anna", fresh) // at once, whatever strangers have tried
	if err != nil || half.Ticket == "" {
		t.Errorf("the new password: %+v, error %v: no code is asked for", half, err)
	}
	p.later()
	_, err = p.Password(from("203.0.113.9"), "anna", word)
	mustBe(t, err, ErrRefused)
	if err := errors.Join(p.RemoveTOTP(ctx, "anna", "anna"), p.ChangePassword(ctx, "anna", "anna", word, "")); err != nil {
		t.Fatal(err)
	}
}

// testResetAtOnce uses one link several times in the same moment.
func (p *portal) testResetAtOnce(t *testing.T) {
	p.now = p.now.Add(24 * time.Hour)
	p.known(t, "anna")
	token := tokenOf(t, p.askAs(t, "192.0.2.1", "anna"))
	var all sync.WaitGroup
	var done atomic.Int32
	for range 4 {
		all.Go(func() {
			if _, err := p.Reset(t.Context(), token, word); err == nil {
				done.Add(1)
			} else if !errors.Is(err, ErrTicket) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if done.Load() != 1 {
		t.Errorf("one link has served %d times", done.Load())
	}
}

// testVoidLinks makes links void, each in another way.
func (p *portal) testVoidLinks(t *testing.T) {
	ctx := t.Context()
	p.known(t, "anna")
	change := func(address string) error {
		return p.directory.ChangePerson(ctx, "anna", "", func(v *directory.Person) { v.OutsideMail = address })
	}
	for what, c := range map[string]struct {
		void func() error
		mend func() error
	}{
		"too old":                 {void: func() error { p.now = p.now.Add(linkTime); return nil }},
		"deactivated":             {func() error { return p.directory.Deactivate(ctx, "anna") }, func() error { return p.directory.Activate(ctx, "anna") }},
		"password changed":        {void: func() error { return p.ChangePassword(ctx, "anna", "anna", word, "") }},
		"first password set":      {void: func() error { p.now = p.now.Add(time.Second); return p.PasswordSet("anna") }},
		"another address":         {func() error { return change("other@elsewhere.example") }, func() error { return change("anna@elsewhere.example") }},
		"address not hers at all": {func() error { return p.KnowAddress("anna", "x@elsewhere.example") }, func() error { return p.KnowAddress("anna", "anna@elsewhere.example") }},
	} {
		p.now = p.now.Add(24 * time.Hour)
		token := tokenOf(t, p.askAs(t, "192.0.2.1", "anna"))
		if _, err := p.ResetFor(ctx, token); err != nil {
			t.Errorf("%s: void before: %v", what, err)
		}
		if _, err := p.ResetFor(ctx, token+"A"); !errors.Is(err, ErrTicket) {
			t.Errorf("%s: another token: %v", what, err)
		}
		if err := c.void(); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Reset(ctx, token, "a stranger's password"); !errors.Is(err, ErrTicket) {
			t.Errorf("%s: %v", what, err)
		}
		if c.mend != nil {
			if err := c.mend(); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.later()
	if _, err := p.Password(from("192.0.2.1"), "anna", word); err != nil {
		t.Errorf("the password after all that: %v", err)
	}
}

// testAddress confirms an address by a link that was sent there. A link for the one does not serve for the other.
func (p *portal) testAddress(t *testing.T) {
	p.later()
	ctx := t.Context()
	bert, err := p.directory.Person(ctx, "bert")
	if err != nil {
		t.Fatal(err)
	}
	if sent := p.askAs(t, "192.0.2.1", "bert"); len(sent) != 0 {
		t.Errorf("sent %+v to an address that nobody has confirmed", sent)
	}
	if err := p.SendConfirm(ctx, bert); err != nil {
		t.Fatal(err)
	}
	token := tokenOf(t, p.sent)
	_, err = p.ResetFor(ctx, token)
	mustBe(t, err, ErrTicket)
	mustBe(t, p.Confirm(ctx, "A"+token), ErrTicket)
	if err := p.Confirm(ctx, token); err != nil {
		t.Fatal(err)
	}
	mustBe(t, p.Confirm(ctx, token), ErrTicket)
	if yes, err := p.AddressConfirmed(bert); err != nil || !yes {
		t.Errorf("confirmed: %v, %v", yes, err)
	}
	mustBe(t, p.Confirm(ctx, tokenOf(t, p.askAs(t, "192.0.2.1", "bert"))), ErrTicket)
	p.moveAddress(t, bert)
	for i := range linkRule.free + 1 {
		err = p.SendConfirm(ctx, bert)
		if i < linkRule.free && err != nil {
			t.Error(err)
		}
	}
	mustWait(t, err)
	p.noMail = true
	defer func() { p.noMail = false }()
	mustBe(t, p.SendConfirm(ctx, bert), ErrNoMail)
	mustBe(t, p.SendReset(from("192.0.2.1"), "bert"), ErrNoMail)
}

// moveAddress has a person confirm another address, of which her former one is told, and go back to it.
func (p *portal) moveAddress(t *testing.T, v directory.Person) {
	t.Helper()
	for _, to := range []string{"moved@elsewhere.example", v.OutsideMail} {
		p.later()
		err := p.directory.ChangePerson(t.Context(), v.Name, "", func(v *directory.Person) { v.OutsideMail = to })
		if err != nil {
			t.Fatal(err)
		}
		now, err := p.directory.Person(t.Context(), v.Name)
		if err != nil {
			t.Fatal(err)
		}
		p.sent = nil
		if err := p.SendConfirm(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		former := map[string]string{v.OutsideMail: "moved@elsewhere.example", "moved@elsewhere.example": v.OutsideMail}[to]
		if err := p.Confirm(t.Context(), tokenOf(t, p.sent)); err != nil {
			t.Fatal(err)
		}
		if len(p.sent) != 2 || p.sent[1].kind != "address.changed" || p.sent[1].to != former || p.sent[1].link != "" {
			t.Errorf("sent %+v, want one to %s", p.sent, former)
		}
	}
	p.now = p.now.Add(24 * time.Hour) // links count no more
}

// testNoProbing asks for links of people who are there and of others: the answers are the same. One account gets few, and
// one client asks seldom.
func (p *portal) testNoProbing(t *testing.T) {
	p.later()
	p.known(t, "anna")
	for _, name := range []string{"nobody", "nobody@elsewhere.example", "", "anna)(uid=*", "*", "anna@other.example", strings.Repeat("x", 1<<16)} {
		p.later()
		if sent := p.askAs(t, "192.0.2.1", name); len(sent) != 0 {
			t.Errorf("%.20q: sent %+v", name, sent)
		}
	}
	p.later()
	got := 0
	for i := range 3 * linkRule.free {
		got += len(p.askAs(t, fmt.Sprintf("198.51.100.%d", i), "anna"))
	}
	if got != linkRule.free {
		t.Errorf("anna got %d links, want %d", got, linkRule.free)
	}
	p.later()
	var waits [2]int
	for i, name := range []string{"bert", "nobody"} {
		p.later()
		for p.SendReset(from("203.0.113.5"), name) == nil {
			p.Wait()
			waits[i]++
		}
	}
	if waits[0] != askRule.free || waits[1] != waits[0] {
		t.Errorf("a client may ask %v times, want %d", waits, askRule.free)
	}
}

// testOfficersReset tells the other officers, and nobody else, of an officer's new password.
func (p *portal) testOfficersReset(t *testing.T) {
	p.later()
	ctx := t.Context()
	if err := p.directory.AppointTo(ctx, "secretary", "anna", time.Time{}, time.Time{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"otto", "bert"} {
		p.later()
		p.known(t, name)
		token := tokenOf(t, p.askAs(t, "192.0.2.1", name))
		p.directoryAway(t, token)
		p.told, p.sent = nil, nil
		if _, err := p.Reset(ctx, token, "runner beans in june"); err != nil {
			t.Fatal(err)
		}
		if want := []string{name + " password.changed "}; !slices.Equal(p.told, want) {
			t.Errorf("%s: told %q, want %q", name, p.told, want)
		}
		var want []letter
		if name == "otto" {
			want = []letter{{to: "anna@elsewhere.example", kind: "officer.reset", officer: "Otto Archer"}}
		}
		if !slices.Equal(p.sent, want) {
			t.Errorf("%s: sent %+v, want %+v", name, p.sent, want)
		}
		entries, err := p.Audit.Recent(1, "")
		if err != nil || len(entries) != 1 || entries[0].Kind != "password.reset" || entries[0].Subject != name {
			t.Errorf("%s: audit %+v, %v", name, entries, err)
		}
	}
	if err := p.directory.AppointTo(ctx, "secretary", "", time.Time{}, time.Time{}); err != nil {
		t.Fatal(err)
	}
}

// directoryAway looks that a link is not used up while the directory does not tell who the officers are: else nobody would be told.
func (p *portal) directoryAway(t *testing.T, token string) {
	t.Helper()
	p.Directory = withoutOfficers{p.directory}
	defer func() { p.Directory = p.directory }()
	_, err := p.Reset(t.Context(), token, "runner beans in july")
	mustBe(t, err, directory.ErrUnavailable)
}

// withoutOfficers is a directory that goes away when it is asked for officers.
type withoutOfficers struct{ *directory.Directory }

func (withoutOfficers) Officers(context.Context, time.Time) ([]directory.Person, error) {
	return nil, directory.ErrUnavailable
}

// testGone removes people behind the portal's back, as a power cut within a purge does: whoever gets a name later has none
// of their keys.
func (p *portal) testGone(t *testing.T) {
	p.later()
	ctx := t.Context()
	for _, name := range []string{"carl", "dora"} {
		if err := p.directory.AddPerson(ctx, directory.Person{Name: name, Given: name}); err != nil {
			t.Fatal(err)
		}
	}
	key := p.register(t, "carl")
	s, err := p.Sessions.Begin(httptest.NewRecorder(), from("192.0.2.1"), "dora", session.Passkey)
	if err != nil {
		t.Fatal(err)
	}
	if gone, err := p.Gone(ctx); err != nil || len(gone) != 0 {
		t.Errorf("while they are there: %v, %v", gone, err)
	}
	if err := errors.Join(p.directory.RemovePerson(ctx, "carl"), p.directory.RemovePerson(ctx, "dora")); err != nil {
		t.Fatal(err)
	}
	gone, err := p.Gone(ctx)
	slices.Sort(gone)
	if err != nil || !slices.Equal(gone, []string{"carl", "dora"}) {
		t.Errorf("gone %v, %v", gone, err)
	}
	if again, err := p.Gone(ctx); err != nil || len(again) != 0 {
		t.Errorf("again %v, %v", again, err)
	}
	if _, err := p.Sessions.Get(s.ID); !errors.Is(err, session.ErrNone) {
		t.Errorf("dora's session: %v", err)
	}
	if err := p.directory.AddPerson(ctx, directory.Person{Name: "carl", Given: "Another"}); err != nil {
		t.Fatal(err)
	}
	_, err = p.byPasskey(t, key)
	mustBe(t, err, ErrRefused)
	if m, err := p.Methods("anna"); err != nil || m.Printed == 0 {
		t.Errorf("who is still there has %+v, %v", m, err)
	}
}

// TestGoneWithoutDirectory forgets nobody while the directory does not answer.
func TestGoneWithoutDirectory(t *testing.T) {
	p := newBare(t)
	if err := p.KnowAddress("anna", "anna@elsewhere.example"); err != nil {
		t.Fatal(err)
	}
	if gone, err := p.Gone(t.Context()); !errors.Is(err, directory.ErrUnavailable) || len(gone) != 0 {
		t.Errorf("%v, %v", gone, err)
	}
	if f, err := p.factors("anna"); err != nil || f.Address == "" {
		t.Errorf("%+v, %v", f, err)
	}
}

// TestAnswerBeforeLookup asks for a link while the directory does not answer: what the visitor gets, and when, does not hang on
// who is in it.
func TestAnswerBeforeLookup(t *testing.T) {
	p := newBare(t)
	if err := p.SendReset(from("192.0.2.1"), "anna"); err != nil {
		t.Error(err)
	}
	p.Wait()
	if len(p.sent) != 0 {
		t.Errorf("sent %+v", p.sent)
	}
}
