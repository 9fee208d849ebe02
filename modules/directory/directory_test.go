// Package directory_test asks the real slapd of the module by LDAP itself. What the portal does with it is tested in
// portal/directory.
package directory_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

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
		Probe: true, ProbeName: "probe-" + name, ProbePassword: name + "-probe", Permissions: []string{name + ".use", name + ".edit"}}
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

func (s *server) portal() *directory.Directory {
	d := directory.Open(s.address, func() (string, error) { return s.box.Secret("directory", "portal"), nil })
	s.t.Cleanup(func() { d.Close() })
	return d
}

// add makes accounts with a password.
func add(t *testing.T, d *directory.Directory, people ...directory.Person) {
	t.Helper()
	for _, p := range people {
		mustDo(t, d.AddPerson(t.Context(), p), d.SetPassword(t.Context(), p.Name, password))
	}
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

var anna = directory.Person{Name: "anna"}

// TestGuessing tries wrong passwords until the account is locked. The twin is that fewer lock nothing.
func TestGuessing(t *testing.T) {
	s := running(t)
	c := s.portal()
	add(t, c, anna, directory.Person{Name: "bert"})
	guess := func(person string, times int) {
		for range times {
			mustBe(t, c.Authenticate(t.Context(), person, "wrong"), directory.ErrPassword)
		}
	}
	guess("anna", 60)
	mustBe(t, c.Authenticate(t.Context(), "anna", password), directory.ErrPassword)
	guess("bert", 59)
	mustDo(t, c.Authenticate(t.Context(), "bert", password))
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
	ctx := t.Context()
	add(t, c, directory.Person{Name: "bert", Mail: "bert@ashwell.example", OutsideMail: "b@elsewhere.example"},
		directory.Person{Name: "carl"})
	mustDo(t, c.AddMember(ctx, "members", "bert"))
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
	add(t, c, anna)
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
	mustDo(t, c.Authenticate(t.Context(), "anna", password), c.RemovePerson(t.Context(), "anna")) // the portal may
}

// TestReadersFollowTheRelease restarts the directory with other modules.
func TestReadersFollowTheRelease(t *testing.T) {
	s := running(t, reader("chat", "people"))
	add(t, s.portal(), anna)
	s.bind(account("chat"), "chat-secret")
	s.stop()
	s.Render("directory", func(d *render.Data) { d.LDAP.Readers = []render.Reader{reader("calendar", "people")} })
	s.start()
	if got := sees(t, s.bind(account("calendar"), "calendar-secret"), "o=organisation", "(uid=*)"); len(got) != 3 {
		t.Errorf("the new reader sees %q, want anna and two probes", got)
	}
	if got := sees(t, s.bind(account("portal"), s.box.Secret("directory", "portal")), "o=organisation",
		"(memberOf=cn=calendar.edit,ou=permissions,o=organisation)"); len(got) != 1 || !strings.HasPrefix(got[0], "uid=probe-calendar") {
		t.Errorf("%q may edit, want the module's probe", got)
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
		name := fmt.Sprintf("user%02d", i)
		mustDo(t, c.AddPerson(t.Context(), directory.Person{Name: name}), c.AddMember(t.Context(), "members", name))
	}
	s.task("dump") // as it runs
	if out, err := s.Run("/usr/sbin/slapcat", "-f", "/run/config/slapd.conf", "-g", "-b", "o=organisation"); err == nil {
		t.Errorf("two processes of number 1 have the database open: %s", out)
	}
	s.task("verify")
	mustDo(t, c.RemovePerson(t.Context(), "user07"))
	s.stop()
	if out, err := s.Run("/bin/sh", "/usr/lib/allotment/directory.sh", "compare"); err == nil {
		t.Errorf("a directory that lacks a person counts as restored: %s", out)
	}
	s.task("restore")
	s.task("compare")
	s.task("reindex")
	s.task("compare")
	s.start()
	p, err := s.portal().Person(t.Context(), "user07")
	if mustDo(t, err); !slices.Equal(p.Groups, []string{"members"}) {
		t.Errorf("after the restore user07 is in %v", p.Groups)
	}
}

// TestFormat1 gives a volume of the first release what format 2 added, also where an attempt was cut, and restores a dump of
// that release.
func TestFormat1(t *testing.T) {
	s := newServer(t)
	slapadd := func(args ...string) {
		t.Helper()
		if _, err := s.Run(append([]string{"/bin/sh", "-c", `/usr/sbin/slapadd -f /run/config/slapd.conf -g "$@" && true`, "sh"}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
	s.Write("/var/lib/ldap/data.mdb", nil)
	slapadd("-b", "o=organisation", "-l", "/usr/share/allotment/organisation.ldif")
	s.task("dump")
	old := s.Read("/var/lib/dump/directory.ldif")
	if strings.Contains(string(old), "ou=permissions") {
		t.Fatal("a volume of format 1 has the folder already")
	}
	s.task("extend")
	s.task("extend")
	s.start()
	mustDo(t, s.portal().Grant(t.Context(), "web", "edit", "members"))
	s.stop()
	s.Write("/var/lib/dump/directory.ldif", []byte(strings.Replace(string(old), "cn: treasurer", "cn: treasurer\ndescription: keeps the till", 1)))
	s.task("restore")
	s.task("compare")
	s.Write("/var/lib/dump/directory.ldif", old)
	if out, err := s.Run("/bin/sh", "/usr/lib/allotment/directory.sh", "compare"); err == nil {
		t.Errorf("another dump counts as restored: %s", out)
	}
	s.start()
	mustDo(t, s.portal().Grant(t.Context(), "web", "edit", "members"))
}

// TestFormat2 gives a volume of before format 3 today's policy, also where an attempt was cut, and restores a dump of then. An
// old telephone that tries a password twenty times then locks nobody out, as it did before.
func TestFormat2(t *testing.T) {
	s := newServer(t)
	dump := func() string { s.task("dump"); return string(s.Read("/var/lib/dump/directory.ldif")) }
	today := dump()
	old := strings.Replace(today, "pwdMaxFailure: 60", "pwdMaxFailure: 10", 1)
	if old == today {
		t.Fatal("today's policy is another one")
	}
	load := func() {
		s.Write("/var/lib/ldap/data.mdb", nil)
		s.Write("/tmp/old.ldif", []byte(old))
		if _, err := s.Run("/bin/sh", "-c", "/usr/sbin/slapadd -f /run/config/slapd.conf -g -b o=organisation -l /tmp/old.ldif && true"); err != nil {
			t.Fatal(err)
		}
	}
	telephone := func() error {
		s.start()
		defer s.stop()
		c := s.portal()
		if err := c.Authenticate(t.Context(), "anna", password); errors.Is(err, directory.ErrPassword) {
			add(t, c, anna)
		}
		for range 20 {
			mustBe(t, c.Authenticate(t.Context(), "anna", "removed"), directory.ErrPassword)
		}
		return c.Authenticate(t.Context(), "anna", password)
	}
	load()
	mustBe(t, telephone(), directory.ErrPassword)
	load()
	s.task("extend")
	s.task("extend")
	mustDo(t, telephone())
	s.Write("/var/lib/dump/directory.ldif", []byte(old))
	s.task("restore")
	s.task("compare")
	if now := dump(); !strings.Contains(now, "pwdMaxFailure: 60") {
		t.Error("what was restored has the former policy")
	}
	s.Write("/var/lib/dump/directory.ldif", []byte(strings.Replace(old, "cn: treasurer", "cn: treasurer\ndescription: another", 1)))
	if out, err := s.Run("/bin/sh", "/usr/lib/allotment/directory.sh", "compare"); err == nil {
		t.Errorf("another dump counts as restored: %s", out)
	}
}

// TestPortalsOwn looks that nobody but the portal reads what it remembers of passwords for apps, and who sees permissions.
func TestPortalsOwn(t *testing.T) {
	s := running(t, reader("chat", "people", "groups"), reader("calendar", "people"))
	c, ctx := s.portal(), t.Context()
	add(t, c, anna)
	mustDo(t, c.AddMember(ctx, "members", "anna"), c.Grant(ctx, "chat", "use", "members"))
	_, app, err := c.AddAppPassword(ctx, "anna", "iPad", time.Time{})
	mustDo(t, err, c.Delete(ctx, "anna", time.Now()), c.Activate(ctx, "anna"), c.ChangePerson(ctx, "anna", "",
		func(p *directory.Person) { p.Forward = "anna@elsewhere.example" }))
	own := "uid=anna,ou=people,o=organisation"
	for _, x := range []struct {
		who, password, filter string
		want                  int
	}{
		{own, app, "(allotmentAppPassword=*)", 0},
		{own, app, "(allotmentForward=*)", 1},
		{account("chat"), "chat-secret", "(allotmentAppPassword=*)", 0},
		{account("chat"), "chat-secret", "(allotmentForward=*)", 0},
		{account("chat"), "chat-secret", "(&(uid=anna)(memberOf=cn=chat.use,ou=permissions,o=organisation))", 1},
		{account("chat"), "chat-secret", "(cn=chat.use)", 1},
		{account("calendar"), "calendar-secret", "(cn=chat.use)", 0},
		{account("portal"), s.box.Secret("directory", "portal"), "(allotmentAppPassword=*)", 1},
	} {
		if got := sees(t, s.bind(x.who, x.password), "o=organisation", x.filter); len(got) != x.want {
			t.Errorf("%q sees by %s %q", x.who, x.filter, got)
		}
	}
}

// TestCreateStartsOver makes the first tree again where an attempt was cut.
func TestCreateStartsOver(t *testing.T) {
	s := newServer(t)
	data := s.Read("/var/lib/ldap/data.mdb")
	s.Write("/var/lib/ldap/data.mdb", data[:len(data)/2])
	s.task("create")
	s.start()
	if _, err := s.portal().Group(t.Context(), "members"); err != nil {
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
			for c.AddPerson(t.Context(), directory.Person{Name: fmt.Sprintf("user%04d", confirmed)}) == nil {
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
		people, err := s.portal().People(t.Context())
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
		err = c.AddPerson(t.Context(), directory.Person{Name: fmt.Sprintf("user%04d", i)})
	}
	if err == nil || errors.Is(err, directory.ErrExists) {
		t.Fatalf("a map of 1 MiB took all: %v", err)
	}
	if people, err := c.People(t.Context()); err != nil || len(people) == 0 {
		t.Errorf("%d people, error %v", len(people), err)
	}
}
