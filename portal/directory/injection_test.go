package directory_test

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"allotment/portal/directory"
)

// evil are texts that mean something in a filter, a distinguished name or both, or that slapd would take for another's name.
var evil = []string{"*", "vic*", "victim)(uid=*", "*)(|(uid=victim", "x)(&", "victim,ou=people,o=organisation", "x+uid=victim",
	`\76ictim`, `\2a`, "victim\x00", "victim ", " victim", "VICTIM", "=victim", "#766963", "victim;x", "victim\nmember: x", "", "ou=people",
	"../victim", "victim\u202e"}

// calls has, for every method of Directory, good arguments after the context, of which those that are outside text are tried
// with every evil one in their place.
var calls = map[string][]any{
	"Activate":          {outside("anna")},
	"AddAppPassword":    {outside("anna"), outside("label"), time.Time{}},
	"AddCollective":     {directory.Collective{Name: "new", Title: "x", Mail: "new@ashwell.example", Owners: []string{"anna"}}},
	"AddGroup":          {directory.Group{Name: "new", Title: "x", About: "x", Mail: "new@ashwell.example", Collective: "body", Owners: []string{"anna"}, Members: []string{"anna"}}},
	"AddMember":         {outside("team"), outside("anna")},
	"AddOffice":         {directory.Office{Name: "new", Title: "x", Mail: "new@ashwell.example", Collective: "body", Occupant: "anna"}},
	"AddPerson":         {directory.Person{Name: "new", Given: "x", Family: "x", Display: "x", Mail: "new@ashwell.example", OutsideMail: "x@x.example", Forward: "x@x.example", Phone: "1", Language: "en", Collective: "body"}},
	"Allowed":           {outside("anna"), outside("web"), outside("edit")},
	"AppPasswords":      {outside("anna")},
	"AppointTo":         {outside("treasurer"), outside("anna"), time.Time{}, time.Time{}},
	"Authenticate":      {outside("anna"), outside(password)},
	"ChangeGroup":       {outside("team"), "", func(g *directory.Group) {}},
	"ChangeCollective":  {outside("body"), "", func(c *directory.Collective) {}},
	"ChangeOffice":      {outside("treasurer"), "", func(o *directory.Office) {}},
	"ChangePerson":      {outside("anna"), outside(""), func(p *directory.Person) {}},
	"Deactivate":        {outside("anna")},
	"DeclarePermission": {outside("web"), outside("view"), outside("team")},
	"Delete":            {outside("anna"), time.Unix(1<<40, 0)},
	"Export":            {io.Discard, outside("csv")},
	"ExportCollective":  {outside("empty"), io.Discard},
	"Grant":             {outside("web"), outside("edit"), outside("team")},
	"Group":             {outside("team")},
	"GroupsOf":          {outside("anna")},
	"GroupsOwnedBy":     {outside("anna")},
	"HandOver":          {outside("anna"), outside("heir")},
	"HoldsOffice":       {outside("anna"), time.Unix(0, 0)},
	"Import":            {outside("user name,name\n"), directory.ImportOptions{Format: "csv", Group: "team"}},
	"Leave":             {outside("empty"), io.Discard},
	"PeopleOf":          {outside("body")},
	"Person":            {outside("anna")},
	"PersonByMail":      {outside("anna@ashwell.example")},
	"RemoveAppPassword": {outside("anna"), outside("id")},
	"RemoveCollective":  {outside("empty")},
	"RemoveGroup":       {outside("team")},
	"RemoveMember":      {outside("team"), outside("anna")},
	"RemoveOffice":      {outside("treasurer")},
	"RemovePerson":      {outside("nobody")},
	"Revoke":            {outside("web"), outside("edit"), outside("team")},
	"SetOwners":         {outside("team"), []string{"anna"}},
	"SetPassword":       {outside("anna"), outside(password)},
	"Undelete":          {outside("anna")},

	"Close": nil, "Collectives": nil, "Groups": nil, "Offices": nil, "People": nil, "Permissions": nil,
	"Officers": {time.Unix(0, 0)}, "Purge": {time.Unix(0, 0)}, "SyncPermissions": nil,
}

// outside is an argument that people can make up.
type outside string

// TestInjection calls every method with evil texts. Whatever they answer, they neither change nor tell what belongs to a
// person whom no good argument names.
func TestInjection(t *testing.T) {
	s, ctx := start(t), t.Context()
	mustDo(t, s.AddPerson(ctx, directory.Person{Name: "victim", Mail: "victim@ashwell.example", OutsideMail: "victim@elsewhere.example"}),
		s.SetPassword(ctx, "victim", "of the victim alone"), s.AddPerson(ctx, anna), s.AddPerson(ctx, person("heir")),
		s.AddGroup(ctx, directory.Group{Name: "victims", Owners: []string{"victim"}, Members: []string{"victim"}}),
		s.AddGroup(ctx, directory.Group{Name: "team"}), s.Grant(ctx, "web", "victims", "victims"), s.Grant(ctx, "web", "edit", "team"),
		s.AddCollective(ctx, directory.Collective{Name: "body", Owners: []string{"victim"}}), s.AppointTo(ctx, "chair", "victim", time.Time{}, time.Time{}))
	conn := s.asPortal(t)
	before := victims(t, conn)
	if len(before) != 5 {
		t.Fatalf("of the victim are %q", before)
	}
	d := reflect.TypeFor[*directory.Directory]()
	for i := range d.NumMethod() {
		m := d.Method(i)
		args, ok := calls[m.Name]
		if !ok {
			t.Errorf("method %s has no good arguments in calls", m.Name)
		}
		for place := range args {
			for _, bad := range variants(args[place]) {
				tried := slices.Clone(args)
				tried[place] = bad
				told := s.call(t, m, tried)
				for _, text := range told {
					if strings.Contains(text, "victim@") || strings.Contains(text, "victims") {
						t.Errorf("%s%q tells %s", m.Name, tried, text)
					}
				}
				if after := victims(t, conn); !slices.Equal(before, after) {
					t.Fatalf("%s%q changes\n%q\nto\n%q", m.Name, tried, before, after)
				}
			}
		}
	}
	mustDo(t, s.Authenticate(ctx, "victim", "of the victim alone"))
}

// variants are an argument with an evil text in each place for outside text.
func variants(arg any) []any {
	var all []any
	for _, text := range evil {
		switch arg := arg.(type) {
		case outside:
			if table, ok := strings.CutSuffix(string(arg), "\n"); !ok {
				all = append(all, outside(text))
			} else if strings.TrimSpace(text) != "victim" { // whom a list may well name, with space around her
				all = append(all, outside(fmt.Sprintf("%s\n\"%s\",x\nanna,\"%s\"\n", table, text, text)))
			}
		case []string:
			all = append(all, []string{text})
		case directory.Person, directory.Group, directory.Office, directory.Collective, directory.ImportOptions:
			for i := range reflect.TypeOf(arg).NumField() {
				v := reflect.New(reflect.TypeOf(arg)).Elem()
				v.Set(reflect.ValueOf(arg))
				switch f := v.Field(i); f.Kind() {
				case reflect.String:
					f.SetString(text)
				case reflect.Slice:
					if f.Type().Elem().Kind() == reflect.String {
						f.Set(reflect.ValueOf([]string{text}))
					}
				}
				all = append(all, v.Interface())
			}
		case func(*directory.Group):
			all = append(all, func(g *directory.Group) { g.Title, g.About, g.Owners = text, text, []string{text} },
				func(g *directory.Group) { g.Mail, g.Collective = text, text })
		case func(*directory.Office):
			all = append(all, func(o *directory.Office) { o.Title = text }, func(o *directory.Office) { o.Mail, o.Collective = text, text })
		case func(*directory.Person):
			all = append(all, func(p *directory.Person) { p.Given, p.Display = text, text }, func(p *directory.Person) { p.Name = text },
				func(p *directory.Person) { p.Mail = text }, func(p *directory.Person) { p.Collective = text })
		}
	}
	return all
}

// call calls a method and returns what it tells but errors, which name what was asked for.
func (s server) call(t *testing.T, m reflect.Method, args []any) []string {
	t.Helper()
	in := []reflect.Value{reflect.ValueOf(s.Directory), reflect.ValueOf(t.Context())}
	for _, a := range args {
		text, ok := a.(outside)
		want := m.Type.In(min(len(in), m.Type.NumIn()-1))
		switch {
		case ok && want == reflect.TypeFor[io.Reader]():
			in = append(in, reflect.ValueOf(strings.NewReader(string(text))))
		case ok:
			in = append(in, reflect.ValueOf(string(text)))
		default:
			in = append(in, reflect.ValueOf(a))
		}
	}
	var told []string
	for _, v := range m.Func.Call(in) {
		if _, bad := v.Interface().(error); bad {
			return nil
		}
		if report, ok := v.Interface().(directory.Report); ok {
			told = append(told, fmt.Sprint(report.Count(directory.Changed)))
			continue
		}
		told = append(told, fmt.Sprintf("%+v", v.Interface()))
	}
	return told
}

// victims are the entries that say something of the victim, as they are, but for the hash of her password.
func victims(t *testing.T, conn *ldap.Conn) []string {
	t.Helper()
	const dn = "uid=victim,ou=people,o=organisation"
	r, err := conn.Search(ldap.NewSearchRequest("o=organisation", ldap.ScopeWholeSubtree, 0, 0, 0, false,
		"(|(uid=victim)(member="+dn+")(owner="+dn+")(roleOccupant="+dn+"))", []string{"*", "+"}, nil))
	mustDo(t, err)
	var all []string
	for _, e := range r.Entries {
		var b strings.Builder
		b.WriteString(e.DN)
		for _, a := range e.Attributes {
			fmt.Fprintf(&b, " %s=%q", a.Name, a.Values)
		}
		all = append(all, b.String())
	}
	slices.Sort(all)
	return all
}

func (s server) asPortal(t *testing.T) *ldap.Conn {
	t.Helper()
	conn, err := ldap.DialURL("ldap://" + s.address)
	mustDo(t, err, conn.Bind("cn=portal,ou=services,o=organisation", s.password))
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestInjectionTwin looks that what TestInjection compares changes with the smallest thing that could be done to the victim.
func TestInjectionTwin(t *testing.T) {
	s, ctx := start(t), t.Context()
	mustDo(t, s.AddPerson(ctx, person("victim")), s.AddGroup(ctx, directory.Group{Name: "victims"}))
	conn := s.asPortal(t)
	for name, change := range map[string]func(context.Context) error{
		"password":   func(ctx context.Context) error { return s.SetPassword(ctx, "victim", password) },
		"membership": func(ctx context.Context) error { return s.AddMember(ctx, "victims", "victim") },
		"state":      func(ctx context.Context) error { return s.Deactivate(ctx, "victim") },
	} {
		before := victims(t, conn)
		mustDo(t, change(ctx))
		if slices.Equal(before, victims(t, conn)) {
			t.Errorf("a change of the %s is not seen", name)
		}
	}
}
