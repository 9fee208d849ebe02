// Package onboard_test brings people into the directory module's real slapd.
package onboard_test

import (
	"bytes"
	"errors"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/modules/directory/directorytest"
	"allotment/portal/audit"
	"allotment/portal/directory"
	"allotment/portal/mail"
	"allotment/portal/onboard"
	"allotment/portal/store"
	"allotment/portal/web"
)

func TestMain(m *testing.M) { directorytest.Main(m) }

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// box is an organisation with two groups: bees, which berta and bruno own, and choir, which nobody does. Olga is an officer.
type box struct {
	*onboard.Service
	t     *testing.T
	dir   *directory.Directory
	db    *store.DB
	queue *mail.Queue
	path  string
	clock time.Time
	texts *mail.Texts
	log   bytes.Buffer
}

const password = "tomatoes and beans"

func newBox(t *testing.T) *box {
	t.Helper()
	address, secret := directorytest.Start(t)
	b := &box{t: t, path: filepath.Join(t.TempDir(), "portal.db"), clock: start}
	b.dir = directory.Open(address, func() (string, error) { return secret, nil })
	t.Cleanup(func() { b.dir.Close() })
	words, err := web.ReadMessages(onboard.Messages, mail.Messages)
	b.must(err, words.Complete())
	b.texts = mail.NewTexts(words)
	for _, name := range []string{"berta", "bruno", "olga", "anna"} {
		p := directory.Person{Name: name, Given: strings.ToUpper(name[:1]) + name[1:], OutsideMail: name + "@mail.example"}
		b.must(b.dir.AddPerson(t.Context(), p))
	}
	b.must(b.dir.AddGroup(t.Context(), directory.Group{Name: "bees", Title: "Beekeepers", Owners: []string{"berta", "bruno"}}))
	b.must(b.dir.AddGroup(t.Context(), directory.Group{Name: "choir", Title: "Choir"}))
	err = b.dir.AppointTo(t.Context(), "treasurer", "olga", time.Time{}, time.Time{})
	if errors.Is(err, directory.ErrNotFound) {
		err = b.dir.AddOffice(t.Context(), directory.Office{Name: "treasurer", Occupant: "olga"})
	}
	b.must(err)
	b.open()
	return b
}

func (b *box) must(errs ...error) {
	b.t.Helper()
	if err := errors.Join(errs...); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) mustBe(err, want error) {
	b.t.Helper()
	if !errors.Is(err, want) {
		b.t.Errorf("error %v, want %v", err, want)
	}
}

// open opens the database, again if it is open: as after a power cut.
func (b *box) open() {
	b.t.Helper()
	if b.db != nil {
		b.must(b.db.Close())
	}
	var err error
	b.db, err = store.Open(b.path)
	b.must(err)
	db := b.db
	b.t.Cleanup(func() { db.Close() })
	now := func() time.Time { return b.clock }
	log := slog.New(slog.NewTextHandler(&b.log, nil))
	b.queue = mail.New(b.db, func() mail.Relay { return mail.Relay{} }, now, log)
	b.Service = onboard.New(onboard.Deps{DB: b.db, Directory: b.dir, Mail: b.queue, Texts: b.texts, Now: now, Log: log,
		Origin: func() string { return "https://portal.club.example" }, Organisation: func() string { return "Garden Club" }})
}

// request is a form as somebody fills it in, in her own time.
func (b *box) request(given, family, address, group string) onboard.Request {
	r := onboard.Request{Given: given, Family: family, Mail: address, Group: group, Form: b.NewForm(), Address: "192.0.2.1"}
	b.clock = b.clock.Add(time.Minute)
	return r
}

var (
	links  = regexp.MustCompile(`https://portal\.club\.example(/\S+)`)
	tokens = regexp.MustCompile(`[?&](?:token|invitation)=(\w+)`)
)

// letters are the mails that wait for somebody, each with its subject.
func (b *box) letters(to string) []mail.Message {
	b.t.Helper()
	items, err := b.queue.Pending()
	b.must(err)
	var found []mail.Message
	for _, i := range items {
		if i.Message.To == to {
			found = append(found, i.Message)
		}
	}
	return found
}

// letter is the last mail to somebody, which must have words in its subject, and the token of its last link.
func (b *box) letter(to, words string) (m mail.Message, token string) {
	b.t.Helper()
	all := b.letters(to)
	if len(all) == 0 {
		b.t.Fatalf("no mail to %s", to)
	}
	m = all[len(all)-1]
	if !strings.Contains(m.Subject, words) || strings.ContainsAny(m.Subject+m.Text, "{}") {
		b.t.Fatalf("subject %q, want %q; text %q", m.Subject, words, m.Text)
	}
	for _, link := range links.FindAllString(m.Text, -1) {
		if found := tokens.FindStringSubmatch(link); found != nil {
			token = found[1]
		}
	}
	return m, token
}

func (b *box) members(group string) []string {
	b.t.Helper()
	g, err := b.dir.Group(b.t.Context(), group)
	b.must(err)
	return g.Members
}

// ask brings an application to where it waits for the group, and returns its ID.
func (b *box) ask(given, family, address, group string) string {
	b.t.Helper()
	b.must(b.Register(b.t.Context(), b.request(given, family, address, group)))
	_, token := b.letter(address, "")
	a, err := b.Confirm(b.t.Context(), token)
	b.must(err)
	return a.ID
}

func TestFromFormToPassword(t *testing.T) {
	b, ctx := newBox(t), t.Context()
	r := b.request(" Änne ", "Müller", "anne@Mail.Example", "bees")
	r.Language, r.Text = "de-CH", "Ich wohne\r\nnebenan."
	b.must(b.Register(ctx, r))
	m, token := b.letter("anne@mail.example", "bestätigen")
	if !strings.Contains(m.Text, "„Beekeepers“") || !m.Until.Equal(b.clock.Add(24*time.Hour)) {
		t.Errorf("mail %+v", m)
	}
	if a, err := b.Look(token); err != nil || a.State != onboard.Unconfirmed || len(b.letters("berta@mail.example")) != 0 {
		t.Errorf("looking: %+v, error %v", a, err)
	}
	a, err := b.Confirm(ctx, token)
	b.must(err)
	_, err = b.Confirm(ctx, token)
	b.mustBe(err, onboard.ErrLink)
	for _, owner := range []string{"berta", "bruno"} {
		m, _ := b.letter(owner+"@mail.example", `Änne Müller would like to join "Beekeepers"`)
		if !strings.Contains(m.Text, "Ich wohne\nnebenan.") || !strings.Contains(m.Text, onboard.PathRequests+"/"+a.ID) {
			t.Errorf("text %q", m.Text)
		}
	}
	if len(b.letters("olga@mail.example")) != 0 {
		t.Error("the officer was asked too")
	}
	b.mustBe(b.Decide(ctx, a.ID, "anna", true, ""), onboard.ErrForbidden)
	b.must(b.Decide(ctx, a.ID, "bruno", true, ""))
	b.mustBe(b.Decide(ctx, a.ID, "berta", false, ""), onboard.ErrDecided)
	_, token = b.letter("anne@mail.example", "Willkommen")
	for _, group := range []string{"bees", "members"} {
		if got := b.members(group); !slices.Equal(got, []string{"aenne.mueller"}) {
			t.Errorf("members of %s are %v", group, got)
		}
	}
	b.mustBe(b.dir.Authenticate(ctx, "aenne.mueller", ""), directory.ErrPassword)
	_, err = b.SetUp(ctx, token, "short")
	b.mustBe(err, directory.ErrWeak)
	person, err := b.SetUp(ctx, token, password)
	b.must(err, b.dir.Authenticate(ctx, person, password))
	_, err = b.SetUp(ctx, token, "another password")
	b.mustBe(err, onboard.ErrLink)
	p, err := b.dir.Person(ctx, person)
	if !slices.Equal(p.Groups, []string{"bees", "members"}) {
		t.Errorf("she is in %q", p.Groups)
	}
	if err != nil || p.Display != "Änne Müller" || p.OutsideMail != "anne@mail.example" || p.Language != "de-CH" {
		t.Errorf("person %+v, error %v", p, err)
	}
	b.wantAudit("onboard.ready", "onboard.accepted", "onboard.confirmed")
	if a, err := b.Find(a.ID); err != nil || a.State != onboard.Done || a.By != "bruno" || a.Mail+a.Given+a.Family+a.Text != "" {
		t.Errorf("kept are %+v, error %v", a, err)
	}
}

// wantAudit looks at the newest entries' kinds.
func (b *box) wantAudit(kinds ...string) {
	b.t.Helper()
	entries, err := audit.New(b.db, time.Now).Recent(len(kinds), "")
	b.must(err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Kind)
	}
	if !slices.Equal(got, kinds) {
		b.t.Errorf("audit log %v, want %v", got, kinds)
	}
}

func TestNo(t *testing.T) {
	b, ctx := newBox(t), t.Context()
	id := b.ask("Eve", "Stranger", "eve@mail.example", "bees")
	b.must(b.Decide(ctx, id, "berta", false, "We do not know you.\r\nSorry."))
	if m, _ := b.letter("eve@mail.example", "Your request"); !strings.Contains(m.Text, "We do not know you.\nSorry.\n") {
		t.Errorf("text %q", m.Text)
	}
	b.mustBe(b.Decide(ctx, id, "bruno", true, ""), onboard.ErrDecided)
	if _, err := b.dir.PersonByMail(ctx, "eve@mail.example"); !errors.Is(err, directory.ErrNotFound) {
		t.Errorf("error %v", err)
	}
	b.clock = b.clock.Add(31 * 24 * time.Hour)
	b.must(b.Tick(ctx))
	b.mustBe(b.Decide(ctx, id, "bruno", true, ""), onboard.ErrNotFound)
}

// TestNoProbing registers with an address that is known and with one that is not.
func TestNoProbing(t *testing.T) {
	b, ctx := newBox(t), t.Context()
	for _, address := range []string{"anna@mail.example", "nobody@mail.example"} {
		if err := b.Register(ctx, b.request("Anna", "", address, "choir")); err != nil {
			t.Errorf("%s: error %v", address, err)
		}
		if n := len(b.letters(address)); n != 1 {
			t.Errorf("%s gets %d mails", address, n)
		}
	}
	m, token := b.letter("anna@mail.example", "Your registration")
	if !strings.Contains(m.Text, `"anna"`) {
		t.Errorf("text %q", m.Text)
	}
	// Her sister has the same address, and may have an account of her own.
	a, err := b.Confirm(ctx, token)
	if err != nil || a.Known != "anna" {
		t.Errorf("%+v, error %v", a, err)
	}
}

func TestMachines(t *testing.T) {
	b, ctx := newBox(t), t.Context()
	quiet := func(r onboard.Request, want error) {
		t.Helper()
		b.mustBe(b.Register(ctx, r), want)
		if items, _ := b.queue.Pending(); len(items) != 0 {
			t.Errorf("%d mails were sent", len(items))
			b.must(b.queue.Remove(items[0].ID))
		}
	}
	good := func() onboard.Request { return b.request("Eve", "", "eve@mail.example", "bees") }
	r := good()
	r.Trap = "https://pills.example"
	quiet(r, nil)
	r = good()
	r.Form = b.NewForm()
	quiet(r, onboard.ErrForm)
	r = good()
	r.Form = r.Form[1:]
	quiet(r, onboard.ErrForm)
	r = good()
	b.clock = b.clock.Add(25 * time.Hour)
	quiet(r, onboard.ErrForm)
	r = good()
	r.Group = "nothing"
	quiet(r, onboard.ErrGroup)
	r = good()
	r.Mail = "eve@mail.example\r\nBcc: all@mail.example"
	quiet(r, directory.ErrMail)
	r = good()
	r.Mail = ""
	quiet(r, directory.ErrMail)
	r = good()
	r.Given = "Eve\x1b[2J"
	quiet(r, directory.ErrText)
	for _, name := range []string{"win https://pills.example", "WWW.pills.example", "eve@pills.example", strings.Repeat("a", 61)} {
		r = good()
		r.Family = name
		quiet(r, directory.ErrText)
	}
	r = good()
	r.Given = ""
	quiet(r, directory.ErrText)
	r = good()
	b.must(b.Register(ctx, r))
	b.mustBe(b.Register(ctx, r), onboard.ErrForm)
}

func TestLimits(t *testing.T) {
	b, ctx := newBox(t), t.Context()
	for range 5 { // one address: only so many mails, and always the same answer
		b.must(b.Register(ctx, b.request("Eve", "", "eve@mail.example", "bees")))
		b.clock = b.clock.Add(10 * time.Minute)
	}
	if n := len(b.letters("eve@mail.example")); n != 3 {
		t.Errorf("%d mails to one address", n)
	}
	var err error
	for n := range 10 { // one household
		r := b.request("Eve", "", "eve"+string(rune('a'+n))+"@mail.example", "bees")
		r.Address = "2001:db8::" + string(rune('1'+n%8))
		if err = b.Register(ctx, r); err != nil {
			break
		}
	}
	b.mustBe(err, onboard.ErrBusy)
	r := b.request("Ada", "", "ada@mail.example", "bees")
	r.Address = "2001:db8:0:1::1"
	b.must(b.Register(ctx, r))
}

// TestTwoDecideAtOnce has two owners and an officer answer at the same moment: one answer counts.
func TestTwoDecideAtOnce(t *testing.T) {
	b, ctx := newBox(t), t.Context()
	for range 5 {
		id := b.ask("Eve", "Stranger", "eve@mail.example", "bees")
		b.clock = b.clock.Add(24 * time.Hour)
		answers := make(chan error)
		for admin, yes := range map[string]bool{"berta": true, "bruno": false, "olga": true} {
			go func() { answers <- b.Decide(ctx, id, admin, yes, "") }()
		}
		won := 0
		for range 3 {
			if err := <-answers; err == nil {
				won++
			} else if !errors.Is(err, onboard.ErrDecided) {
				t.Error(err)
			}
		}
		if won != 1 {
			t.Errorf("%d answers count", won)
		}
		a, err := b.Find(id)
		b.must(err)
		_, err = b.dir.PersonByMail(ctx, "eve@mail.example")
		if got := err == nil; got != (a.State == onboard.Ready) {
			t.Errorf("state %s by %s, and there is an account: %t", a.State, a.By, got)
		}
		if err == nil {
			b.must(b.dir.RemovePerson(ctx, "eve.stranger"))
		}
	}
}

func TestNobodyAnswers(t *testing.T) {
	b, ctx := newBox(t), t.Context()
	id := b.ask("Eve", "", "eve@mail.example", "bees")
	asked := b.clock
	for _, step := range []struct {
		after             time.Duration
		berta, olga, eve  int
		subjectOfTheOwner string
	}{
		{47 * time.Hour, 1, 0, 1, "Eve would"}, {48 * time.Hour, 2, 0, 1, "Still waiting"}, {71 * time.Hour, 2, 0, 1, "Still waiting"},
		{72 * time.Hour, 2, 1, 1, "Still waiting"}, {29 * 24 * time.Hour, 2, 1, 1, "Still waiting"},
		{30 * 24 * time.Hour, 2, 1, 2, "Still waiting"}, {40 * 24 * time.Hour, 2, 1, 2, "Still waiting"},
	} {
		b.clock = asked.Add(step.after)
		b.must(b.Tick(ctx), b.Tick(ctx))
		b.letter("berta@mail.example", step.subjectOfTheOwner)
		got := [3]int{len(b.letters("berta@mail.example")), len(b.letters("olga@mail.example")), len(b.letters("eve@mail.example"))}
		if got != [3]int{step.berta, step.olga, step.eve} {
			t.Errorf("after %s mails to berta, olga, eve: %v", step.after, got)
		}
	}
	b.letter("eve@mail.example", "Nobody has answered")
	b.mustBe(b.Decide(ctx, id, "berta", true, ""), onboard.ErrDecided)
}

// TestGroupWithoutOwner asks the officers at once.
func TestGroupWithoutOwner(t *testing.T) {
	b, ctx := newBox(t), t.Context()
	id := b.ask("Eve", "", "eve@mail.example", "choir")
	b.letter("olga@mail.example", `Eve would like to join "Choir"`)
	pending, err := b.Pending(ctx, "olga")
	if err != nil || len(pending) != 1 || pending[0].ID != id {
		t.Errorf("%v, error %v", pending, err)
	}
	if pending, err := b.Pending(ctx, "berta"); err != nil || len(pending) != 0 {
		t.Errorf("an owner of another group sees %v, error %v", pending, err)
	}
	b.mustBe(b.Decide(ctx, id, "berta", true, ""), onboard.ErrForbidden)
}

// TestGroupGone removes the group while somebody waits for it, and right after the yes.
func TestGroupGone(t *testing.T) {
	b, ctx := newBox(t), t.Context()
	id := b.ask("Eve", "", "eve@mail.example", "bees")
	b.must(b.dir.RemoveGroup(ctx, "bees"))
	b.mustBe(b.Decide(ctx, id, "berta", true, ""), onboard.ErrForbidden)
	b.clock = b.clock.Add(48 * time.Hour)
	b.must(b.Tick(ctx))
	if n := len(b.letters("olga@mail.example")); n != 0 {
		t.Errorf("%d mails to the officer before it is her turn", n)
	}
	b.clock = b.clock.Add(24 * time.Hour)
	b.must(b.Tick(ctx))
	b.letter("olga@mail.example", "No answer yet")
	b.must(b.Move(ctx, id, "olga", "choir"))
	b.must(b.Decide(ctx, id, "olga", true, ""))
	if got := b.members("choir"); !slices.Equal(got, []string{"eve"}) {
		t.Errorf("members %v", got)
	}
	_, token := b.letter("eve@mail.example", "Welcome")
	_, err := b.SetUp(ctx, token, password)
	b.must(err)
}

func TestLinksGrowOld(t *testing.T) {
	b, ctx := newBox(t), t.Context()
	b.must(b.Register(ctx, b.request("Eve", "", "eve@mail.example", "bees")))
	_, token := b.letter("eve@mail.example", "confirm")
	b.clock = b.clock.Add(25 * time.Hour)
	_, err := b.Confirm(ctx, token)
	b.mustBe(err, onboard.ErrLink)
	b.must(b.Tick(ctx))
	id := b.ask("Eve", "", "eve@mail.example", "bees")
	b.must(b.Decide(ctx, id, "berta", true, ""))
	_, token = b.letter("eve@mail.example", "Welcome")
	_, err = b.Confirm(ctx, token)
	b.mustBe(err, onboard.ErrLink)
	b.clock = b.clock.Add(8 * 24 * time.Hour)
	_, err = b.SetUp(ctx, token, password)
	b.mustBe(err, onboard.ErrLink)
	b.must(b.Tick(ctx))
	left, err := b.Unfinished()
	if err != nil || len(left) != 1 || left[0].Person != "eve" {
		t.Errorf("unfinished are %v, error %v", left, err)
	}
	_, err = b.Welcome(ctx, "berta", "eve")
	b.mustBe(err, onboard.ErrForbidden)
	first, err := b.Welcome(ctx, "olga", "eve")
	b.must(err)
	second, err := b.Welcome(ctx, "olga", "eve")
	b.must(err)
	_, err = b.SetUp(ctx, tokens.FindStringSubmatch(first)[1], password)
	b.mustBe(err, onboard.ErrLink)
	token = tokens.FindStringSubmatch(second)[1]
	b.must(b.dir.Deactivate(ctx, "eve"))
	_, err = b.SetUp(ctx, token, password)
	b.mustBe(err, onboard.ErrLink)
	b.must(b.dir.Activate(ctx, "eve"))
	_, err = b.SetUp(ctx, token, password)
	b.must(err)
	if left, err := b.Unfinished(); err != nil || len(left) != 0 {
		t.Errorf("unfinished are %v, error %v", left, err)
	}
}

func TestMemberAsks(t *testing.T) {
	b, ctx := newBox(t), t.Context()
	b.must(b.JoinAsk(ctx, "anna", "bees", "I like honey."), b.JoinAsk(ctx, "anna", "bees", "I do."))
	if n := len(b.letters("berta@mail.example")); n != 1 {
		t.Errorf("%d mails to the owner", n)
	}
	asked, err := b.AskedBy("anna")
	if err != nil || len(asked) != 1 {
		t.Fatalf("asked for %v, error %v", asked, err)
	}
	b.must(b.Decide(ctx, asked[0].ID, "berta", true, ""))
	if got := b.members("bees"); !slices.Equal(got, []string{"anna"}) {
		t.Errorf("members %v", got)
	}
	b.letter("anna@mail.example", "You belong")
	b.mustBe(b.JoinAsk(ctx, "anna", "bees", ""), onboard.ErrMember)
	b.mustBe(b.JoinAsk(ctx, "anna", "nothing", ""), onboard.ErrGroup)
}

// TestNamesakes has somebody go who has a link for a first password and a wish to join a group. Neither is for whoever gets the
// name later.
func TestNamesakes(t *testing.T) {
	b := newBox(t)
	ctx := t.Context()
	ida := directory.Person{Name: "ida", Given: "Ida", OutsideMail: "ida@mail.example"}
	b.must(b.dir.AddPerson(ctx, ida))
	_, err := b.Welcome(ctx, "olga", "ida")
	b.must(err, b.JoinAsk(ctx, "ida", "bees", "please"), b.Tick(ctx))
	_, token := b.letter("ida@mail.example", "")
	if name, err := b.SetUpFor(ctx, token); err != nil || name != "ida" {
		t.Errorf("while she is there: %q, %v", name, err)
	}
	if asked, err := b.AskedBy("ida"); err != nil || len(asked) != 1 {
		t.Errorf("while she is there: %v, %v", asked, err)
	}
	b.must(b.dir.RemovePerson(ctx, "ida"), b.Tick(ctx), b.dir.AddPerson(ctx, ida))
	_, err = b.SetUpFor(ctx, token)
	b.mustBe(err, onboard.ErrLink)
	if asked, err := b.AskedBy("ida"); err != nil || len(asked) != 0 {
		t.Errorf("the namesake asks for %v, %v", asked, err)
	}
}
