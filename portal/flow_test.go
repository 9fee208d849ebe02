package portal_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"golang.org/x/sys/unix"

	"allotment/portal/directory"
	"allotment/portal/portaltest"
)

// TestJoining leads a newcomer from the form to her first page, without scripts, by what the mails say.
func TestJoining(t *testing.T) {
	p := start(t)
	b := p.Stranger(t)
	form := b.Get("/portal/register")
	fields := formsOf(form, "")["/portal/register"]
	fields.Set("given", "Nora")
	fields.Set("family", "Neu")
	fields.Set("mail", "nora@mail.example")
	fields.Set("group", "bees")
	p.Advance(10 * time.Second) // a person takes her time
	if page := b.Follow(b.Post("/portal/register", fields)); !page.Says("look into your mail") {
		t.Fatalf("%d %s", page.Status, page.Words())
	}
	link := mailed(t, p, "nora@mail.example")
	confirm := b.Get(link)
	if page := b.Follow(b.Post("/portal/register/confirm", formsOf(confirm, "")["/portal/register/confirm"])); !page.Says("Thank you") {
		t.Fatalf("%d %s", page.Status, page.Words())
	}
	if page := p.LogIn(t, portaltest.Member).Get(mailed(t, p, "berta@mail.example")); page.Status != http.StatusForbidden {
		t.Errorf("a member who does not decide sees the request: %d", page.Status)
	}
	berta := p.LogIn(t, portaltest.Owner)
	asked := mailed(t, p, "berta@mail.example")
	if page := berta.Get(asked); !page.Says("Do you know Nora Neu?") {
		t.Fatalf("%d %s", page.Status, page.Words())
	}
	if page := berta.Send(asked, "answer", "yes"); !page.Says("Nora Neu is let in") {
		t.Fatalf("%d %s", page.Status, page.Words())
	}
	if page := berta.Send(asked, "answer", "no"); page.Status != http.StatusConflict || !page.Says("answered already") {
		t.Errorf("a second answer: %d %s", page.Status, page.Words())
	}
	begin := mailed(t, p, "nora@mail.example")
	setUp := formsOf(b.Get(begin), "")["/portal/setup"]
	for password, want := range map[string]string{"short": "too short", "passwordpassword": "strangers try first"} {
		setUp.Set("password", password)
		setUp.Set("repeat", password)
		if page := b.Post("/portal/setup", setUp); page.Status != http.StatusUnprocessableEntity || !page.Says(want) {
			t.Errorf("password %q: %d %s", password, page.Status, page.Words())
		}
	}
	setUp.Set("password", "runner beans in june")
	setUp.Set("repeat", "runner beans in june")
	if page := b.Follow(b.Post("/portal/setup", setUp)); !page.Says("Welcome! You are logged in.") || !page.Says("Hello, Nora Neu") {
		t.Fatalf("%d %s", page.Status, page.Words())
	}
	if page := b.Follow(b.Post("/portal/setup", setUp)); page.Status != http.StatusForbidden && page.Status != http.StatusGone {
		t.Errorf("the link a second time: %d", page.Status)
	}
}

var linkForm = regexp.MustCompile(`https?://[^/\s]+(/portal/\S+)`)

// mailed is the path of the link in the latest mail to an address.
func mailed(t *testing.T, p *portaltest.Portal, to string) string {
	t.Helper()
	all, err := p.Deps().Mail.Pending()
	if err != nil {
		t.Fatal(err)
	}
	path := ""
	for _, item := range all {
		if m := linkForm.FindStringSubmatch(item.Message.Text); item.Message.To == to && m != nil {
			path = m[1]
		}
	}
	if path == "" {
		t.Fatalf("no mail to %s has a link", to)
	}
	return path
}

// TestLoggingIn logs in by password, with a code, and by an officer's code, and out.
func TestLoggingIn(t *testing.T) {
	p := start(t)
	b := p.Stranger(t)
	if page := b.Send("/portal/login", "name", portaltest.Member, "password", "wrong password"); page.Status != http.StatusUnprocessableEntity ||
		!page.Says("do not fit") || strings.Contains(page.Text, "wrong password") {
		t.Errorf("%d %s", page.Status, page.Words())
	}
	if page := b.Send("/portal/login", "name", portaltest.Member, "password", portaltest.Password, "to", "/portal/groups"); page.Path != "/portal/groups" {
		t.Fatalf("%d at %s: %s", page.Status, page.Path, page.Words())
	}
	totpPage := b.Get("/portal/me/totp")
	secret, ticket := "", ""
	for n := range totpPage.All("p", "input") {
		if portaltest.Attr(n, "class") == "code" {
			secret = words(n)
		}
		if portaltest.Attr(n, "name") == "ticket" {
			ticket = portaltest.Attr(n, "value")
		}
	}
	code, err := totp.GenerateCode(secret, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if page := b.Send("/portal/me/totp", "ticket", ticket, "code", code); !page.Says("Turned on") {
		t.Fatalf("%d %s", page.Status, page.Words())
	}
	if page := b.Send("/portal/logout"); !page.Says("You are logged out") {
		t.Errorf("%d %s", page.Status, page.Words())
	}
	second := b.Send("/portal/login", "name", portaltest.Member, "password", portaltest.Password)
	if !second.Says("One more step") {
		t.Fatalf("%d %s", second.Status, second.Words())
	}
	if page := b.Get("/portal/me"); !isLogin(page) {
		t.Errorf("half of the login is enough: %d", page.Status)
	}
	p.Advance(time.Minute)
	if code, err = totp.GenerateCode(secret, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	fields := formsOf(second, "")["/portal/login/code"]
	fields.Set("code", code)
	if page := b.Follow(b.Post("/portal/login/code", fields)); !page.Says("Hello, Anna Apfel") {
		t.Fatalf("%d %s", page.Status, page.Words())
	}
	made := p.LogIn(t, portaltest.Officer).Send("/portal/people/p/anna/code")
	recovery := ""
	for n := range made.All("p") {
		if portaltest.Attr(n, "class") == "code" {
			recovery = words(n)
		}
	}
	lost := p.Stranger(t)
	if page := lost.Send("/portal/login/forgotten", "name", "anna", "code", recovery); page.Path != "/portal/me/password" {
		t.Fatalf("%d at %s %s", page.Status, page.Path, page.Words())
	}
	if page := b.Get("/portal/me"); !isLogin(page) {
		t.Errorf("the other sessions go on: %d", page.Status)
	}
}

// TestConflict has two officers edit a person at once.
func TestConflict(t *testing.T) {
	p := start(t)
	b := p.LogIn(t, portaltest.Officer)
	fields := formsOf(b.Get("/portal/people/p/anna"), "")["/portal/people/p/anna"]
	if err := p.Directory.ChangePerson(context.Background(), "anna", "", func(v *directory.Person) { v.Given, v.Phone = "Annabelle", "123" }); err != nil {
		t.Fatal(err)
	}
	fields.Set("given", "Änne")
	page := b.Post("/portal/people/p/anna", fields)
	if page.Status != http.StatusConflict || !page.Says("Annabelle") || !page.Says("Änne") || !page.Says("Somebody else has changed this") {
		t.Fatalf("%d %s", page.Status, page.Words())
	}
	for n := range page.All("input") {
		if portaltest.Attr(n, "name") == "revision" {
			fields.Set("revision", portaltest.Attr(n, "value"))
		}
	}
	if page := b.Follow(b.Post("/portal/people/p/anna", fields)); !page.Says("Saved.") {
		t.Errorf("%d %s", page.Status, page.Words())
	}
	if v, err := p.Directory.Person(context.Background(), "anna"); err != nil || v.Given != "Änne" {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestLeaving ends a person's access, and looks that the one who does it cannot be locked out.
func TestLeaving(t *testing.T) {
	p := start(t)
	anna, olga := p.LogIn(t, portaltest.Member), p.LogIn(t, portaltest.Officer)
	if page := olga.Send("/portal/people/p/anna/deactivate"); !page.Says("can no longer log in") {
		t.Fatalf("%d %s", page.Status, page.Words())
	}
	if page := anna.Get("/portal/"); !isLogin(page) {
		t.Errorf("her session goes on: %d", page.Status)
	}
	for _, path := range []string{"/portal/people/p/olga/deactivate", "/portal/people/p/olga/delete", "/portal/people/offices/treasurer"} {
		if page := olga.Send(path); page.Status != http.StatusConflict {
			t.Errorf("%s: %d %s", path, page.Status, page.Words())
		}
	}
	if page := olga.Send("/portal/people/groups/members/remove"); page.Status != http.StatusForbidden {
		t.Errorf("a fixed group can be removed: %d", page.Status)
	}
	if page := olga.Get("/portal/people/log"); !page.Says("Olga Oberst (olga) ended the access of Anna Apfel (anna).") {
		t.Errorf("the log: %s", page.Words())
	}
}

// processorTime is what the portal has used, and the test, without the directory.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPages is what each page costs with 200 members and 40 groups.
func BenchmarkPages(b *testing.B) {
	p := start(b)
	ctx := context.Background()
	for i := range 40 {
		if err := p.Directory.AddGroup(ctx, directory.Group{Name: fmt.Sprintf("group%d", i), Title: fmt.Sprintf("Group %d", i)}); err != nil {
			b.Fatal(err)
		}
	}
	for i := range 200 {
		name := fmt.Sprintf("person%d", i)
		if err := p.Directory.AddPerson(ctx, directory.Person{Name: name, Given: "Given", Family: fmt.Sprintf("Family%d", i), OutsideMail: name + "@mail.example"}); err != nil {
			b.Fatal(err)
		}
		if err := p.Directory.AddMember(ctx, fmt.Sprintf("group%d", i%40), name); err != nil {
			b.Fatal(err)
		}
	}
	browser := p.LogIn(b, portaltest.Officer)
	for _, route := range p.Site().Routes() {
		path := at(route, "")
		if route.Method != http.MethodGet || route.Wire || browser.Get(path).Status != http.StatusOK {
			continue
		}
		b.Run(strings.TrimPrefix(url.PathEscape(strings.ReplaceAll(path, "/", "-")), "-"), func(b *testing.B) {
			before := processorTime(b)
			for b.Loop() {
				browser.Get(path)
			}
			b.ReportMetric(float64((processorTime(b)-before).Milliseconds())/float64(b.N), "cpu-ms/op")
		})
	}
}

// TestRename renames an office and a collective while somebody else does the same.
func TestRename(t *testing.T) {
	p := start(t)
	ctx := context.Background()
	if err := p.Directory.AddCollective(ctx, directory.Collective{Name: "youth", Title: "Youth"}); err != nil {
		t.Fatal(err)
	}
	b := p.LogIn(t, portaltest.Officer)
	for _, c := range []struct {
		list, name string
		meanwhile  func() error
	}{
		{"/portal/people/offices", "treasurer", func() error {
			return p.Directory.ChangeOffice(ctx, "treasurer", "", func(o *directory.Office) { o.Title = "Purser" })
		}},
		{"/portal/people/collectives", "youth", func() error {
			return p.Directory.ChangeCollective(ctx, "youth", "", func(c *directory.Collective) { c.Title = "Purser" })
		}},
	} {
		at := c.list + "/" + c.name + "/title"
		fields := formsOf(b.Get(c.list), "")[at]
		fields.Set("title-"+c.name, "Bursar")
		if err := c.meanwhile(); err != nil {
			t.Fatal(err)
		}
		page := b.Post(at, fields)
		if page.Status != http.StatusConflict || !page.Says("Purser") || !page.Says("Somebody else has changed this") {
			t.Fatalf("%s: %d %s", at, page.Status, page.Words())
		}
		again := formsOf(page, "")[at]
		for n := range page.All("input") {
			if portaltest.Attr(n, "name") == "title-"+c.name {
				again.Set("title-"+c.name, portaltest.Attr(n, "value"))
			}
		}
		if page := b.Follow(b.Post(at, again)); !page.Says("Saved.") || !page.Says("Bursar") {
			t.Errorf("%s: %d %s", at, page.Status, page.Words())
		}
		fields = formsOf(b.Get(c.list), "")[at]
		fields.Set("title-"+c.name, "")
		if page := b.Post(at, fields); page.Status != http.StatusUnprocessableEntity {
			t.Errorf("%s: an empty title: %d", at, page.Status)
		}
	}
	if page := b.Get("/portal/people/log"); !page.Says("renamed office treasurer to “Bursar”") || !page.Says("renamed collective youth") {
		t.Errorf("the log: %s", page.Words())
	}
}
