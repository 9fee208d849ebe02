package directory_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/text/encoding/charmap"

	"allotment/portal/directory"
)

// fates are "line fate user-name why detail".
func fates(r directory.Report) []string {
	var all []string
	for _, l := range r.Lines {
		all = append(all, strings.TrimRight(fmt.Sprint(l.Line, " ", l.Fate, " ", l.Name, " ", l.Why, " ", l.Detail), " "))
	}
	return all
}

func wantFates(t *testing.T, r directory.Report, want ...string) {
	t.Helper()
	if got := fates(r); !slices.Equal(got, want) {
		t.Errorf("fates\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// list is what a club has: German headings, a column that means nothing to us, and every kind of line.
const list = `Benutzername;Vorname;Name;E-Mail;Telefon;Gruppe;Sternzeichen
;Jürgen;Groß;juergen@elsewhere.example;'+49 30 1;members;Fische
;Jürgen;Groß;Juergen@Elsewhere.example;;;
;Grete;Groß;juergen@elsewhere.example;;Members,editors;
;;;;;;
;;;nobody@elsewhere.example;;;
;Anna;Archer;anna@elsewhere.example;+44 1462 555 9999;;
;Bad;Mail;not an address;;;
;No;Group;n@elsewhere.example;;nogroup;
;Спутник;Иванов;i@elsewhere.example;;;
;محمد;الأمين;m@elsewhere.example;;;
;🌻;;sun@elsewhere.example;;;
Bad Name;X;Y;xy@elsewhere.example;;;
;Evil` + "\u202e" + `;Txt;e@elsewhere.example;;;
;Łukasz;"Nguyễn
van Berg";l@elsewhere.example;;;
;Open;"quote;x;;;
`

func TestImport(t *testing.T) {
	s, ctx := start(t), t.Context()
	mustDo(t, s.AddPerson(ctx, anna), s.AddGroup(ctx, directory.Group{Name: "editors", Title: "Members"}))
	options := directory.ImportOptions{Format: "csv", Group: "officers", Language: "de", DryRun: true}
	want := []string{
		"2 added juergen.gross",
		"3 skipped juergen.gross repeated 2",
		"4 added grete.gross shared-address juergen.gross",
		"6 refused  no-name",
		"7 changed anna",
		"8 refused  bad-address not an address",
		"9 refused  no-group nogroup",
		"10 added user1",
		"11 added user2",
		"12 added user3",
		"13 refused Bad Name bad-user-name Bad Name",
		"14 refused  bad-text Evil\u202e",
		"15 added lukasz.nguyen-van-berg",
		`17 refused  unreadable extraneous or missing " in quoted-field`,
	}
	report, err := s.Import(ctx, strings.NewReader(list), options)
	mustDo(t, err)
	wantFates(t, report, want...)
	if !slices.Equal(report.Ignored, []string{"Sternzeichen"}) || report.Encoding != "UTF-8" || report.Guessed || report.Separator != ';' {
		t.Errorf("report %+v", report)
	}
	if people, err := s.People(ctx); err != nil || len(people) != 1 {
		t.Fatalf("a dry run has made %d people, error %v", len(people), err)
	}

	options.DryRun = false
	report, err = s.Import(ctx, strings.NewReader(list), options)
	mustDo(t, err)
	wantFates(t, report, want...)
	got, err := s.Person(ctx, "juergen.gross")
	mustDo(t, err)
	alike(t, directory.Person{Name: "juergen.gross", Given: "Jürgen", Family: "Groß", Display: "Jürgen Groß", Active: true,
		OutsideMail: "juergen@elsewhere.example", Phone: "+49 30 1", Language: "de", Groups: []string{"members", "officers"}}, got)
	changed := anna
	changed.Phone, changed.Groups = "+44 1462 555 9999", []string{"officers"}
	got, err = s.Person(ctx, "anna")
	mustDo(t, err)
	alike(t, changed, got)
	for name, display := range map[string]string{"user1": "Спутник Иванов", "user2": "محمد الأمين", "user3": "🌻"} {
		if got, err = s.Person(ctx, name); err != nil || got.Display != display {
			t.Errorf("%s is %q, error %v", name, got.Display, err)
		}
	}

	report, err = s.Import(ctx, strings.NewReader(list), options) // once more
	mustDo(t, err)
	if report.Count(directory.Added)+report.Count(directory.Changed) != 0 || report.Count(directory.Refused) != 6 {
		t.Errorf("the same list again:\n%s", strings.Join(fates(report), "\n"))
	}
}

func TestImportSaysWhatItGuessed(t *testing.T) {
	s, ctx := start(t), t.Context()
	table, err := charmap.ISO8859_1.NewEncoder().String("Given name,Family name,Language\nJürgen,Groß,Deutsch\n")
	mustDo(t, err)
	report, err := s.Import(ctx, strings.NewReader(table), directory.ImportOptions{Format: "csv"})
	mustDo(t, err)
	if p, err := s.Person(ctx, "juergen.gross"); err != nil || !report.Guessed || report.Encoding != "Windows-1252" || p.Given != "Jürgen" {
		t.Errorf("report %+v, error %v", report, err)
	}
	for _, bad := range []string{"", "Anna,Archer\n", "\"open"} {
		_, err = s.Import(ctx, strings.NewReader(bad), directory.ImportOptions{Format: "csv"})
		mustBe(t, err, directory.ErrHeadings)
	}
	_, err = s.Import(ctx, strings.NewReader(table), directory.ImportOptions{Format: "csv", Group: "nogroup"})
	mustBe(t, err, directory.ErrNotFound)
}

// TestExport takes everybody to another directory, in either format.
func TestExport(t *testing.T) {
	s, other, ctx := start(t), start(t), t.Context()
	formula := directory.Person{Name: "bert", Given: "=cmd()", Family: "Bader \"B\", 名前", Phone: "+1", Collective: "choir"}
	for _, d := range []server{s, other} {
		mustDo(t, d.AddCollective(ctx, directory.Collective{Name: "choir"}))
	}
	mustDo(t, s.AddPerson(ctx, anna), s.AddPerson(ctx, formula), s.AddMember(ctx, "members", "bert"), s.SetPassword(ctx, "anna", password))
	tenors := directory.Group{Name: "tenors", Title: "Tenöre", Mail: "tenors@ashwell.example", Members: []string{"anna", "bert"}}
	mustDo(t, s.AddGroup(ctx, tenors))
	_, _, err := s.AddAppPassword(ctx, "anna", "x", time.Time{})
	mustDo(t, err)
	for format, groups := range map[string]int{"csv": 0, "ldif": 1} {
		if format == "csv" {
			mustDo(t, other.AddGroup(ctx, directory.Group{Name: "tenors"}))
		}
		var file strings.Builder
		mustDo(t, s.Export(ctx, &file, format))
		if strings.Contains(file.String(), "\n=") || strings.Contains(file.String(), ",=") || strings.Contains(file.String(), "assword") {
			t.Errorf("the file has a formula or a password:\n%s", file.String())
		}
		report, err := other.Import(ctx, strings.NewReader(file.String()), directory.ImportOptions{Format: format})
		mustDo(t, err)
		if report.Count(directory.Added) != 2+groups || report.Count(directory.Refused) != 0 {
			t.Errorf("%s", strings.Join(fates(report), "\n"))
		}
		for _, name := range []string{"anna", "bert"} {
			want, err := s.Person(ctx, name)
			mustDo(t, err)
			got, err := other.Person(ctx, name)
			mustDo(t, err)
			if format == "csv" {
				want.Photo = nil
			}
			alike(t, want, got)
			mustDo(t, other.RemovePerson(ctx, name))
		}
		mustDo(t, other.RemoveGroup(ctx, "tenors"))
	}
	if s.Export(ctx, nil, "xlsx") == nil {
		t.Error("any format is written")
	}
}

// TestLeave lets a collective go with what is its own. The twin is a file that cannot be written: then nothing is removed.
func TestLeave(t *testing.T) {
	s, ctx := start(t), t.Context()
	mustDo(t, s.AddPerson(ctx, anna), s.AddCollective(ctx, directory.Collective{Name: "choir", Title: "The Choir"}),
		s.AddPerson(ctx, directory.Person{Name: "bert", Collective: "choir"}),
		s.AddGroup(ctx, directory.Group{Name: "basses", Collective: "choir", Members: []string{"bert", "anna"}}),
		s.AddOffice(ctx, directory.Office{Name: "conductor", Collective: "choir", Occupant: "bert"}),
		s.AddMember(ctx, "members", "bert"), s.Grant(ctx, "web", "edit", "basses"))
	if s.Leave(ctx, "choir", full{}) == nil {
		t.Error("a collective leaves without a file")
	}
	if _, err := s.Person(ctx, "bert"); err != nil {
		t.Error(err)
	}
	var before, file strings.Builder
	mustDo(t, s.ExportCollective(ctx, "choir", &before), s.Leave(ctx, "choir", &file))
	if before.String() != file.String() {
		t.Errorf("what leaves is not what was told before:\n%s", before.String())
	}
	for _, dn := range []string{"ou=choir,ou=collectives", "uid=bert,ou=people", "cn=basses,ou=groups", "cn=conductor,ou=offices"} {
		if !strings.Contains(file.String(), "dn: "+dn+",o=organisation\n") {
			t.Errorf("%s does not leave:\n%s", dn, file.String())
		}
	}
	if strings.Count(file.String(), "dn: ") != 4 {
		t.Errorf("more leaves:\n%s", file.String())
	}
	mustBe(t, s.Leave(ctx, "choir", &file), directory.ErrNotFound)
	own := start(t)
	report, err := own.Import(ctx, strings.NewReader(file.String()), directory.ImportOptions{Format: "ldif"})
	mustDo(t, err)
	if g, err := own.Group(ctx, "basses"); err != nil || !slices.Equal(g.Members, []string{"bert"}) || report.Count(directory.Refused) != 0 {
		t.Errorf("on a box of its own %+v, error %v, fates\n%s", g, err, strings.Join(fates(report), "\n"))
	}
	people, err := s.People(ctx)
	mustDo(t, err)
	alike(t, []directory.Person{anna}, people)
	if may, err := s.Allowed(ctx, "anna", "web", "edit"); err != nil || may {
		t.Errorf("anna may still edit: %v, error %v", may, err)
	}
}

// full is a disk that is full.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, fmt.Errorf("no space left") }

// TestThousandLines imports 1,000 people and says how long it takes.
func TestThousandLines(t *testing.T) {
	s, ctx := start(t), t.Context()
	mustDo(t, s.Grant(ctx, "web", "edit", "members"))
	var b strings.Builder
	b.WriteString("Given name,Family name,E-mail\n")
	for i := range 1000 {
		fmt.Fprintf(&b, "Anna,Archer,anna%d@elsewhere.example\n", i)
	}
	options := directory.ImportOptions{Format: "csv", Group: "members", DryRun: true}
	for _, options.DryRun = range []bool{true, false} {
		began := time.Now()
		report, err := s.Import(ctx, strings.NewReader(b.String()), options)
		mustDo(t, err)
		if report.Count(directory.Added) != 1000 || report.Lines[999].Name != "anna.archer1000" {
			t.Errorf("%d are added, the last as %q", report.Count(directory.Added), report.Lines[999].Name)
		}
		t.Logf("1000 lines, dry run %v: %v", options.DryRun, time.Since(began).Round(time.Millisecond))
	}
	if may, err := s.Allowed(ctx, "anna.archer1000", "web", "edit"); err != nil || !may {
		t.Errorf("the last may edit: %v, error %v", may, err)
	}
}
