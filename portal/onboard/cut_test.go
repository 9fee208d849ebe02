package onboard_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"allotment/portal/directory"
	"allotment/portal/onboard"
)

// failing is a context that ends once somebody has looked at it so often: the directory's calls do so, each once or more.
type failing struct {
	context.Context
	left atomic.Int32
}

func (c *failing) Err() error {
	if c.left.Add(-1) < 0 {
		return context.Canceled
	}
	return c.Context.Err()
}

func after(ctx context.Context, n int) *failing {
	c := &failing{Context: ctx}
	c.left.Store(int32(n))
	return c
}

// TestPowerCut interrupts each step between any two writes, opens the database again, and goes on: the end is always the
// same, and nobody gets a mail or an account twice.
func TestPowerCut(t *testing.T) {
	b, ctx := newBox(t), t.Context()
	cuts := map[string]int{}
	// untilDone does a step with ever more of it done before the cut, until there is none.
	untilDone := func(name string, step func(context.Context) error, done func() bool) {
		t.Helper()
		for n := 0; ; n++ {
			err := step(after(ctx, n))
			b.open()
			if done() {
				return
			}
			if err == nil {
				t.Fatalf("%s: no error after %d", name, n)
			}
			if cuts[name]++; n > 100 {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	untilDone("register", func(ctx context.Context) error {
		return b.Register(ctx, b.request("Eve", "Stranger", "eve@mail.example", "bees"))
	}, func() bool { return len(b.letters("eve@mail.example")) == 1 })
	_, token := b.letter("eve@mail.example", "confirm")
	var id string
	untilDone("confirm", func(ctx context.Context) error {
		a, err := b.Confirm(ctx, token)
		id = a.ID
		return err
	}, func() bool { return len(b.letters("berta@mail.example")) == 1 })
	untilDone("decide", func(ctx context.Context) error { return b.Decide(ctx, id, "berta", true, "") }, func() bool {
		a, err := b.Find(id)
		b.must(err)
		return a.State != onboard.Waiting
	})
	for n := 0; ; n++ { // what Decide began Tick ends
		err := b.Tick(after(ctx, n))
		b.open()
		if a, findErr := b.Find(id); findErr == nil && a.State == onboard.Ready {
			break
		} else if err == nil || n > 100 {
			t.Fatalf("error %v, %v, state %s", err, findErr, a.State)
		}
		cuts["tick"]++
	}
	for _, name := range []string{"register", "confirm", "decide", "tick"} {
		if cuts[name] < 2 {
			t.Errorf("%s was cut %d times", name, cuts[name])
		}
	}
	b.must(b.Tick(ctx))
	people, err := b.dir.People(ctx)
	b.must(err)
	strangers := slices.DeleteFunc(people, func(p directory.Person) bool { return p.Family != "Stranger" })
	if len(strangers) != 1 || !slices.Equal(b.members("bees"), []string{"eve.stranger"}) {
		t.Errorf("accounts %v, members %v", strangers, b.members("bees"))
	}
	if eve, owner := len(b.letters("eve@mail.example")), len(b.letters("bruno@mail.example")); eve != 2 || owner != 1 {
		t.Errorf("%d mails to her, %d to an owner", eve, owner)
	}
	_, token = b.letter("eve@mail.example", "Welcome")
	untilDone("set up", func(ctx context.Context) error {
		_, err := b.SetUp(ctx, token, password)
		return err
	}, func() bool { left, err := b.Unfinished(); return err == nil && len(left) == 0 })
	b.must(b.dir.Authenticate(ctx, "eve.stranger", password))
}

// TestCutWithAccount has the power fail after the account was made, while its name was all that the database knew, and
// another Eve with the same address in the directory: hers is not taken for it.
func TestCutWithAccount(t *testing.T) {
	b, ctx := newBox(t), t.Context()
	b.must(b.dir.AddPerson(ctx, directory.Person{Name: "eve.stranger", Given: "Eve", Family: "Stranger", OutsideMail: "other@mail.example"}))
	id := b.ask("Eve", "Stranger", "eve@mail.example", "bees")
	for n := 1; ; n++ {
		b.Decide(after(ctx, n), id, "berta", true, "") // whatever it says
		if _, err := b.dir.Person(ctx, "eve.stranger2"); err == nil {
			break
		}
		b.Tick(after(ctx, n))
		if _, err := b.dir.Person(ctx, "eve.stranger2"); err == nil {
			break
		}
	}
	b.open()
	b.must(b.Tick(ctx))
	if got := b.members("bees"); !slices.Equal(got, []string{"eve.stranger2"}) {
		t.Errorf("members %v", got)
	}
	if _, err := b.dir.Person(ctx, "eve.stranger3"); !errors.Is(err, directory.ErrNotFound) {
		t.Errorf("a second account: %v", err)
	}
}

// TestPersonExistsMeanwhile has an officer add the newcomer while she waits: she gets into the group, and nobody gets a
// link that sets the password of an account that is there.
func TestPersonExistsMeanwhile(t *testing.T) {
	b, ctx := newBox(t), t.Context()
	id := b.ask("Eve", "Stranger", "eve@mail.example", "bees")
	b.must(b.dir.AddPerson(ctx, directory.Person{Name: "eve", Given: "Eve", Family: "Stranger", OutsideMail: "Eve@mail.example"}))
	b.must(b.Decide(ctx, id, "berta", true, ""))
	if m, token := b.letter("eve@mail.example", "You belong"); token != "" {
		t.Errorf("text %q", m.Text)
	}
	if got := b.members("bees"); !slices.Equal(got, []string{"eve"}) {
		t.Errorf("members %v", got)
	}
}

// TestDirectoryIsDown decides while slapd does not answer.
func TestDirectoryIsDown(t *testing.T) {
	b, ctx := newBox(t), t.Context()
	id := b.ask("Eve", "", "eve@mail.example", "bees")
	dead, cancel := context.WithCancel(ctx)
	cancel()
	if err := b.Decide(dead, id, "berta", true, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if a, err := b.Find(id); err != nil || a.State != onboard.Waiting {
		t.Errorf("state %s, error %v", a.State, err)
	}
}

func TestPersonalInvitation(t *testing.T) {
	b, ctx := newBox(t), t.Context()
	_, err := b.Invite(ctx, onboard.Invitation{Group: "bees", By: "anna", Mail: "eve@mail.example"})
	b.mustBe(err, onboard.ErrForbidden)
	_, err = b.Invite(ctx, onboard.Invitation{Group: "nothing", By: "olga"})
	b.mustBe(err, onboard.ErrGroup)
	link, err := b.Invite(ctx, onboard.Invitation{Group: "bees", By: "berta", Mail: "eve@mail.example", Name: "Eve"})
	b.must(err)
	m, token := b.letter("eve@mail.example", "Berta invites you")
	if !strings.Contains(m.Text, link) {
		t.Errorf("text %q", m.Text)
	}
	r := b.request("Mallory", "", "mallory@mail.example", "bees") // who found the link
	r.Invitation = token
	b.must(b.Register(ctx, r))
	b.letter("mallory@mail.example", "confirm")
	r = b.request("Eve", "", "Eve@mail.example", "bees")
	r.Invitation = token
	b.must(b.Register(ctx, r))
	_, second := b.letter("Eve@mail.example", "confirm") // Mallory has used it up: she is asked for
	_, err = b.Confirm(ctx, second)
	b.must(err)
}

// TestVouched registers with the address that was invited: nobody is asked again, and the link serves once.
func TestVouched(t *testing.T) {
	b, ctx := newBox(t), t.Context()
	invite := func() onboard.Request {
		t.Helper()
		_, err := b.Invite(ctx, onboard.Invitation{Group: "bees", By: "berta", Mail: "eve@mail.example"})
		b.must(err)
		_, token := b.letter("eve@mail.example", "invites you")
		r := b.request("Eve", "", "eve@mail.example", "bees")
		r.Invitation = token
		return r
	}
	r := invite()
	b.must(b.dir.SetOwners(ctx, "bees", []string{"bruno"})) // berta may not decide any more
	b.must(b.Register(ctx, r))
	b.letter("eve@mail.example", "confirm")
	b.must(b.dir.SetOwners(ctx, "bees", []string{"berta"}))
	r = invite()
	b.must(b.dir.Deactivate(ctx, "berta")) // whose word does not count any more
	b.must(b.Register(ctx, r))
	b.letter("eve@mail.example", "confirm")
	b.must(b.dir.Activate(ctx, "berta"))
	b.clock = b.clock.Add(24 * time.Hour)
	r = invite()
	b.must(b.Register(ctx, r))
	_, token := b.letter("eve@mail.example", "Welcome")
	_, err := b.SetUp(ctx, token, password)
	b.must(err)
	if n := len(b.letters("berta@mail.example")); n != 0 {
		t.Errorf("%d mails to the owner", n)
	}
	_, err = b.Invitation(r.Invitation)
	b.mustBe(err, onboard.ErrLink)
}

func TestPoster(t *testing.T) {
	b, ctx := newBox(t), t.Context()
	for _, uses := range []int{0, 2} {
		_, err := b.Invite(ctx, onboard.Invitation{Group: "bees", By: "berta", Uses: uses, Until: b.clock.Add(24 * time.Hour)})
		b.must(err)
		b.clock = b.clock.Add(time.Minute)
	}
	all, err := b.Invitations(ctx, "berta")
	if err != nil || len(all) != 2 || all[0].Uses != 2 {
		t.Fatalf("%v, error %v", all, err)
	}
	if others, err := b.Invitations(ctx, "anna"); err != nil || len(others) != 0 {
		t.Errorf("a member sees %v, error %v", others, err)
	}
	for n, name := range []string{"Ada", "Eve", "Ida"} {
		r := b.request(name, "", strings.ToLower(name)+"@mail.example", "bees")
		r.Invitation = all[0].Token
		b.must(b.Register(ctx, r))
		_, token := b.letter(r.Mail, "confirm")
		a, err := b.Confirm(ctx, token)
		b.must(err)
		if want := map[bool]string{true: "berta"}[n < 2]; a.Invited != want || a.State != onboard.Waiting {
			t.Errorf("%s: %+v", name, a)
		}
	}
	b.mustBe(b.Withdraw(ctx, "anna", all[1].Token), onboard.ErrForbidden)
	b.must(b.Withdraw(ctx, "olga", all[1].Token))
	_, err = b.Invitation(all[1].Token)
	b.mustBe(err, onboard.ErrLink)
	_, err = b.Invite(ctx, onboard.Invitation{Group: "bees", By: "berta", Until: b.clock.Add(-time.Hour)})
	if err == nil {
		t.Error("an invitation of yesterday was made")
	}
	_, err = b.Invite(ctx, onboard.Invitation{Group: "bees", By: "berta", Until: b.clock.Add(time.Hour)})
	b.must(err)
	all, err = b.Invitations(ctx, "olga")
	b.must(err)
	b.clock = b.clock.Add(2 * time.Hour)
	_, err = b.Invitation(all[0].Token)
	b.mustBe(err, onboard.ErrLink)
}

func TestMemberJoinsByInvitation(t *testing.T) {
	b, ctx := newBox(t), t.Context()
	_, err := b.Invite(ctx, onboard.Invitation{Group: "bees", By: "berta", Mail: "anna@mail.example"})
	b.must(err)
	_, token := b.letter("anna@mail.example", "invites you")
	b.mustBe(b.Join(ctx, "olga", token), onboard.ErrForbidden)
	b.must(b.Join(ctx, "anna", token))
	if got := b.members("bees"); !slices.Equal(got, []string{"anna"}) {
		t.Errorf("members %v", got)
	}
	b.mustBe(b.Join(ctx, "anna", token), onboard.ErrLink)
}

// TestImport welcomes those whom a list adds: by mail, or by letter.
func TestImport(t *testing.T) {
	b, ctx := newBox(t), t.Context()
	list := "login,vorname,nachname,e-mail\neve,Eve,Stranger,eve@mail.example\nida,Ida,Ohne,\nanna,Anna,,anna@mail.example\n"
	report, err := b.dir.Import(ctx, strings.NewReader(list), directory.ImportOptions{Format: "csv"})
	b.must(err)
	if report.Count(directory.Added) != 2 {
		t.Fatalf("%+v", report)
	}
	letters, err := b.WelcomeAdded(ctx, "olga", report)
	if err != nil || !slices.Equal(letters, []string{"ida"}) {
		t.Errorf("letters to %v, error %v", letters, err)
	}
	_, token := b.letter("eve@mail.example", "Your account")
	_, err = b.SetUp(ctx, token, password)
	b.must(err, b.dir.Authenticate(ctx, "eve", password))
	if len(b.letters("anna@mail.example")) != 0 {
		t.Error("who was there already is welcomed too")
	}
}
