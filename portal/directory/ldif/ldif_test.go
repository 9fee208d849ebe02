package ldif

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	const text = `version: 1

# people
# and a comment that
  goes on
dn: uid=anna,dc=example
objectClass: person
cn;lang-de:: QW5uYSDDhHBmZWw=
description: a long
  text
Mail:anna@example.org
empty:

dn:: dWlkPWJlcnQ=
mail: b@example.org
mail: bert@example.org


uid: nobody

dn: uid=x
changetype: delete

dn: uid=y
jpegPhoto:< file:///etc/passwd

dn: uid=z
cn:: ***
`
	got := Parse(text)
	want := []Record{
		{Line: 3, DN: "uid=anna,dc=example", Attributes: []Attribute{{"objectClass", "person"}, {"cn", "Anna Äpfel"},
			{"description", "a long text"}, {"Mail", "anna@example.org"}, {"empty", ""}}},
		{Line: 14, DN: "uid=bert", Attributes: []Attribute{{"mail", "b@example.org"}, {"mail", "bert@example.org"}}},
	}
	if len(got) != 6 {
		t.Fatalf("records %+v", got)
	}
	if diff := cmp.Diff(want, got[:2]); diff != "" {
		t.Error(diff)
	}
	for i, want := range []error{ErrNoDN, ErrChange, ErrURL} {
		if err := got[2+i].Err; !errors.Is(err, want) {
			t.Errorf("record %d: error %v, want %v", 2+i, err, want)
		}
	}
	if got[5].Err == nil {
		t.Error("base64 can be anything")
	}
	if got[0].First("mail") != "anna@example.org" || len(got[1].Values("MAIL")) != 2 || got[1].First("cn") != "" {
		t.Error("values are not found by name")
	}
}

// FuzzRoundTrip writes what was read, and reads it again.
func FuzzRoundTrip(f *testing.F) {
	f.Add("dn: uid=anna\ncn:: QW5uYSDDhHBmZWw=\nx: " + strings.Repeat("long ", 40))
	f.Add("version: 1\ndn:\na;b: c\n d\n\n#\n\n :\n")
	f.Add("dn: x\na:  :<\nb:: IA==\n\ndn: y\n\x00: \x00")
	f.Fuzz(func(t *testing.T, text string) {
		var good []Record
		for _, r := range Parse(text) {
			if r.Line = 0; r.Err == nil {
				good = append(good, r)
			}
		}
		var b strings.Builder
		if err := Write(&b, good...); err != nil {
			t.Fatal(err)
		}
		again := Parse(b.String())
		for i := range again {
			again[i].Line = 0
		}
		if diff := cmp.Diff(good, again); diff != "" {
			t.Errorf("%s\nwritten:\n%s", diff, b.String())
		}
	})
}
