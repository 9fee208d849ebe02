// Package directory_test asks the real slapd of the module, by the portal's client and by LDAP itself.
package directory_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
	gocmp "github.com/google/go-cmp/cmp"

	"allotment/init/render"
	"allotment/modules/moduletest"
	"allotment/portal/directory"
)

func TestMain(m *testing.M) { moduletest.Main(m) }

// server is a running directory.
type server struct {
	*moduletest.Module
	t       *testing.T
	box     *moduletest.Box
	address string
	stop    func()
}

// reader is a module that reads; the real ones come and go.
func reader(name string, read ...string) render.Reader {
	return render.Reader{Module: name, DN: account(name), Password: name + "-secret", Read: read,
		Probe: true, ProbeName: "probe-" + name, ProbePassword: name + "-probe"}
}

func account(name string) string { return "cn=" + name + ",ou=services,o=organisation" }

// newServer makes the first tree of an organisation. It is not started.
func newServer(t *testing.T, readers ...render.Reader) *server {
	t.Helper()
	box := moduletest.New(t, "directory")
	s := &server{t: t, box: box, address: moduletest.FreeAddress(t)}
	s.Module = box.Unpack("directory", func(d *render.Data) { d.LDAP.Readers = readers })
	s.task("create")
	return s
}

// task runs a part of directory.sh.
func (s *server) task(name string) {
	s.t.Helper()
	if _, err := s.Run("/bin/sh", "/usr/lib/allotment/directory.sh", name); err != nil {
		s.t.Fatal(err)
	}
}

// start starts slapd, with an empty folder in memory as the supervisor gives it.
func (s *server) start() {
	s.t.Helper()
	s.Empty("/run/probes")
	s.stop = s.Start(s.address, "/bin/sh", "/usr/lib/allotment/directory.sh", "start", "ldap://"+s.address)
}

func running(t *testing.T, readers ...render.Reader) *server {
	t.Helper()
	s := newServer(t, readers...)
	s.start()
	return s
}

func (s *server) portal() *directory.Client {
	s.t.Helper()
	c, err := directory.Connect(s.t.Context(), s.address, s.box.Secret("directory", "portal"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// bind connects as somebody; both empty is nobody.
func (s *server) bind(dn, password string) *ldap.Conn {
	s.t.Helper()
	c, err := ldap.DialURL("ldap://" + s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	if dn == "" {
		err = c.UnauthenticatedBind("")
	} else {
		err = c.Bind(dn, password)
	}
	if err != nil {
		s.t.Fatalf("cannot bind as %q: %v", dn, err)
	}
	return c
}

// sees lists what a search shows, each as "first part of the name: attributes".
func sees(t *testing.T, c *ldap.Conn, base, filter string) []string {
	t.Helper()
	r, err := c.Search(ldap.NewSearchRequest(base, ldap.ScopeWholeSubtree, 0, 0, 0, false, filter, []string{"*", "+"}, nil))
	if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range r.Entries {
		var names []string
		for _, a := range e.Attributes {
			names = append(names, a.Name)
		}
		slices.Sort(names)
		first, _, _ := strings.Cut(e.DN, ",")
		all = append(all, first+": "+strings.Join(names, " "))
	}
	slices.Sort(all)
	return all
}

func mustDo(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func mustBe(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

const password = "correct horse battery staple"

var anna = directory.Person{Name: "anna", FullName: "Anna Archer", GivenName: "Anna", Surname: "Archer",
	Mail: "anna@ashwell.example", OutsideMail: "anna@elsewhere.example", Language: "en", Groups: []string{"members"}}

func TestPeople(t *testing.T) {
	s := running(t)
	c := s.portal()
	mustDo(t, c.AddPerson(anna, password), c.AddMember("members", "anna"))

	got, err := c.Person("anna")
	mustDo(t, err)
	if diff := gocmp.Diff(anna, got); diff != "" {
		t.Error(diff)
	}
	for _, address := range []string{anna.Mail, anna.OutsideMail} {
		if got, err := c.PersonByMail(address); err != nil || got.Name != "anna" {
			t.Errorf("%s belongs to %q, error %v", address, got.Name, err)
		}
	}
	_, err = c.PersonByMail("*")
	mustBe(t, err, directory.ErrNotFound)
	changed := anna
	changed.FullName, changed.OutsideMail = "Anna Äpfel", ""
	mustDo(t, c.ChangePerson(changed))
	got, err = c.Person("anna")
	mustDo(t, err)
	if diff := gocmp.Diff(changed, got); diff != "" {
		t.Error(diff)
	}

	mustBe(t, c.AddPerson(anna, password), directory.ErrExists)
	mustBe(t, c.AddPerson(directory.Person{Name: "bert", Mail: anna.Mail}, password), directory.ErrExists)
	mustBe(t, c.AddPerson(directory.Person{Name: "bert"}, "short"), directory.ErrWeak)
	mustBe(t, c.AddPerson(directory.Person{Name: "probe-web"}, password), directory.ErrName)
	mustBe(t, c.AddPerson(directory.Person{Name: "bert,ou=groups"}, password), directory.ErrName)
	mustDo(t, c.AddPerson(directory.Person{Name: "bert"}, password))

	mustDo(t, c.RemovePerson("anna"))
	mustBe(t, c.RemovePerson("anna"), directory.ErrNotFound)
	people, err := c.People()
	mustDo(t, err)
	if len(people) != 1 || people[0].Name != "bert" || people[0].FullName != "bert" {
		t.Errorf("left are %+v, want bert alone", people)
	}
	if g, err := c.Group("members"); err != nil || len(g.Members) != 0 {
		t.Errorf("the group still has %v, error %v", g.Members, err)
	}
}

func TestPasswords(t *testing.T) {
	s := running(t)
	c := s.portal()
	ctx := t.Context()
	login := func(with string) error { return directory.Authenticate(ctx, s.address, "anna", with) }
	mustDo(t, c.AddPerson(anna, ""))
	mustBe(t, login(password), directory.ErrPassword) // there is none yet
	mustBe(t, login(""), directory.ErrPassword)
	mustDo(t, c.SetPassword("anna", password), login(password))
	mustBe(t, login(password+"!"), directory.ErrPassword)
	mustBe(t, login(""), directory.ErrPassword)
	mustBe(t, c.SetPassword("anna", ""), directory.ErrWeak)
	mustBe(t, c.SetPassword("anna", "short"), directory.ErrWeak)
	mustDo(t, login(password))

	mustDo(t, c.Suspend("anna", true))
	mustBe(t, login(password), directory.ErrPassword)
	if p, err := c.Person("anna"); err != nil || !p.Suspended {
		t.Errorf("suspended: %v, error %v", p.Suspended, err)
	}
	mustDo(t, c.Suspend("anna", false), login(password))
	_, err := directory.Connect(ctx, s.address, "wrong")
	mustBe(t, err, directory.ErrPassword)

	s.stop()
	out, err := s.Run("/usr/sbin/slapcat", "-f", "/run/config/slapd.conf", "-g", "-b", "o=organisation", "-a", "(uid=anna)")
	mustDo(t, err)
	if !strings.Contains(out, "userPassword:: e0FSR09OMn0") { // base64 of {ARGON2}
		t.Errorf("the password is not kept as an argon2 hash:\n%s", out)
	}
}

// TestGuessing tries wrong passwords until the account is locked. The twin is that fewer lock nothing.
func TestGuessing(t *testing.T) {
	s := running(t)
	c := s.portal()
	mustDo(t, c.AddPerson(anna, password), c.AddPerson(directory.Person{Name: "bert"}, password))
	guess := func(person string, times int) {
		for range times {
			mustBe(t, directory.Authenticate(t.Context(), s.address, person, "wrong"), directory.ErrPassword)
		}
	}
	guess("anna", 10)
	mustBe(t, directory.Authenticate(t.Context(), s.address, "anna", password), directory.ErrPassword)
	guess("bert", 9)
	mustDo(t, directory.Authenticate(t.Context(), s.address, "bert", password))
}

func TestGroupsCollectivesOffices(t *testing.T) {
	c := running(t).portal()
	choir := directory.Collective{Name: "choir", Title: "The Choir", Mail: "choir@ashwell.example", Owners: []string{"anna"}}
	basses := directory.Group{Name: "basses", Title: "Basses", Collective: "choir", Owners: []string{"anna"}, Members: []string{"bert"}}
	bert := directory.Person{Name: "bert", Collective: "choir"}
	mustDo(t, c.AddPerson(anna, ""), c.AddCollective(choir), c.AddPerson(bert, ""), c.AddGroup(basses))
	mustBe(t, c.AddMember("basses", "bert"), directory.ErrExists)
	mustBe(t, c.AddMember("basses", "nobody"), directory.ErrNotFound)
	mustBe(t, c.AddMember("nogroup", "bert"), directory.ErrNotFound)
	mustBe(t, c.RemoveMember("basses", "anna"), directory.ErrNotFound)
	mustBe(t, c.AddGroup(basses), directory.ErrExists)
	got, err := c.Group("basses")
	mustDo(t, err)
	if diff := gocmp.Diff(basses, got); diff != "" {
		t.Error(diff)
	}
	if all, err := c.Collectives(); err != nil || !gocmp.Equal(all, []directory.Collective{choir}) {
		t.Errorf("collectives %+v, error %v", all, err)
	}
	if all, err := c.PeopleOf("choir"); err != nil || len(all) != 1 || !gocmp.Equal(all[0].Groups, []string{"basses"}) {
		t.Errorf("people of the choir %+v, error %v", all, err)
	}

	start := time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
	mustDo(t, c.Hand("treasurer", "bert", start, start.AddDate(2, 0, 0)),
		c.AddOffice(directory.Office{Name: "librarian", Collective: "choir", Occupant: "bert"}))
	offices, err := c.Offices()
	mustDo(t, err)
	slices.SortFunc(offices, func(a, b directory.Office) int { return cmp.Compare(a.Name, b.Name) })
	want := []directory.Office{{Name: "chair"}, {Name: "librarian", Collective: "choir", Occupant: "bert"}, {Name: "secretary"},
		{Name: "treasurer", Occupant: "bert", Start: start, End: start.AddDate(2, 0, 0)}}
	if diff := gocmp.Diff(want, offices); diff != "" {
		t.Error(diff)
	}
	mustDo(t, c.Hand("treasurer", "", time.Time{}, time.Time{}), c.RemoveMember("basses", "bert"), c.RemoveGroup("basses"),
		c.RemoveCollective("choir"))
	mustBe(t, c.RemoveGroup("basses"), directory.ErrNotFound)
	if all, err := c.Groups(); err != nil || len(all) != 2 {
		t.Errorf("groups %+v, error %v", all, err)
	}
}

// Attributes that readers of people see, and those that only a reader of groups sees besides.
const (
	visible    = "cn entryUUID mail modifyTimestamp objectClass sn uid"
	withGroups = "cn entryUUID mail memberOf modifyTimestamp objectClass sn uid"
)

// TestReadersReadWhatTheyMay looks through the eyes of several modules, of a member and of nobody.
func TestReadersReadWhatTheyMay(t *testing.T) {
	s := running(t, reader("calendar", "people"), reader("chat", "people", "groups"), reader("lists", "groups", "offices"),
		reader("nosy"))
	c := s.portal()
	mustDo(t, c.AddPerson(directory.Person{Name: "bert", Mail: "bert@ashwell.example", OutsideMail: "b@elsewhere.example"}, password),
		c.AddPerson(directory.Person{Name: "carl"}, password), c.AddMember("members", "bert"))
	group := "cn=members: cn createTimestamp creatorsName entryCSN entryDN entryUUID hasSubordinates member modifiersName " +
		"modifyTimestamp objectClass structuralObjectClass subschemaSubentry"
	bert := "uid=bert,ou=people,o=organisation"
	for _, x := range []struct {
		who, password, filter string
		want                  []string
	}{
		{account("calendar"), "calendar-secret", "(uid=bert)", []string{"uid=bert: " + visible}},
		{account("calendar"), "calendar-secret", "(cn=members)", nil},
		{account("calendar"), "calendar-secret", "(memberOf=*)", nil},
		{account("chat"), "chat-secret", "(uid=bert)", []string{"uid=bert: " + withGroups}},
		{account("chat"), "chat-secret", "(cn=members)", []string{group}},
		{account("chat"), "chat-secret", "(cn=treasurer)", nil},
		{account("lists"), "lists-secret", "(uid=bert)", nil},
		{account("lists"), "lists-secret", "(cn=members)", []string{group}},
		{account("nosy"), "nosy-secret", "(|(uid=*)(cn=*))", nil},
		{account("chat"), "chat-secret", "(userPassword=*)", nil},
		{account("chat"), "chat-secret", "(allotmentOutsideMail=*)", nil},
		{account("portal"), s.box.Secret("directory", "portal"), "(userPassword=*)", nil},
		{bert, password, "(uid=carl)", nil},
		{bert, password, "(cn=members)", nil},
		{"", "", "(objectClass=*)", nil},
	} {
		if got := sees(t, s.bind(x.who, x.password), "o=organisation", x.filter); !slices.Equal(got, x.want) {
			t.Errorf("%q sees by %s:\n%q\nwant\n%q", x.who, x.filter, got, x.want)
		}
	}
	own := sees(t, s.bind(bert, password), "ou=people,o=organisation", "(uid=bert)")
	if len(own) != 1 || !strings.Contains(own[0], "allotmentOutsideMail") || strings.Contains(own[0], "userPassword") {
		t.Errorf("a member sees of himself %q", own)
	}
}

// TestNobodyElseWrites tries what only the portal does.
func TestNobodyElseWrites(t *testing.T) {
	s := running(t, reader("chat", "people", "groups", "collectives", "offices"))
	c := s.portal()
	mustDo(t, c.AddPerson(anna, password))
	own := "uid=anna,ou=people,o=organisation"
	for _, who := range [][2]string{{account("chat"), "chat-secret"}, {own, password}, {"", ""}} {
		conn := s.bind(who[0], who[1])
		r := ldap.NewModifyRequest(own, nil)
		r.Replace("userPassword", []string{"taken over by me"})
		member := ldap.NewModifyRequest("cn=officers,ou=groups,o=organisation", nil)
		member.Add("member", []string{own})
		add := ldap.NewAddRequest("cn=new,ou=groups,o=organisation", nil)
		add.Attribute("objectClass", []string{"allotmentGroup"})
		add.Attribute("cn", []string{"new"})
		for _, err := range []error{conn.Modify(r), conn.Modify(member), conn.Add(add), conn.Del(ldap.NewDelRequest(own, nil))} {
			if !ldap.IsErrorWithCode(err, ldap.LDAPResultInsufficientAccessRights) && !ldap.IsErrorWithCode(err, ldap.LDAPResultStrongAuthRequired) &&
				!ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) {
				t.Errorf("%q may write: %v", who[0], err)
			}
		}
	}
	mustDo(t, directory.Authenticate(t.Context(), s.address, "anna", password), c.RemovePerson("anna")) // the portal may
}

// TestReadersFollowTheRelease restarts the directory with other modules.
func TestReadersFollowTheRelease(t *testing.T) {
	s := running(t, reader("chat", "people"))
	mustDo(t, s.portal().AddPerson(anna, password))
	s.bind(account("chat"), "chat-secret")
	s.stop()
	s.Render("directory", func(d *render.Data) { d.LDAP.Readers = []render.Reader{reader("calendar", "people")} })
	s.start()
	if got := sees(t, s.bind(account("calendar"), "calendar-secret"), "o=organisation", "(uid=*)"); len(got) != 3 {
		t.Errorf("the new reader sees %q, want anna and two probes", got)
	}
	probe := s.bind("uid=probe-calendar,ou=probes,ou=people,o=organisation", "calendar-probe")
	if got := sees(t, probe, "ou=people,o=organisation", "(uid=probe-calendar)"); len(got) != 1 {
		t.Errorf("the probe sees of itself %q", got)
	}
	conn, err := ldap.DialURL("ldap://" + s.address)
	mustDo(t, err)
	defer conn.Close()
	if err := conn.Bind(account("chat"), "chat-secret"); !ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials) {
		t.Errorf("the reader that is gone can log in: %v", err)
	}
}

// TestBackup dumps, loses everything, restores and compares; and sees that a comparison can fail.
func TestBackup(t *testing.T) {
	s := running(t)
	c := s.portal()
	for i := range 50 {
		mustDo(t, c.AddPerson(directory.Person{Name: fmt.Sprintf("user%02d", i)}, ""), c.AddMember("members", fmt.Sprintf("user%02d", i)))
	}
	s.task("dump") // as it runs
	if out, err := s.Run("/usr/sbin/slapcat", "-f", "/run/config/slapd.conf", "-g", "-b", "o=organisation"); err == nil {
		t.Errorf("two processes of number 1 have the database open: %s", out)
	}
	s.task("verify")
	mustDo(t, c.RemovePerson("user07"))
	s.stop()
	if out, err := s.Run("/bin/sh", "/usr/lib/allotment/directory.sh", "compare"); err == nil {
		t.Errorf("a directory that lacks a person counts as restored: %s", out)
	}
	s.task("restore")
	s.task("compare")
	s.task("reindex")
	s.task("compare")
	s.start()
	p, err := s.portal().Person("user07")
	if mustDo(t, err); !slices.Equal(p.Groups, []string{"members"}) {
		t.Errorf("after the restore user07 is in %v", p.Groups)
	}
}

// TestCreateStartsOver makes the first tree again where an attempt was cut.
func TestCreateStartsOver(t *testing.T) {
	s := newServer(t)
	data := s.Read("/var/lib/ldap/data.mdb")
	s.Write("/var/lib/ldap/data.mdb", data[:len(data)/2])
	s.task("create")
	s.start()
	if _, err := s.portal().Group("members"); err != nil {
		t.Error(err)
	}
}

// TestKilledWhileWriting kills slapd in the middle of writes, several times: what it had confirmed is there, and no more
// than one write beyond that.
func TestKilledWhileWriting(t *testing.T) {
	s := running(t)
	confirmed := 0
	for range 4 {
		c := s.portal()
		var wait sync.WaitGroup
		goOn := make(chan struct{}, 1000)
		wait.Go(func() {
			for c.AddPerson(directory.Person{Name: fmt.Sprintf("user%04d", confirmed)}, "") == nil {
				confirmed++
				goOn <- struct{}{}
			}
		})
		for range 20 {
			<-goOn
		}
		s.stop() // SIGKILL
		wait.Wait()
		s.start()
		people, err := s.portal().People()
		mustDo(t, err)
		if len(people) < confirmed || len(people) > confirmed+1 {
			t.Fatalf("%d people were added, %d are there", confirmed, len(people))
		}
		confirmed = len(people)
	}
}

// TestFull fills the map: that is an error of who adds, and the directory goes on.
func TestFull(t *testing.T) {
	s := newServer(t)
	conf := strings.Replace(string(s.Read("/run/config/slapd.conf")), "maxsize 268435456", "maxsize 1048576", 1)
	s.Write("/run/config/slapd.conf", []byte(conf))
	s.start()
	c := s.portal()
	var err error
	for i := 0; err == nil && i < 5000; i++ {
		err = c.AddPerson(directory.Person{Name: fmt.Sprintf("user%04d", i)}, "")
	}
	if err == nil || errors.Is(err, directory.ErrExists) {
		t.Fatalf("a map of 1 MiB took all: %v", err)
	}
	if people, err := c.People(); err != nil || len(people) == 0 {
		t.Errorf("%d people, error %v", len(people), err)
	}
}

// TestNothingThere looks that connecting to nothing is told as such.
func TestNothingThere(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := directory.Connect(ctx, moduletest.FreeAddress(t), "x")
	var op *net.OpError
	if !errors.As(err, &op) {
		t.Errorf("error %v", err)
	}
}
