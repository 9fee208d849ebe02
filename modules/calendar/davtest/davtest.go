// Package davtest acts as a member's programs towards the calendar: CalDAV and CardDAV by a library that knows nothing
// of the server, and plain HTTP where a request must be just so. Tests use it with and without the gateway.
package davtest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-ical"
	"github.com/emersion/go-vcard"
	"github.com/emersion/go-webdav"
	"github.com/emersion/go-webdav/caldav"
	"github.com/emersion/go-webdav/carddav"
)

// Member is a member's program with what it discovered.
type Member struct {
	Name, Password string
	Home           string // path of all that is the member's
	Calendar       string // path of the first calendar
	Contacts       string // path of the first address book
	base           string
	http           *http.Client
	events         *caldav.Client
	cards          *carddav.Client
}

// LogIn discovers the member's calendar and address book, from nothing but the server's address (RFC 6764).
func LogIn(ctx context.Context, client *http.Client, base, name, password string) (*Member, error) {
	m := &Member{Name: name, Password: password, base: base, http: client}
	auth := webdav.HTTPClientWithBasicAuth(client, name, password)
	for _, service := range []string{"caldav", "carddav"} {
		if err := m.discover(ctx, auth, service); err != nil {
			return nil, fmt.Errorf("cannot discover %s of %q: %w", service, name, err)
		}
	}
	return m, nil
}

func (m *Member) discover(ctx context.Context, auth webdav.HTTPClient, service string) error {
	where, err := m.wellKnown(ctx, service)
	if err != nil {
		return err
	}
	if m.events, err = caldav.NewClient(auth, where); err != nil {
		return err
	}
	if m.cards, err = carddav.NewClient(auth, where); err != nil {
		return err
	}
	principal, err := m.events.FindCurrentUserPrincipal(ctx)
	if err != nil {
		return err
	}
	if service == "caldav" {
		return m.findCalendar(ctx, principal)
	}
	return m.findContacts(ctx, principal)
}

// wellKnown follows the redirect of /.well-known/SERVICE (RFC 5785).
func (m *Member) wellKnown(ctx context.Context, service string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, "PROPFIND", m.base+"/.well-known/"+service, nil)
	if err != nil {
		return "", err
	}
	resp, err := m.http.Transport.RoundTrip(r)
	if err != nil {
		return "", err
	}
	resp.Body.Close()
	to, err := resp.Location()
	if err != nil {
		return "", fmt.Errorf("/.well-known/%s: status %s: %w", service, resp.Status, err)
	}
	return to.String(), nil
}

func (m *Member) findCalendar(ctx context.Context, principal string) error {
	home, err := m.events.FindCalendarHomeSet(ctx, principal)
	if err != nil {
		return err
	}
	all, err := m.events.FindCalendars(ctx, home)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return fmt.Errorf("there is no calendar in %q", home)
	}
	m.Home, m.Calendar = home, all[0].Path
	return nil
}

func (m *Member) findContacts(ctx context.Context, principal string) error {
	home, err := m.cards.FindAddressBookHomeSet(ctx, principal)
	if err != nil {
		return err
	}
	all, err := m.cards.FindAddressBooks(ctx, home)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return fmt.Errorf("there is no address book in %q", home)
	}
	m.Contacts = all[0].Path
	return nil
}

// Event is the path of the member's event of that number, and Card that of the card.
func (m *Member) Event(n int) string { return fmt.Sprintf("%sevent%03d.ics", m.Calendar, n) }

// Card is the path of the member's card of that number.
func (m *Member) Card(n int) string { return fmt.Sprintf("%scard%03d.vcf", m.Contacts, n) }

// AddEvents enters events 0 to n-1, each an hour after the other.
func (m *Member) AddEvents(ctx context.Context, n int) error {
	for i := range n {
		e := ical.NewEvent()
		start := time.Date(2027, 1, 1, i, 0, 0, 0, time.UTC)
		e.Props.SetText(ical.PropUID, fmt.Sprintf("event-%d-of-%s", i, m.Name))
		e.Props.SetText(ical.PropSummary, fmt.Sprintf("Umgraben, Beet %d", i))
		e.Props.SetDateTime(ical.PropDateTimeStamp, start)
		e.Props.SetDateTime(ical.PropDateTimeStart, start)
		e.Props.SetDateTime(ical.PropDateTimeEnd, start.Add(time.Hour))
		c := ical.NewCalendar()
		c.Props.SetText(ical.PropVersion, "2.0")
		c.Props.SetText(ical.PropProductID, "-//Allotment//Test//EN")
		c.Children = append(c.Children, e.Component)
		if _, err := m.events.PutCalendarObject(ctx, m.Event(i), c); err != nil {
			return fmt.Errorf("cannot enter event %d: %w", i, err)
		}
	}
	return nil
}

// AddCards enters cards 0 to n-1.
func (m *Member) AddCards(ctx context.Context, n int) error {
	for i := range n {
		c := vcard.Card{}
		c.SetValue(vcard.FieldUID, fmt.Sprintf("card-%d-of-%s", i, m.Name))
		c.SetValue(vcard.FieldFormattedName, fmt.Sprintf("Gärtnerin %d", i))
		c.SetValue(vcard.FieldName, fmt.Sprintf("%d;Gärtnerin;;;", i))
		vcard.ToV4(c)
		if _, err := m.cards.PutAddressObject(ctx, m.Card(i), c); err != nil {
			return fmt.Errorf("cannot enter card %d: %w", i, err)
		}
	}
	return nil
}

// Summaries lists the summaries of all events, sorted, by a query of the calendar (RFC 4791 section 7.8).
func (m *Member) Summaries(ctx context.Context) ([]string, error) {
	found, err := m.events.QueryCalendar(ctx, m.Calendar, &caldav.CalendarQuery{
		CompRequest: caldav.CalendarCompRequest{Name: "VCALENDAR", AllProps: true, AllComps: true},
		CompFilter:  caldav.CompFilter{Name: "VCALENDAR", Comps: []caldav.CompFilter{{Name: "VEVENT"}}},
	})
	var all []string
	for _, o := range found {
		for _, e := range o.Data.Events() {
			s, err := e.Props.Text(ical.PropSummary)
			if err != nil {
				return nil, err
			}
			all = append(all, s)
		}
	}
	slices.Sort(all)
	return all, err
}

// Names lists the names on all cards, sorted, by a query of the address book (RFC 6352 section 8.6).
func (m *Member) Names(ctx context.Context) ([]string, error) {
	found, err := m.cards.QueryAddressBook(ctx, m.Contacts, &carddav.AddressBookQuery{
		DataRequest: carddav.AddressDataRequest{AllProp: true},
		PropFilters: []carddav.PropFilter{{Name: vcard.FieldFormattedName}},
	})
	var all []string
	for _, o := range found {
		all = append(all, o.Card.Value(vcard.FieldFormattedName))
	}
	slices.Sort(all)
	return all, err
}

// Answer is what the server said to a plain request.
type Answer struct {
	Status int
	ETag   string
	Body   string
}

// Do makes a plain request as the member; header may be empty, or "Name: value".
func (m *Member) Do(ctx context.Context, method, path, header, body string) (Answer, error) {
	r, err := http.NewRequestWithContext(ctx, method, m.base+path, strings.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	r.SetBasicAuth(m.Name, m.Password)
	r.Header.Set("Content-Type", "text/calendar; charset=utf-8")
	if name, value, ok := strings.Cut(header, ": "); ok {
		r.Header.Set(name, value)
	}
	resp, err := m.http.Do(r)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return Answer{resp.StatusCode, resp.Header.Get("ETag"), string(b)}, err
}

// Conflict has two programs of a member change the event of that number after both read it: the first must win, and the
// second hear of it (RFC 4791 section 5.3.2, RFC 9110 section 13.1). Then neither creates what is there nor deletes what it
// does not know.
func (m *Member) Conflict(ctx context.Context, n int) error {
	path := m.Event(n)
	read, err := m.Do(ctx, "GET", path, "", "")
	if err != nil {
		return err
	}
	by := func(program string) string {
		return strings.Replace(read.Body, "SUMMARY:", "SUMMARY:"+program+"\\, ", 1)
	}
	for _, step := range []struct {
		method, header, body string
		want                 int
	}{
		{"PUT", "If-Match: " + read.ETag, by("phone"), http.StatusNoContent},
		{"PUT", "If-Match: " + read.ETag, by("laptop"), http.StatusPreconditionFailed},
		{"PUT", "If-None-Match: *", by("laptop"), http.StatusPreconditionFailed},
		{"DELETE", "If-Match: " + read.ETag, "", http.StatusPreconditionFailed},
	} {
		a, err := m.Do(ctx, step.method, path, step.header, step.body)
		if err != nil {
			return err
		}
		if a.Status != step.want {
			return fmt.Errorf("%s with %q: status %d, want %d", step.method, step.header, a.Status, step.want)
		}
	}
	now, err := m.Do(ctx, "GET", path, "", "")
	if err == nil && !strings.Contains(now.Body, "SUMMARY:phone") {
		err = fmt.Errorf("after the conflict there is %q", now.Body)
	}
	return err
}
