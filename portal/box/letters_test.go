package box

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/api"
	"allotment/portal/directory"
)

// TestLetters mails each letter once to each officer in her language, and none that is old, or over.
func TestLetters(t *testing.T) {
	o := open(t)
	ctx := context.Background()
	for _, err := range []error{
		o.deps.Directory.ChangePerson(ctx, officer, "", func(p *directory.Person) { p.Language = "de" }),
		o.deps.Directory.AddPerson(ctx, directory.Person{Name: "carl", Given: "Carl", OutsideMail: "carl@mail.example", Language: "en"}),
		o.deps.Directory.AddPerson(ctx, directory.Person{Name: "dora", Given: "Dora"}), // without an address
		o.deps.Directory.AddPerson(ctx, directory.Person{Name: "emil", Given: "Emil", OutsideMail: "emil@mail.example"}),
		o.deps.Directory.AppointTo(ctx, "chair", "carl", time.Time{}, time.Time{}),
		o.deps.Directory.AppointTo(ctx, "secretary", "dora", time.Time{}, time.Time{}),
		o.deps.Directory.AddOffice(ctx, directory.Office{Name: "librarian", Title: "Librarian", Occupant: "emil"}), // no officer
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	attempt := func(n int, byHand bool, ended time.Time) api.UpdateAttempt {
		a := api.UpdateAttempt{Number: n, From: "1.0", To: "2.0", Ended: ended, Stays: !byHand, ByHand: byHand,
			Subject: "Garden Club: the server was updated to version 2.0", Letter: "the new version did not start at all.\n"}
		if byHand {
			a.Subject = "Garden Club: the server went back to version 1.0"
		}
		return a
	}
	o.box.Tried = []api.UpdateAttempt{attempt(3, true, o.now), attempt(3, false, o.now), attempt(2, false, o.now), attempt(1, false, o.now.AddDate(0, 0, -8))}
	for range 2 { // the second time there is nothing to do
		if err := o.pages.mailLetters(ctx); err != nil {
			t.Fatal(err)
		}
	}
	all, err := o.pages.mail.Pending()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range all {
		got = append(got, i.Message.To+": "+i.Message.Subject+": "+strings.TrimSpace(i.Message.Text))
	}
	slices.Sort(got)
	const english, german = "the new version did not start at all.", "Die neue Version ist gar nicht gestartet."
	if want := []string{
		"carl@mail.example: Garden Club: the server was updated to version 2.0: " + english,
		"carl@mail.example: Garden Club: the server went back to version 1.0: " + english,
		"olga@mail.example: Garden Club: der Server hat jetzt Version 2.0: " + german,
		"olga@mail.example: Garden Club: der Server ist zu Version 1.0 zurückgegangen: " + german,
	}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
