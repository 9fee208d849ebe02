package ledger

import (
	"encoding/csv"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"allotment/portal/store"
)

func server() Entry {
	return Entry{Date: "2025-01-31", What: "Server", Cents: 499, Currency: "EUR", Kind: Cost, Repeat: Monthly}
}

func days(list []Entry) string {
	var all []string
	for _, e := range list {
		all = append(all, string(e.Date))
	}
	return strings.Join(all, " ")
}

func TestKeeps(t *testing.T) {
	db, err := store.Open(filepath.Join(t.TempDir(), "portal.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.Update(func(tx *store.Tx) error {
		if s, err := GetSettings(tx); err != nil || s.Public || s.Currency != "EUR" {
			t.Errorf("settings %v, error %v", s, err)
		}
		e, err := Put(tx, server())
		if err != nil || e.ID == "" {
			t.Fatalf("%v, error %v", e, err)
		}
		e.Cents = 599
		if _, err := Put(tx, e); err != nil {
			t.Error(err)
		}
		domain := Entry{Date: "2024-05-01", What: "Domain", Cents: 1200, Currency: "EUR", Kind: Cost, Repeat: Yearly}
		if domain, err = Put(tx, domain); err != nil {
			t.Error(err)
		}
		all, err := Entries(tx)
		if err != nil || days(all) != "2024-05-01 2025-01-31" || all[1] != e {
			t.Errorf("entries %v, error %v", all, err)
		}
		if got, err := Get(tx, e.ID); err != nil || got != e {
			t.Errorf("%v, error %v", got, err)
		}
		if _, err := Put(tx, Entry{ID: "gone", Date: "2025-01-01", What: "a", Cents: 1, Currency: "EUR", Kind: Cost}); !errors.Is(err, ErrNotFound) {
			t.Errorf("changing what is gone: %v", err)
		}
		return errors.Join(Remove(tx, domain.ID), PutSettings(tx, Settings{Public: true, Currency: "GBP"}))
	})
	if err != nil {
		t.Fatal(err)
	}
	err = db.View(func(tx *store.Tx) error {
		all, err := Entries(tx)
		s, err2 := GetSettings(tx)
		if len(all) != 1 || !s.Public || s.Currency != "GBP" {
			t.Errorf("%v, %v", all, s)
		}
		return errors.Join(err, err2)
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRefuses(t *testing.T) {
	good := server()
	if err := good.check(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*Entry){
		"date":              func(e *Entry) { e.Date = "2025-02-30" },
		"time":              func(e *Entry) { e.Date = "2025-02-03T10:00" },
		"end before":        func(e *Entry) { e.End = "2025-01-30" },
		"end of a one-time": func(e *Entry) { e.Repeat, e.End = Once, "2025-12-31" },
		"nothing":           func(e *Entry) { e.Cents = 0 },
		"below zero":        func(e *Entry) { e.Cents = -5 },
		"too much":          func(e *Entry) { e.Cents = maxCents + 1 },
		"currency":          func(e *Entry) { e.Currency = "eur" },
		"kind":              func(e *Entry) { e.Kind = "gift" },
		"repeat":            func(e *Entry) { e.Repeat = "daily" },
		"module":            func(e *Entry) { e.Module = "a b" },
		"no words":          func(e *Entry) { e.What = " " },
		"control":           func(e *Entry) { e.What = "a\nb" },
	} {
		bad := good
		spoil(&bad)
		if err := bad.check(); !errors.Is(err, ErrEntry) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestRepeats(t *testing.T) {
	monthly, yearly, once := server(), server(), server()
	yearly.Date, yearly.Repeat = "2024-02-29", Yearly
	once.Repeat = Once
	ended := monthly
	ended.End = "2025-03-31"
	for name, c := range map[string]struct {
		entry    Entry
		from, to Day
		want     string
	}{
		"the end of months": {monthly, "2025-01-01", "2025-04-30", "2025-01-31 2025-02-28 2025-03-31 2025-04-30"},
		"over a new year":   {monthly, "2025-12-01", "2026-01-31", "2025-12-31 2026-01-31"},
		"before it began":   {monthly, "2024-01-01", "2025-01-30", ""},
		"ended":             {ended, "2025-01-01", "2025-12-31", "2025-01-31 2025-02-28 2025-03-31"},
		"leap day":          {yearly, "2024-01-01", "2028-12-31", "2024-02-29 2025-02-28 2026-02-28 2027-02-28 2028-02-29"},
		"once":              {once, "2025-01-31", "2025-01-31", "2025-01-31"},
		"once, later":       {once, "2025-02-01", "2026-01-31", ""},
	} {
		if got := days(Between([]Entry{c.entry}, c.from, c.to)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestSummary(t *testing.T) {
	list := []Entry{
		{What: "Server", Cents: 6001, Currency: "EUR", Kind: Cost},
		{What: "Text messages", Cents: 150, Currency: "EUR", Kind: Cost, Module: "chat"},
		{What: "Pictures", Cents: 70, Currency: "EUR", Kind: Cost, Module: "photos"},
		{What: "Fees", Cents: 7000, Currency: "EUR", Kind: Income},
		{What: "Domain", Cents: 999, Currency: "GBP", Kind: Cost},
	}
	const mb = 1 << 20
	all := Summarize(list, []Use{{"web", 300 * mb, 1000 * mb}, {"chat", 100 * mb, 0}, {"calendar", 100 * mb, 500 * mb}})
	if len(all) != 2 || all[0].Currency != "EUR" || all[1].Currency != "GBP" {
		t.Fatalf("%+v", all)
	}
	s := all[0]
	want := []Share{{"web", 0, 1800 + 2001}, {"calendar", 0, 600 + 1000}, {"chat", 150, 600}, {"photos", 70, 0}}
	if s.Costs != 6221 || s.Income != 7000 || s.Balance() != 779 || !slices.Equal(s.Shares, want) {
		t.Errorf("%+v", s)
	}
	if got := s.PerMember(40); got != 156 { // 155.525
		t.Errorf("each member costs %d", got)
	}
	if got := s.PerMember(0); got != 0 {
		t.Errorf("without members %d", got)
	}
}

// FuzzSharesAddUp divides any sum among modules with any use: no cent is lost or made.
func FuzzSharesAddUp(f *testing.F) {
	f.Add(int64(6000), int64(300), int64(1000), int64(100), int64(0))
	f.Add(int64(1), int64(0), int64(0), int64(0), int64(0))
	f.Add(int64(maxCents), int64(1)<<62, int64(1)<<62, int64(1)<<62, int64(-1))
	f.Fuzz(func(t *testing.T, cents, memory1, disk1, memory2, disk2 int64) {
		if cents <= 0 || cents > maxCents {
			return
		}
		list := []Entry{{What: "a", Cents: cents, Currency: "EUR", Kind: Cost}}
		s := Summarize(list, []Use{{"a", memory1, disk1}, {"b", memory2, disk2}})[0]
		var sum int64
		for _, share := range s.Shares {
			if share.Common < 0 {
				t.Errorf("share %+v", share)
			}
			sum += share.Total()
		}
		if sum != cents || s.Costs != cents {
			t.Errorf("%d of %d cents", sum, cents)
		}
	})
}

func TestCSV(t *testing.T) {
	var b strings.Builder
	list := []Entry{{Date: "2025-01-31", What: `=HYPERLINK("x")`, Cents: 1205, Currency: "EUR", Kind: Cost, Module: "web"},
		{Date: "2025-02-01", What: "Fees, 2025", Cents: 5, Currency: "EUR", Kind: Income}}
	if err := WriteCSV(&b, list); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(strings.NewReader(b.String())).ReadAll()
	if err != nil || len(rows) != 3 {
		t.Fatalf("%v, error %v", rows, err)
	}
	if want := []string{"2025-01-31", `'=HYPERLINK("x")`, "-12.05", "EUR", "cost", "web"}; !slices.Equal(rows[1], want) {
		t.Errorf("%q", rows[1])
	}
	if want := []string{"2025-02-01", "Fees, 2025", "0.05", "EUR", "income", ""}; !slices.Equal(rows[2], want) {
		t.Errorf("%q", rows[2])
	}
}

func TestParseAmount(t *testing.T) {
	for s, want := range map[string]int64{"12": 1200, "12.5": 1250, " 12,50 ": 1250, "0.01": 1, "0": 0, "999999999999.99": 99999999999999} {
		if got, err := ParseAmount(s); err != nil || got != want {
			t.Errorf("%q is %d, error %v", s, got, err)
		}
	}
	for _, s := range []string{"", "-1", "1.234", "1,000.00", "1e3", "٣", "12 €", "9999999999999"} {
		if got, err := ParseAmount(s); !errors.Is(err, ErrEntry) {
			t.Errorf("%q is %d, error %v", s, got, err)
		}
	}
}
