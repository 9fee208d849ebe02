package box

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"allotment/api"
	"allotment/portal/ledger"
	"allotment/portal/store"
	"allotment/portal/web"
)

// publicAccounts is the page that everybody sees, if the officers want that.
const publicAccounts = "/portal/accounts"

// usesFresh is how long what modules take is good enough to divide costs by.
const usesFresh = time.Minute

// uses remembers what modules take, so that visitors of the public page cannot keep the box busy.
type uses struct {
	mu   sync.Mutex
	at   time.Time
	list []ledger.Use
}

// accountsView is what a page of accounts shows.
type accountsView struct {
	Year      int
	Years     []int
	Summaries []ledger.Summary
	Entries   []ledger.Entry // of the year, repeated ones each time
	All       []ledger.Entry // as they were entered
	Settings  ledger.Settings
	Members   int
	Kinds     []web.Option
	Repeats   []web.Option
	Modules   []web.Option
	titles    map[string]string
	language  string
}

// Money writes cents as people in the visitor's language do.
func (v accountsView) Money(cents int64, currency string) string {
	text := ledger.Decimal(cents)
	if v.language == "de" {
		text = strings.ReplaceAll(text, ".", ",")
	}
	return text + "\u00a0" + currency
}

// ModuleTitle is a module's title, or its name if it is gone.
func (v accountsView) ModuleTitle(name string) string { return cmp.Or(v.titles[name], name) }

func (p *Pages) accounts(r *web.Request) error {
	r.Form.Set("currency", "")
	return p.showAccounts(r, "accounts")
}

func (p *Pages) publicAccounts(r *web.Request) error {
	var s ledger.Settings
	err := r.DB.View(func(tx *store.Tx) (err error) { s, err = ledger.GetSettings(tx); return err })
	if err != nil {
		return err
	}
	if !s.Public && !r.LoggedIn() {
		return r.Redirect("/portal/login?to=" + publicAccounts)
	}
	return p.showAccounts(r, "public")
}

func (p *Pages) showAccounts(r *web.Request, page string) error {
	v := accountsView{Year: r.Now.Year(), titles: map[string]string{}, language: r.Language}
	err := r.DB.View(func(tx *store.Tx) (err error) {
		if v.Settings, err = ledger.GetSettings(tx); err == nil {
			v.All, err = ledger.Entries(tx)
		}
		return err
	})
	if err != nil {
		return err
	}
	v.Years = years(v.All, r.Now)
	for _, y := range v.Years {
		if r.Query("year") == textOf(y) {
			v.Year = y
		}
	}
	v.Entries = ledger.Between(v.All, yearDay(v.Year, time.January, 1), yearDay(v.Year, time.December, 31))
	if err := p.addModules(r, &v); err != nil {
		return err
	}
	people, err := r.Directory.People(r.Context())
	if err != nil {
		return err
	}
	for _, person := range people {
		if person.Active {
			v.Members++
		}
	}
	v.choices(r)
	return r.Render(page, v)
}

func yearDay(year int, month time.Month, day int) ledger.Day {
	return ledger.DayOf(time.Date(year, month, day, 0, 0, 0, 0, time.UTC))
}

// years are those from the first entry until this one, the newest first.
func years(all []ledger.Entry, now time.Time) []int {
	first := now.Year()
	for _, e := range all {
		if t, err := time.Parse(time.DateOnly, string(e.Date)); err == nil {
			first = min(first, t.Year())
		}
	}
	var found []int
	for y := now.Year(); y >= max(first, now.Year()-20); y-- {
		found = append(found, y)
	}
	return found
}

// addModules divides the costs among the modules by what they take. Where the box does not answer, what was last known counts.
func (p *Pages) addModules(r *web.Request, v *accountsView) error {
	list, err := p.uses.get(r.Context(), r.Box, r.Now)
	if err != nil {
		r.Log.Warn("cannot divide costs among modules", "error", err)
	}
	v.Summaries = ledger.Summarize(v.Entries, list)
	v.Modules = []web.Option{{Value: "", Label: r.T("box.accounts.forall")}}
	for _, m := range r.Config().Modules {
		v.titles[m.Name] = r.ModuleTitle(m.Name, m.Title)
		v.Modules = append(v.Modules, web.Option{Value: m.Name, Label: v.titles[m.Name]})
	}
	return nil
}

func (u *uses) get(ctx context.Context, box *api.Client, now time.Time) ([]ledger.Use, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now.Sub(u.at) < usesFresh {
		return u.list, nil
	}
	r, err := box.Resources(ctx)
	if err != nil {
		return u.list, err
	}
	u.at, u.list = now, nil
	for _, m := range r.Modules {
		x := ledger.Use{Module: m.Name, Memory: m.Usage.Memory, Disk: m.Layers}
		for _, volume := range m.Volumes {
			x.Disk += volume.Used
		}
		u.list = append(u.list, x)
	}
	return u.list, nil
}

func (v *accountsView) choices(r *web.Request) {
	for _, k := range []ledger.Kind{ledger.Cost, ledger.Income} {
		v.Kinds = append(v.Kinds, web.Option{Value: string(k), Label: r.T("box.accounts.kind." + string(k))})
	}
	for _, k := range []ledger.Repeat{ledger.Once, ledger.Monthly, ledger.Yearly} {
		v.Repeats = append(v.Repeats, web.Option{Value: string(k), Label: r.T("box.accounts.repeat." + cmp.Or(string(k), "once"))})
	}
}

func (p *Pages) addEntry(r *web.Request) error {
	f := r.Form
	var names []string
	for _, m := range r.Config().Modules {
		names = append(names, m.Name)
	}
	e := ledger.Entry{What: f.Required("what", web.Line), Currency: strings.ToUpper(f.Required("currency", 3)),
		Kind:   ledger.Kind(f.Choice("kind", string(ledger.Cost), string(ledger.Income))),
		Repeat: ledger.Repeat(f.Choice("repeat", "", string(ledger.Monthly), string(ledger.Yearly))),
		Module: f.Choice("module", append(names, "")...)}
	if date := f.Date("date"); !date.IsZero() {
		e.Date = ledger.DayOf(date)
	} else if f.Error("date") == "" {
		f.Fail("date", "form.required")
	}
	if end := f.Date("end"); !end.IsZero() {
		e.End = ledger.DayOf(end)
	}
	var err error
	if e.Cents, err = ledger.ParseAmount(f.Required("amount", web.Line)); err != nil && f.Error("amount") == "" {
		f.Fail("amount", "box.accounts.amountwrong")
	}
	if f.OK() {
		err = r.DB.Update(func(tx *store.Tx) error { _, err := ledger.Put(tx, e); return err })
		if errors.Is(err, ledger.ErrEntry) {
			f.Fail("", "box.accounts.wrong")
		} else if err != nil {
			return err
		}
	}
	if !f.OK() {
		return p.showAccounts(r, "accounts")
	}
	r.Record("box.ledger-added", e.What, nil)
	return r.Done(root+"accounts", "box.accounts.added")
}

func (p *Pages) removeEntry(r *web.Request) error {
	var e ledger.Entry
	err := r.DB.Update(func(tx *store.Tx) (err error) {
		if e, err = ledger.Get(tx, r.Path("id")); err == nil {
			err = ledger.Remove(tx, e.ID)
		}
		return err
	})
	if errors.Is(err, ledger.ErrNotFound) {
		return web.ErrNotFound
	}
	if err != nil {
		return err
	}
	r.Record("box.ledger-removed", e.What, nil)
	return r.Done(root+"accounts", "box.accounts.removed")
}

func (p *Pages) setAccounts(r *web.Request) error {
	public := r.Form.Checked("public")
	err := r.DB.Update(func(tx *store.Tx) error {
		s, err := ledger.GetSettings(tx)
		if err != nil {
			return err
		}
		s.Public = public
		return ledger.PutSettings(tx, s)
	})
	if err != nil {
		return err
	}
	kind := map[bool]string{true: "box.ledger-public", false: "box.ledger-private"}[public]
	r.Record(kind, "", nil)
	return r.Done(root+"accounts", "box.settings.saved")
}

func (p *Pages) accountsCSV(r *web.Request) error {
	var all []ledger.Entry
	err := r.DB.View(func(tx *store.Tx) (err error) { all, err = ledger.Entries(tx); return err })
	if err != nil {
		return err
	}
	newest := years(all, r.Now)
	from := yearDay(newest[len(newest)-1], time.January, 1)
	var b bytes.Buffer
	list := slices.Clone(ledger.Between(all, from, ledger.DayOf(r.Now)))
	if err := ledger.WriteCSV(&b, list); err != nil {
		return err
	}
	r.W.Header().Set("Cache-Control", "no-store")
	return r.File(r.Now.Format(time.DateOnly)+"-accounts.csv", "text/csv; charset=utf-8", b.Bytes())
}

// accountsRoutes are the routes of accounts.
func (p *Pages) accountsRoutes() []web.Route {
	officer := func(method, path, does string, f func(*web.Request) error) web.Route {
		return web.Route{Method: method, Path: root + "accounts" + path, Access: api.Officer, Does: does, Handle: f}
	}
	return []web.Route{
		{Method: http.MethodGet, Path: publicAccounts, Access: api.Public, Does: "what the server costs, and what paid for it",
			Handle: p.publicAccounts},
		officer("GET", "", "what the server costs, to be changed", p.accounts),
		officer("POST", "", "add to the accounts", p.addEntry),
		officer("POST", "/{id}/remove", "take something out of the accounts", p.removeEntry),
		officer("POST", "/settings", "let everybody see the accounts, or not", p.setAccounts),
		officer("GET", "/csv", "the accounts as a table", p.accountsCSV),
	}
}
