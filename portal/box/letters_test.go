package box

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/api"
	"allotment/portal/directory"
)

// TestLetters mails each letter once to each officer in her language, and none that is old, or over: once the directory
// has told who they are.
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
	there, cuts := o.pages.deps.Directory, 0
	for whole := false; !whole; cuts++ { // the directory goes away earlier or later
		away := directory.Open(cutAfter(t, o.address, cuts), func() (string, error) { return o.password, nil })
		o.pages.deps.Directory = away
		err := o.pages.mailLetters(ctx)
		away.Close()
		if whole = err == nil; !whole && !errors.Is(err, directory.ErrUnavailable) || cuts > 50 {
			t.Fatal(err)
		}
		if all, err := o.pages.mail.Pending(); err != nil || (len(all) > 0) != whole {
			t.Fatalf("after %d questions: %d mails, error %v", cuts, len(all), err)
		}
	}
	if cuts < 4 { // the login, the offices, and each officer
		t.Errorf("the directory was asked %d times", cuts-1)
	}
	o.pages.deps.Directory = there
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

// cutAfter is the address of a directory that goes away for good once it was asked n times.
func cutAfter(t *testing.T, to string, n int) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer l.Close()
		a, err := l.Accept()
		if err != nil {
			return
		}
		defer a.Close()
		b, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer b.Close()
		go io.Copy(a, b)
		question := make([]byte, 1<<16) // each is small enough to come at once, and waits for the answer to the one before
		for ; n > 0; n-- {
			size, err := a.Read(question)
			if err != nil {
				return
			}
			if _, err := b.Write(question[:size]); err != nil {
				return
			}
		}
		a.Read(question)
		l.Close() // before who asks knows that there is no answer
	}()
	return l.Addr().String()
}
