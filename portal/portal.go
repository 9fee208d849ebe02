// Package portal puts the portal together: what it keeps, what it asks, and the pages of all its packages.
package portal

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // the box has no files of time zones

	"allotment/api"
	"allotment/portal/audit"
	"allotment/portal/box"
	"allotment/portal/config"
	"allotment/portal/devices"
	"allotment/portal/directory"
	"allotment/portal/firstrun"
	"allotment/portal/login"
	"allotment/portal/mail"
	"allotment/portal/members"
	"allotment/portal/onboard"
	"allotment/portal/people"
	"allotment/portal/programs"
	"allotment/portal/session"
	"allotment/portal/setup"
	"allotment/portal/sso"
	"allotment/portal/store"
	"allotment/portal/web"
)

//go:embed messages
var files embed.FS

// Portal is a running portal.
type Portal struct {
	deps web.Deps
	site *web.Site
	box  *box.Pages
	sso  *sso.SSO

	first *firstrun.Service
}

// Open opens what the portal keeps, in the folder that the configuration names, and makes its pages. Clock tells the time.
func Open(c func() config.Config, clock func() time.Time, log *slog.Logger) (*Portal, error) {
	db, err := store.Open(filepath.Join(c().State, "portal.db"))
	if err != nil {
		return nil, err
	}
	p := &Portal{deps: newDeps(c, db, clock, log)}
	at := &place{db: db}
	p.deps.Reached = func(origin string) {
		if err := at.reached(origin); err != nil {
			log.Error("cannot remember the portal's address", "error", err)
		}
	}
	words, err := web.ReadMessages(mail.Messages, onboard.Messages, files)
	if err == nil {
		texts := mail.NewTexts(words)
		p.deps.Login = p.newLogin(texts, at)
		p.deps.Onboard = newOnboard(p.deps, texts, at)
		p.box = box.New(p.deps, p.deps.Mail)
		p.first, err = firstrun.New(p.deps, p.box, p.deps.Onboard)
	}
	if err == nil {
		p.sso, err = newSSO(p.deps)
	}
	if err == nil {
		p.deps.Unclaimed = p.first.Unclaimed
		p.site, err = web.New(p.deps, members.Section(), devices.Section(), people.Section(), p.box.Section(), p.first.Section(),
			programs.Section(p.sso),
			web.Section{Name: "mail", Files: mail.Messages}, web.Section{Name: "onboard", Files: onboard.Messages},
			web.Section{Name: "setup", Files: setup.Messages}, web.Section{Name: "portal", Files: files})
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	p.box.Say = p.site.Say
	for _, path := range []string{sso.WhoisPath, sso.OIDCPath, sso.PassPath} {
		p.site.Handle(path, p.sso) // which does its own checks
	}
	return p, nil
}

// newSSO is what tells others who a visitor is.
func newSSO(d web.Deps) (*sso.SSO, error) {
	return sso.New(sso.Deps{Directory: d.Directory, DB: d.DB, Audit: d.Audit, Sessions: d.Sessions, Config: d.Config,
		Now: d.Clock, Log: d.Log})
}

// newOnboard is the onboarding. Its mails lead to the portal's own host name, or before there is one to where an officer was
// last: of a stranger's request not even the host name can be believed.
func newOnboard(d web.Deps, texts *mail.Texts, at *place) *onboard.Service {
	return onboard.New(onboard.Deps{DB: d.DB, Directory: d.Directory, Mail: d.Mail, Texts: texts, Now: d.Clock, Log: d.Log,
		Origin:       func() string { return at.origin(d.Config()) },
		Organisation: d.Organisation,
	})
}

func newDeps(c func() config.Config, db *store.DB, clock func() time.Time, log *slog.Logger) web.Deps {
	return web.Deps{
		Config:       c,
		Organisation: func() string { return cmp.Or(c().Organisation, c().Domain) },
		Directory:    directory.Open(c().Directory, func() (string, error) { return readLine(c().Password) }),
		DB:           db,
		Audit:        audit.New(db, clock),
		Sessions:     session.New(db, clock, func() bool { return c().Secure }),
		Mail:         mail.New(db, func() mail.Relay { return mail.StoredRelay(db) }, clock, log),
		Box:          api.Unix(c().API),
		Clock:        clock,
		Log:          log,
	}
}

// newLogin is the login; people are told by mail what happens to their accounts.
func (p *Portal) newLogin(texts *mail.Texts, at *place) *login.Login {
	d := p.deps
	tell := func(ctx context.Context, name, kind string, args map[string]string) {
		if err := p.tell(ctx, texts, name, kind, args); err != nil {
			d.Log.Error("cannot tell a person about her account", "person", name, "kind", kind, "error", err)
		}
	}
	return login.New(login.Deps{Directory: d.Directory, DB: d.DB, Audit: d.Audit, Sessions: d.Sessions, Config: d.Config,
		Now: d.Clock, Tell: tell, Log: d.Log, Place: func() string { return at.origin(d.Config()) },
		CanMail: func() bool { return mail.StoredRelay(d.DB).Host != "" },
		Send: func(ctx context.Context, v directory.Person, kind string, until time.Time, args map[string]string) error {
			return p.send(ctx, texts, v, v.OutsideMail, kind, until, args)
		}})
}

func (p *Portal) tell(ctx context.Context, texts *mail.Texts, name, kind string, args map[string]string) error {
	person, err := p.deps.Directory.Person(ctx, name)
	to := person.Address()
	if err != nil || to == "" {
		return err
	}
	return p.send(ctx, texts, person, to, kind, time.Time{}, args)
}

// send mails a person at one of her addresses.
func (p *Portal) send(ctx context.Context, texts *mail.Texts, person directory.Person, to, kind string, until time.Time,
	args map[string]string) error {
	values := map[string]string{"name": person.Display, "organisation": p.deps.Organisation()}
	maps.Copy(values, args)
	m, err := texts.Write(to, person.Language, kind, values)
	if err != nil {
		return err
	}
	m.Until = until
	return p.deps.Mail.Send(ctx, m)
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
	for _, run := range []func(context.Context){p.deps.Mail.Run, p.deps.Onboard.Run, p.box.Run, p.first.Run, p.sso.Run,
		p.DeclarePermissions} {
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
		err = errors.Join(err, p.deps.Login.Forget(name), p.deps.Onboard.Forget(name),
			p.deps.Audit.Record(audit.Entry{Kind: "person.removed", Subject: name}))
	}
	_, stale := p.deps.Login.Gone(ctx) // whom a cut between the two has left
	if err = errors.Join(err, stale); err != nil && !errors.Is(err, directory.ErrUnavailable) {
		p.deps.Log.Error("cannot remove who was to be deleted", "error", err)
	}
}

// Close closes what Open opened.
func (p *Portal) Close() error {
	p.deps.Box.Close()
	if p.deps.Login != nil {
		p.deps.Login.Wait()
	}
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
