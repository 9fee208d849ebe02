// Package portal puts the portal together: what it keeps, what it asks, and the pages of all its packages.
package portal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"allotment/api"
	"allotment/portal/audit"
	"allotment/portal/box"
	"allotment/portal/config"
	"allotment/portal/directory"
	"allotment/portal/login"
	"allotment/portal/mail"
	"allotment/portal/members"
	"allotment/portal/onboard"
	"allotment/portal/people"
	"allotment/portal/session"
	"allotment/portal/store"
	"allotment/portal/web"
)

// Portal is a running portal.
type Portal struct {
	deps web.Deps
	site *web.Site
	box  *box.Pages
}

// Open opens what the portal keeps, in the folder that the configuration names, and makes its pages. Clock tells the time.
func Open(c func() config.Config, clock func() time.Time, log *slog.Logger) (*Portal, error) {
	db, err := store.Open(filepath.Join(c().State, "portal.db"))
	if err != nil {
		return nil, err
	}
	p := &Portal{deps: newDeps(c, db, clock, log)}
	words, err := web.ReadMessages(mail.Messages, onboard.Messages)
	if err == nil {
		p.deps.Onboard = newOnboard(p.deps, mail.NewTexts(words))
		p.box = box.New(p.deps, p.deps.Mail)
		p.site, err = web.New(p.deps, members.Section(), people.Section(), p.box.Section(),
			web.Section{Name: "mail", Files: mail.Messages}, web.Section{Name: "onboard", Files: onboard.Messages})
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// newOnboard is the onboarding. Its mails lead to the portal's own host name, or before there is one to the domain.
func newOnboard(d web.Deps, texts *mail.Texts) *onboard.Service {
	return onboard.New(onboard.Deps{DB: d.DB, Directory: d.Directory, Mail: d.Mail, Texts: texts, Now: d.Clock, Log: d.Log,
		Origin:       func() string { return origin(d.Config()) },
		Organisation: d.Organisation,
	})
}

func origin(c config.Config) string {
	switch {
	case c.Origin != "":
		return c.Origin
	case c.Secure:
		return "https://" + c.Domain
	}
	return "http://" + c.Domain
}

func newDeps(c func() config.Config, db *store.DB, clock func() time.Time, log *slog.Logger) web.Deps {
	d := web.Deps{
		Config:       c,
		Organisation: func() string { return c().Domain },
		Directory:    directory.Open(c().Directory, func() (string, error) { return readLine(c().Password) }),
		DB:           db,
		Audit:        audit.New(db, clock),
		Sessions:     session.New(db, clock, func() bool { return c().Secure }),
		Mail:         mail.New(db, func() mail.Relay { return mail.StoredRelay(db) }, clock, log),
		Box:          api.Unix(c().API),
		Clock:        clock,
		Log:          log,
	}
	d.Login = login.New(login.Deps{Directory: d.Directory, DB: db, Audit: d.Audit, Sessions: d.Sessions, Config: c, Now: clock})
	return d
}

// ServeHTTP answers one request.
func (p *Portal) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.site.ServeHTTP(w, r) }

// Site is the portal's pages.
func (p *Portal) Site() *web.Site { return p.site }

// Deps is what the pages work with.
func (p *Portal) Deps() web.Deps { return p.deps }

// sweepEvery is how often what has expired is removed.
const sweepEvery = time.Hour

// Run does what is due without a visitor, until ctx ends.
func (p *Portal) Run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for _, run := range []func(context.Context){p.deps.Mail.Run, p.deps.Onboard.Run, p.box.Run} {
		all.Go(func() { run(ctx) })
	}
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		p.sweep(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (p *Portal) sweep(ctx context.Context) {
	if err := p.deps.Sessions.Sweep(); err != nil {
		p.deps.Log.Error("cannot sweep", "error", err)
	}
	gone, err := p.deps.Directory.Purge(ctx, p.deps.Clock())
	for _, name := range gone {
		err = errors.Join(err, p.deps.Audit.Record(audit.Entry{Kind: "person.removed", Subject: name}))
	}
	if err != nil && !errors.Is(err, directory.ErrUnavailable) {
		p.deps.Log.Error("cannot remove who was to be deleted", "error", err)
	}
}

// Close closes what Open opened.
func (p *Portal) Close() error {
	p.deps.Box.Close()
	return errors.Join(p.deps.Directory.Close(), p.deps.DB.Close())
}

func readLine(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("cannot read a secret: %w", err)
	}
	return strings.TrimRight(string(b), "\n"), nil
}

// Onboarding is how people come in.
func (p *Portal) Onboarding() *onboard.Service { return p.deps.Onboard }
