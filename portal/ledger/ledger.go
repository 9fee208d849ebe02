// Package ledger keeps what the organisation's hosting costs and what paid for it: the data of the accounts page. Amounts
// are whole cents, and what is divided adds up to the whole.
package ledger

import (
	"cmp"
	"crypto/rand"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"allotment/portal/directory"
	"allotment/portal/store"
)

// Kind tells money that goes from money that comes.
type Kind string

// The kinds.
const (
	Cost   Kind = "cost"
	Income Kind = "income"
)

// Repeat tells how often an entry comes again.
type Repeat string

// How often. An entry of the 31st comes on the last day of shorter months.
const (
	Once    Repeat = ""
	Monthly Repeat = "monthly"
	Yearly  Repeat = "yearly"
)

// Day is a date, as in 2026-11-22.
type Day string

// DayOf is the day of a moment, in its location.
func DayOf(t time.Time) Day { return Day(t.Format(time.DateOnly)) }

// Entry is something that was paid or got, once or again and again.
type Entry struct {
	ID       string `json:"id"`
	Date     Day    `json:"date"` // the first one, if it repeats
	What     string `json:"what"`
	Cents    int64  `json:"cents"`    // above zero
	Currency string `json:"currency"` // ISO 4217
	Kind     Kind   `json:"kind"`
	Module   string `json:"module,omitempty"` // that it is for alone; empty: for all
	Repeat   Repeat `json:"repeat,omitempty"`
	End      Day    `json:"end,omitempty"` // the last day on which it may repeat; empty: none
}

// Settings are who sees the accounts.
type Settings struct {
	Public   bool   `json:"public"`   // everybody, without logging in
	Currency string `json:"currency"` // of new entries
}

// ErrEntry says that an entry is not one.
var ErrEntry = errors.New("not an entry of the accounts")

// ErrNotFound says that there is no such entry.
var ErrNotFound = store.ErrNotFound

// maxCents bounds an amount, so that sums cannot overflow.
const maxCents = 1_000_000_000_00

var (
	entries  = store.NewBucket[Entry]("ledger-entries")
	settings = store.NewBucket[Settings]("ledger-settings")

	currencyForm = regexp.MustCompile(`^[A-Z]{3}$`)
	moduleForm   = regexp.MustCompile(`^[a-z0-9-]{0,63}$`)
)

const settingsKey = "settings"

// check refuses what is no entry, and cleans its words.
func (e *Entry) check() error {
	var err error
	if e.What, err = directory.CleanText(e.What); err != nil || e.What == "" {
		return errors.Join(fmt.Errorf("%w: the words for what it is", ErrEntry), err)
	}
	for _, day := range []Day{e.Date, cmp.Or(e.End, e.Date)} {
		if t, err := time.Parse(time.DateOnly, string(day)); err != nil || t.Year() < 1970 || t.Year() > 2200 {
			return fmt.Errorf("%w: date %q", ErrEntry, day)
		}
	}
	switch {
	case e.End != "" && (e.Repeat == Once || e.End < e.Date):
		return fmt.Errorf("%w: it ends on %s", ErrEntry, e.End)
	case e.Cents <= 0 || e.Cents > maxCents:
		return fmt.Errorf("%w: amount of %d cents", ErrEntry, e.Cents)
	case !currencyForm.MatchString(e.Currency):
		return fmt.Errorf("%w: currency %q", ErrEntry, e.Currency)
	case e.Kind != Cost && e.Kind != Income:
		return fmt.Errorf("%w: kind %q", ErrEntry, e.Kind)
	case e.Repeat != Once && e.Repeat != Monthly && e.Repeat != Yearly:
		return fmt.Errorf("%w: it repeats %q", ErrEntry, e.Repeat)
	case !moduleForm.MatchString(e.Module):
		return fmt.Errorf("%w: module %q", ErrEntry, e.Module)
	}
	return nil
}

// Put adds an entry, or changes the one with its ID, and returns it as it is kept.
func Put(tx *store.Tx, e Entry) (Entry, error) {
	if err := e.check(); err != nil {
		return e, err
	}
	if e.ID == "" {
		e.ID = strings.ToLower(rand.Text()[:12])
	} else if _, err := entries.Get(tx, e.ID); err != nil {
		return e, fmt.Errorf("cannot change entry %q of the accounts: %w", e.ID, err)
	}
	return e, entries.Put(tx, e.ID, e)
}

// Get finds an entry.
func Get(tx *store.Tx, id string) (Entry, error) { return entries.Get(tx, id) }

// Remove removes an entry, with all its repetitions.
func Remove(tx *store.Tx, id string) error { return entries.Delete(tx, id) }

// Entries lists the entries, the earliest first.
func Entries(tx *store.Tx) ([]Entry, error) {
	var all []Entry
	err := entries.All(tx, "", func(_ string, e Entry) bool {
		all = append(all, e)
		return true
	})
	slices.SortFunc(all, byDate)
	return all, err
}

func byDate(a, b Entry) int {
	return cmp.Or(cmp.Compare(a.Date, b.Date), cmp.Compare(a.What, b.What), cmp.Compare(a.ID, b.ID))
}

// GetSettings returns the settings; at first the accounts are not public, and in euros.
func GetSettings(tx *store.Tx) (Settings, error) {
	s, err := settings.Get(tx, settingsKey)
	if errors.Is(err, store.ErrNotFound) {
		return Settings{Currency: "EUR"}, nil
	}
	return s, err
}

// PutSettings changes the settings.
func PutSettings(tx *store.Tx, s Settings) error {
	if !currencyForm.MatchString(s.Currency) {
		return fmt.Errorf("%w: currency %q", ErrEntry, s.Currency)
	}
	return settings.Put(tx, settingsKey, s)
}

// Between returns what was paid and got from one day to another, both included: repeating entries once for each time.
func Between(all []Entry, from, to Day) []Entry {
	var found []Entry
	for _, e := range all {
		until := to
		if e.Repeat == Once {
			until = min(until, e.Date)
		} else if e.End != "" {
			until = min(until, e.End)
		}
		for n := 0; ; n++ {
			day := e.nth(n)
			if day > until {
				break
			}
			if day >= from {
				time := e
				time.Date = day
				found = append(found, time)
			}
			if e.Repeat == Once {
				break
			}
		}
	}
	slices.SortFunc(found, byDate)
	return found
}

// nth is the day of an entry's nth repetition.
func (e *Entry) nth(n int) Day {
	first, err := time.Parse(time.DateOnly, string(e.Date))
	if err != nil || n == 0 {
		return e.Date
	}
	months := n
	if e.Repeat == Yearly {
		months = 12 * n
	}
	day := time.Date(first.Year(), first.Month()+time.Month(months), 1, 0, 0, 0, 0, time.UTC)
	last := day.AddDate(0, 1, -1).Day()
	return DayOf(day.AddDate(0, 0, min(first.Day(), last)-1))
}

// WriteCSV writes entries as a table (RFC 4180) that spreadsheets and book-keeping read: costs are below zero. No cell
// begins with what a spreadsheet takes for a formula.
func WriteCSV(w io.Writer, list []Entry) error {
	out := csv.NewWriter(w)
	out.UseCRLF = true
	if err := out.Write([]string{"date", "what", "amount", "currency", "kind", "module"}); err != nil {
		return err
	}
	for _, e := range list {
		cents, what := e.Cents, e.What
		if e.Kind == Cost {
			cents = -cents
		}
		if strings.ContainsRune("=+-@", rune(what[0])) {
			what = "'" + what
		}
		if err := out.Write([]string{string(e.Date), what, Decimal(cents), e.Currency, string(e.Kind), e.Module}); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// Decimal writes cents as a decimal number with a point, such as -12.05.
func Decimal(cents int64) string {
	sign := ""
	if cents < 0 {
		sign, cents = "-", -cents
	}
	return fmt.Sprintf("%s%d.%02d", sign, cents/100, cents%100)
}

var amountForm = regexp.MustCompile(`^([0-9]{1,12})(?:[.,]([0-9]{1,2}))?$`)

// ParseAmount reads an amount as people write it, such as "12", "12.5" or "12,50", in cents.
func ParseAmount(s string) (int64, error) {
	m := amountForm.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return 0, fmt.Errorf("%w: amount %q", ErrEntry, s)
	}
	var cents int64
	for _, digit := range m[1] + (m[2] + "00")[:2] {
		cents = cents*10 + int64(digit-'0')
	}
	return cents, nil
}
