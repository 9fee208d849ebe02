// Package directory_test asks the directory module's real slapd.
package directory_test

import (
	"cmp"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"allotment/modules/directory/directorytest"
	"allotment/portal/directory"
)

func TestMain(m *testing.M) { directorytest.Main(m) }

// server is a directory of its own with the portal's connection to it.
type server struct {
	*directory.Directory
	address, password string
}

func start(t testing.TB) server {
	t.Helper()
	address, password := directorytest.Start(t)
	d := directory.Open(address, func() (string, error) { return password, nil })
	t.Cleanup(func() { d.Close() })
	return server{d, address, password}
}

// bind logs in as a module does.
func (s server) bind(t testing.TB, person, password string) error {
	t.Helper()
	c, err := ldap.DialURL("ldap://" + s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = c.Bind("uid="+person+",ou=people,o=organisation", password)
	if err != nil && !ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials) {
		t.Fatal(err)
	}
	return err
}

func mustDo(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func mustBe(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

// alike compares but for what every change changes.
func alike(t testing.TB, want, got any) {
	t.Helper()
	revision := cmpopts.IgnoreFields
	if diff := gocmp.Diff(want, got, revision(directory.Person{}, "Revision"), revision(directory.Group{}, "Revision"),
		revision(directory.Office{}, "Revision"), revision(directory.Collective{}, "Revision"),
		cmpopts.IgnoreUnexported(directory.AppPassword{}), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

const password = "correct horse battery staple"

var anna = directory.Person{Name: "anna", Given: "Anna", Family: "Archer", Display: "Anna Archer", Mail: "anna@ashwell.example",
	OutsideMail: "anna@elsewhere.example", Forward: "a@third.example", Phone: "+44 1462 555 0123", Language: "en", Active: true,
	Photo: []byte("\xff\xd8\xff\x00picture")}

func person(name string) directory.Person { return directory.Person{Name: name} }

func TestPeople(t *testing.T) {
	s, ctx := start(t), t.Context()
	mustDo(t, s.AddPerson(ctx, anna), s.AddMember(ctx, "members", "anna"))
	want := anna
	want.Groups = []string{"members"}
	got, err := s.Person(ctx, "anna")
	mustDo(t, err)
	alike(t, want, got)
	for _, address := range []string{anna.Mail, anna.OutsideMail} {
		if got, err := s.PersonByMail(ctx, address); err != nil || got.Name != "anna" {
			t.Errorf("%s belongs to %q, error %v", address, got.Name, err)
		}
	}
	_, err = s.PersonByMail(ctx, "*")
	mustBe(t, err, directory.ErrNotFound)
	mustBe(t, s.AddPerson(ctx, anna), directory.ErrExists)
	mustBe(t, s.AddPerson(ctx, directory.Person{Name: "bert", Mail: anna.Mail}), directory.ErrExists)
	mustBe(t, s.AddPerson(ctx, person("probe-web")), directory.ErrName)
	mustDo(t, s.AddPerson(ctx, person("bert")), s.RemovePerson(ctx, "anna"))
	mustBe(t, s.RemovePerson(ctx, "anna"), directory.ErrNotFound)
	people, err := s.People(ctx)
	mustDo(t, err)
	alike(t, []directory.Person{{Name: "bert", Display: "bert", Family: "bert", Active: true}}, people)
	if g, err := s.Group(ctx, "members"); err != nil || len(g.Members) != 0 {
		t.Errorf("the group still has %v, error %v", g.Members, err)
	}
}

// TestTwoOfficers change one person: the second is told. What others' methods do is no change of hers.
func TestTwoOfficers(t *testing.T) {
	s, ctx := start(t), t.Context()
	mustDo(t, s.AddPerson(ctx, anna), s.SetPassword(ctx, "anna", password))
	before, err := s.Person(ctx, "anna")
	mustDo(t, err)
	mustDo(t, s.ChangePerson(ctx, "anna", before.Revision, func(p *directory.Person) { p.Display, p.Forward = "Anna Äpfel", "" }))
	mustBe(t, s.ChangePerson(ctx, "anna", before.Revision, func(p *directory.Person) { p.Phone = "" }), directory.ErrConflict)
	want := anna
	want.Display, want.Forward = "Anna Äpfel", ""
	after, err := s.Person(ctx, "anna")
	mustDo(t, err)
	alike(t, want, after)
	mustBe(t, s.Authenticate(ctx, "anna", "wrong"), directory.ErrPassword)
	mustDo(t, s.AddMember(ctx, "members", "anna"), s.Authenticate(ctx, "anna", password))
	mustDo(t, s.ChangePerson(ctx, "anna", after.Revision, func(p *directory.Person) { p.Phone = "" }))
}

func TestPasswords(t *testing.T) {
	s, ctx := start(t), t.Context()
	login := func(with string) error { return s.Authenticate(ctx, "anna", with) }
	mustDo(t, s.AddPerson(ctx, anna))
	mustBe(t, login(password), directory.ErrPassword) // there is none yet
	mustBe(t, login(""), directory.ErrPassword)
	mustDo(t, s.SetPassword(ctx, "anna", password), login(password))
	mustBe(t, login(password+"!"), directory.ErrPassword)
	mustBe(t, login(""), directory.ErrPassword)
	for _, weak := range []string{"", "short", "{SSHA}abcdefghijklmnopqrstuvwxyz", "app-0000-0000-0000-0000-0000"} {
		mustBe(t, s.SetPassword(ctx, "anna", weak), directory.ErrWeak)
	}
	mustBe(t, s.SetPassword(ctx, "nobody", password), directory.ErrNotFound)
	mustDo(t, login(password), s.SetPassword(ctx, "anna", "another "+password), login("another "+password))
	mustBe(t, login(password), directory.ErrPassword)
}

// TestDeactivated measures that a bind fails right after.
func TestDeactivated(t *testing.T) {
	s, ctx := start(t), t.Context()
	mustDo(t, s.AddPerson(ctx, anna), s.SetPassword(ctx, "anna", password))
	_, app, err := s.AddAppPassword(ctx, "anna", "iPad", time.Time{})
	mustDo(t, err, s.bind(t, "anna", app), s.bind(t, "anna", password))
	refused := func() {
		t.Helper()
		if s.bind(t, "anna", app) == nil || s.bind(t, "anna", password) == nil {
			t.Error("a person who is deactivated can log in")
		}
	}
	mustDo(t, s.Deactivate(ctx, "anna"))
	refused()
	mustDo(t, s.SetPassword(ctx, "anna", password)) // unlocks what ppolicy has locked, and nothing else
	refused()
	mustDo(t, s.Activate(ctx, "anna"), s.bind(t, "anna", app), s.bind(t, "anna", password))

	at := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	mustDo(t, s.Delete(ctx, "anna", at))
	refused()
	if p, err := s.Person(ctx, "anna"); err != nil || p.Active || !p.DeleteAt.Equal(at) {
		t.Errorf("%+v, error %v", p, err)
	}
	gone, err := s.Purge(ctx, at.Add(-time.Second))
	mustDo(t, err)
	mustDo(t, s.Undelete(ctx, "anna"))
	more, err := s.Purge(ctx, at)
	mustDo(t, err)
	if len(gone)+len(more) != 0 {
		t.Errorf("purged %q and %q", gone, more)
	}
	refused()
	mustDo(t, s.Activate(ctx, "anna"), s.bind(t, "anna", password), s.Delete(ctx, "anna", at))
	if gone, err = s.Purge(ctx, at); err != nil || !slices.Equal(gone, []string{"anna"}) {
		t.Errorf("purged %q, error %v", gone, err)
	}
	_, err = s.Person(ctx, "anna")
	mustBe(t, err, directory.ErrNotFound)
}

func TestAppPasswords(t *testing.T) {
	s, ctx := start(t), t.Context()
	mustDo(t, s.AddPerson(ctx, anna), s.SetPassword(ctx, "anna", password))
	expires := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	pad, padSecret, err := s.AddAppPassword(ctx, "anna", "Anna's iPad", expires)
	mustDo(t, err)
	phone, phoneSecret, err := s.AddAppPassword(ctx, "anna", "", time.Time{})
	mustDo(t, err, s.bind(t, "anna", padSecret), s.bind(t, "anna", phoneSecret), s.bind(t, "anna", password))
	mustBe(t, s.Authenticate(ctx, "anna", padSecret), directory.ErrPassword)
	list, err := s.AppPasswords(ctx, "anna")
	mustDo(t, err)
	slices.SortFunc(list, func(a, b directory.AppPassword) int { return -cmp.Compare(a.Label, b.Label) })
	if len(list) != 2 || list[0].ID != pad || list[0].Label != "Anna's iPad" || !list[0].Expires.Equal(expires) ||
		list[1].ID != phone || !list[1].Expires.IsZero() || time.Since(list[1].Created) > time.Minute {
		t.Errorf("listed are %+v", list)
	}
	mustDo(t, s.SetPassword(ctx, "anna", "another "+password), s.bind(t, "anna", padSecret), s.bind(t, "anna", phoneSecret))
	if _, err := s.Purge(ctx, expires); err != nil || s.bind(t, "anna", padSecret) == nil {
		t.Errorf("an expired one still works, error %v", err)
	}
	mustDo(t, s.bind(t, "anna", phoneSecret), s.RemoveAppPassword(ctx, "anna", phone))
	if s.bind(t, "anna", phoneSecret) == nil {
		t.Error("a removed one still works")
	}
	mustBe(t, s.RemoveAppPassword(ctx, "anna", phone), directory.ErrNotFound)
	mustDo(t, s.bind(t, "anna", "another "+password))
}

func TestGroupsCollectivesOffices(t *testing.T) {
	s, ctx := start(t), t.Context()
	choir := directory.Collective{Name: "choir", Title: "The Choir", Mail: "choir@ashwell.example", Owners: []string{"anna"}}
	basses := directory.Group{Name: "basses", Title: "Basses", About: "Who sings low", Collective: "choir",
		Owners: []string{"anna"}, Members: []string{"bert"}}
	bert := directory.Person{Name: "bert", Collective: "choir"}
	mustDo(t, s.AddPerson(ctx, anna), s.AddCollective(ctx, choir), s.AddPerson(ctx, bert), s.AddGroup(ctx, basses))
	mustBe(t, s.AddMember(ctx, "basses", "bert"), directory.ErrExists)
	mustBe(t, s.AddMember(ctx, "basses", "nobody"), directory.ErrNotFound)
	mustBe(t, s.AddMember(ctx, "nogroup", "bert"), directory.ErrNotFound)
	mustBe(t, s.RemoveMember(ctx, "basses", "anna"), directory.ErrNotFound)
	mustBe(t, s.AddGroup(ctx, basses), directory.ErrExists)
	got, err := s.Group(ctx, "basses")
	mustDo(t, err)
	alike(t, basses, got)
	mustDo(t, s.ChangeGroup(ctx, "basses", got.Revision, func(g *directory.Group) { g.About = "" }))
	mustBe(t, s.ChangeGroup(ctx, "basses", got.Revision, func(g *directory.Group) { g.Title = "" }), directory.ErrConflict)
	mustDo(t, s.SetOwners(ctx, "basses", []string{"bert"}))
	basses.About, basses.Owners = "", []string{"bert"}
	for _, list := range []func() ([]directory.Group, error){
		func() ([]directory.Group, error) { return s.GroupsOf(ctx, "bert") },
		func() ([]directory.Group, error) { return s.GroupsOwnedBy(ctx, "bert") },
	} {
		all, err := list()
		mustDo(t, err)
		alike(t, []directory.Group{basses}, all)
	}
	collectives, err := s.Collectives(ctx)
	mustDo(t, err)
	alike(t, []directory.Collective{choir}, collectives)
	if all, err := s.PeopleOf(ctx, "choir"); err != nil || len(all) != 1 || !slices.Equal(all[0].Groups, []string{"basses"}) {
		t.Errorf("people of the choir %+v, error %v", all, err)
	}
	mustDo(t, s.RemoveMember(ctx, "basses", "bert"), s.RemoveGroup(ctx, "basses"), s.RemoveCollective(ctx, "choir"))
	mustBe(t, s.RemoveGroup(ctx, "basses"), directory.ErrNotFound)
	if all, err := s.Groups(ctx); err != nil || len(all) != 2 {
		t.Errorf("groups %+v, error %v", all, err)
	}
}

func TestOffices(t *testing.T) {
	s, ctx := start(t), t.Context()
	mustDo(t, s.AddPerson(ctx, anna), s.AddPerson(ctx, person("bert")))
	from := time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
	until := from.AddDate(2, 0, 0)
	librarian := directory.Office{Name: "librarian", Mail: "books@ashwell.example", Occupant: "bert"}
	mustDo(t, s.AppointTo(ctx, "treasurer", "anna", from, until), s.AddOffice(ctx, librarian))
	mustBe(t, s.AppointTo(ctx, "treasurer", "nobody", from, until), directory.ErrNotFound)
	if s.AppointTo(ctx, "treasurer", "bert", until, from) == nil || s.RemoveOffice(ctx, "treasurer") == nil {
		t.Error("a term ends before it begins, or the treasurer's office can go")
	}
	holds := func(who string, at time.Time, want bool) {
		t.Helper()
		if got, err := s.HoldsOffice(ctx, who, at); err != nil || got != want {
			t.Errorf("%s is an officer at %v: %v, error %v", who, at, got, err)
		}
		all, err := s.Officers(ctx, at) // each once, however many offices she holds
		n := 0
		for _, o := range all {
			if o.Name == who {
				n++
			}
		}
		if err != nil || (n == 1) != want || n > 1 {
			t.Errorf("%s is %d times among the officers at %v, error %v", who, n, at, err)
		}
	}
	holds("anna", from.Add(-time.Second), false)
	holds("anna", from, true)
	mustDo(t, s.AppointTo(ctx, "chair", "anna", from, until))
	holds("anna", from, true)
	mustDo(t, s.AppointTo(ctx, "chair", "", time.Time{}, time.Time{}))
	holds("anna", until, false)
	holds("bert", from, false)
	mustDo(t, s.ChangeOffice(ctx, "librarian", "", func(o *directory.Office) { o.RunsBox = true }))
	holds("bert", from, true)
	mustDo(t, s.Deactivate(ctx, "bert"))
	holds("bert", from, false)
	mustDo(t, s.Activate(ctx, "bert"), s.HandOver(ctx, "anna", "bert"))
	holds("anna", from, false)
	all, err := s.Offices(ctx)
	mustDo(t, err)
	librarian.RunsBox = true
	alike(t, []directory.Office{{Name: "chair"}, librarian, {Name: "secretary"},
		{Name: "treasurer", Occupant: "bert", Start: from, End: until}}, all)
	mustDo(t, s.AppointTo(ctx, "treasurer", "", time.Time{}, time.Time{}), s.RemoveOffice(ctx, "librarian"))
	holds("bert", from, false)
}

// TestHandOver gives away what one person decides about, also where the heir decides too.
func TestHandOver(t *testing.T) {
	s, ctx := start(t), t.Context()
	mustDo(t, s.AddPerson(ctx, anna), s.AddPerson(ctx, person("bert")),
		s.AddGroup(ctx, directory.Group{Name: "one", Owners: []string{"anna"}, Members: []string{"anna"}}),
		s.AddGroup(ctx, directory.Group{Name: "two", Owners: []string{"anna", "bert"}}),
		s.AddCollective(ctx, directory.Collective{Name: "choir", Owners: []string{"anna"}}))
	mustBe(t, s.HandOver(ctx, "anna", "nobody"), directory.ErrNotFound)
	mustDo(t, s.HandOver(ctx, "anna", "anna"), s.HandOver(ctx, "anna", "bert"))
	groups, err := s.GroupsOwnedBy(ctx, "bert")
	mustDo(t, err)
	alike(t, []directory.Group{{Name: "one", Owners: []string{"bert"}, Members: []string{"anna"}},
		{Name: "two", Owners: []string{"bert"}}}, groups)
	if all, err := s.Collectives(ctx); err != nil || !slices.Equal(all[0].Owners, []string{"bert"}) {
		t.Errorf("collectives %+v, error %v", all, err)
	}
}

// TestPermissions looks that what a module's filter finds follows groups and grants.
func TestPermissions(t *testing.T) {
	s, ctx := start(t), t.Context()
	mustDo(t, s.AddPerson(ctx, anna), s.AddPerson(ctx, person("bert")), s.AddMember(ctx, "members", "anna"),
		s.AddGroup(ctx, directory.Group{Name: "editors"}))
	may := func(want ...string) {
		t.Helper()
		for _, name := range []string{"anna", "bert"} {
			got, err := s.Allowed(ctx, name, "web", "edit")
			if err != nil || got != slices.Contains(want, name) {
				t.Errorf("%s may: %v, error %v", name, got, err)
			}
		}
	}
	may()
	mustDo(t, s.DeclarePermission(ctx, "web", "edit", "members"))
	mustBe(t, s.DeclarePermission(ctx, "web", "edit", "officers"), directory.ErrExists)
	may("anna")
	mustDo(t, s.Grant(ctx, "web", "edit", "editors"), s.Grant(ctx, "web", "edit", "editors"))
	mustDo(t, s.AddMember(ctx, "editors", "bert"))
	may("anna", "bert")
	m, err := s.Permissions(ctx)
	mustDo(t, err)
	alike(t, directory.Matrix{"web.edit": {"editors", "members"}}, m)
	if !m.Allows("web", "edit", "editors") || m.Allows("web", "edit", "officers") {
		t.Errorf("matrix %v", m)
	}
	mustBe(t, s.Grant(ctx, "web", "edit", "nogroup"), directory.ErrNotFound)
	mustDo(t, s.Deactivate(ctx, "anna"))
	may("bert")
	mustDo(t, s.Activate(ctx, "anna"), s.RemoveMember(ctx, "editors", "bert"))
	may("anna")
	mustDo(t, s.AddMember(ctx, "editors", "anna"), s.Revoke(ctx, "web", "edit", "members"), s.Revoke(ctx, "web", "edit", "members"))
	may("anna")
	mustDo(t, s.RemoveGroup(ctx, "editors"))
	may()
	mustDo(t, s.Grant(ctx, "chat", "use", "members")) // the first grant declares
	if p, err := s.Person(ctx, "anna"); err != nil || !slices.Equal(p.Permissions, []string{"chat.use"}) ||
		!slices.Equal(p.Groups, []string{"members"}) {
		t.Errorf("%+v, error %v", p, err)
	}
}
