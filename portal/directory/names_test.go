package directory

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"
)

// FuzzPersonDN looks that a name either is refused or becomes one entry right below the folder of people, and comes back.
func FuzzPersonDN(f *testing.F) {
	for _, name := range []string{"anna", "a.b-c_9", "", "Anna", "9lives", "anna,ou=groups", "anna+cn=x", `an\6ea`, "an\x00na",
		"ännchen", " anna", "anna ", "*", "probe-web", "anna)(uid=*"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		dn, err := personDN(name)
		if err != nil {
			if !errors.Is(err, ErrName) {
				t.Errorf("error %v", err)
			}
			return
		}
		d, err := ldap.ParseDN(dn)
		if err != nil || len(d.RDNs) != 3 || len(d.RDNs[0].Attributes) != 1 || nameOf(dn) != name {
			t.Errorf("%q becomes %q, error %v", name, dn, err)
		}
	})
}

func TestNames(t *testing.T) {
	for name, good := range map[string]bool{"anna": true, "a.b-c_9": true, "": false, "Anna": false, "9lives": false,
		"anna,ou=groups": false, "probe-web": false, "probe": true, "*": false} {
		if _, err := personDN(name); (err == nil) != good {
			t.Errorf("%q: error %v", name, err)
		}
	}
	if got := nameOf("not a name"); got != "" {
		t.Errorf("it names %q", got)
	}
}

func TestProposeName(t *testing.T) {
	taken := map[string]bool{"anna.archer": true, "user1": true, "anna.archer2": true}
	for _, c := range []struct{ given, family, want string }{
		{"Anna", "Archer", "anna.archer3"}, {"Jürgen", "Groß-Ähre", "juergen.gross-aehre"}, {"Madonna", "", "madonna"},
		{"", "van der Berg", "van-der-berg"}, {"Ångström", "Óðinn", "aangstroem.odinn"}, {"Αθηνά", "", "user2"}, {"李", "小龙", "user2"},
		{"", "", "user2"}, {"🌻", "", "user2"}, {"1", "2", "user2"}, {"O'Neil", "", "oneil"}, {"Anna", "Иванова", "anna"},
		{"Probe-Web", "", "user2"}, {strings.Repeat("a", 49), "x", strings.Repeat("a", 49)},
	} {
		got := ProposeName(c.given, c.family, func(name string) bool { return taken[name] })
		if got != c.want {
			t.Errorf("%q %q becomes %q, want %q", c.given, c.family, got, c.want)
		}
		if _, err := personDN(got); err != nil {
			t.Error(err)
		}
	}
}

func TestClean(t *testing.T) {
	for text, want := range map[string]string{" Anna ": "Anna", "A\u0308pfel": "Äpfel", "👩‍🌾": "👩‍🌾", "עדה": "עדה", "": ""} {
		if got, err := CleanText(text); err != nil || got != want {
			t.Errorf("%q becomes %q, error %v", text, got, err)
		}
	}
	for _, text := range []string{"a\u202eb", "a\u2066b", "a\u200fb", "a\x00b", "a\nb", "a\u2028b", "a\xffb", strings.Repeat("ä", 201), "\ue000"} {
		if got, err := CleanText(text); !errors.Is(err, ErrText) {
			t.Errorf("%q becomes %q", text, got)
		}
	}
	for mail, want := range map[string]string{"": "", " A.b+c@Example.ORG ": "A.b+c@example.org", "a@xn--mnchen-3ya.example": "a@xn--mnchen-3ya.example"} {
		if got, err := CleanMail(mail); err != nil || got != want {
			t.Errorf("%q becomes %q, error %v", mail, got, err)
		}
	}
	for _, mail := range []string{"a", "a@b", "a@@b.example", "Anna <a@b.example>", "a b@c.example", "ä@b.example", "a@b.example\r\nTo: c@d.example",
		"a@b.example, c@d.example", `"a@b"@c.example`, "a@-b.example", "a@[127.0.0.1]", "*"} {
		if got, err := CleanMail(mail); !errors.Is(err, ErrMail) {
			t.Errorf("%q becomes %q, error %v", mail, got, err)
		}
	}
}

// FuzzLists looks that every list is planned line by line, and that what would be written is clean.
func FuzzLists(f *testing.F) {
	f.Add("csv", "Vorname;Name;E-Mail;Gruppe\nAnna;Archer;a@b.example;members\n;;;\nAnna;Archer;a@b.example;\n")
	f.Add("csv", "user name\tname\nanna\t\"Archer, Anna\"\nx y\t\u202e\n")
	f.Add("ldif", "dn: uid=a,ou=people,o=organisation\nobjectClass: person\nuid: a\nmail: a@b.example\n\ndn: cn=g\nobjectClass: groupOfNames\ncn: g\nmember: uid=a\n")
	f.Fuzz(func(t *testing.T, format, text string) {
		var list []entrant
		var err error
		var report Report
		if format == "csv" {
			list, err = readTable(strings.NewReader(text), &report)
		} else {
			list, err = readEntries(strings.NewReader(text), &report)
		}
		if err != nil {
			return
		}
		p := emptyPlan(ImportOptions{})
		report.Lines = p.lineUp(list)
		for _, l := range report.Lines {
			if l.Fate != Added || l.Group {
				continue
			}
			v := p.people[l.Name].Person
			if _, err := personDN(v.Name); err != nil {
				t.Errorf("%+v: %v", l, err)
			}
			again := v
			if err := again.clean(); err != nil || again.Display != v.Display || again.Mail != v.Mail {
				t.Errorf("%+v is not clean: %v", v, err)
			}
		}
	})
}
