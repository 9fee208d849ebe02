// Package box has the officers' pages of the machine: how it does, its modules and their settings, updates, logs, what it
// uses, backup, names, outgoing mail and what it costs. It asks the box through its API, for the officer who wants it.
package box

import (
	"context"
	"embed"
	"errors"
	"net/http"
	"sync"

	"allotment/api"
	"allotment/portal/mail"
	"allotment/portal/web"
)

//go:embed pages messages
var files embed.FS

// Pages are the officers' pages of the machine.
type Pages struct {
	// Admitted tells whether a visitor of a box that has no officer yet may restore a backup; nil: nobody.
	Admitted func(*web.Request) bool
	// Say is what the box says, in a language (BCP 47; empty: English).
	Say func(language, text string) string

	deps    web.Deps
	mail    *mail.Queue
	history *History
	jobs    *Jobs
	names   *DNSWatch
	uses    uses
}

// New makes the pages.
func New(deps web.Deps, queue *mail.Queue) *Pages {
	checker := DNSChecker{Port: "53", Now: deps.Clock}
	return &Pages{
		deps: deps, mail: queue, history: NewHistory(deps.DB), jobs: NewJobs(deps.Clock),
		names: &DNSWatch{Check: checker.Check, Now: deps.Clock},
		Say:   func(_, text string) string { return text },
	}
}

// Run samples what the box uses, waits for a wanted domain, and mails letters about updates, until ctx ends.
func (p *Pages) Run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { p.history.Run(ctx, p.deps.Box) })
	all.Go(func() { p.awaitDomain(ctx) })
	all.Go(func() { p.mailLettersOften(ctx) })
	all.Wait()
}

const root = "/portal/box/"

// firstPath is the page of a restore during the first run.
const firstPath = "/portal/first/restore"

// Section is the pages with their links.
func (p *Pages) Section() web.Section {
	link := func(path, key string) web.Link {
		return web.Link{Path: root + path, Key: "box.menu." + key, Access: api.Officer}
	}
	return web.Section{
		Name: "box", Files: files, Routes: p.routes(),
		Menu: []web.Link{link("", "overview"), link("modules", "modules"), link("updates", "updates"), link("backup", "backup"),
			link("health", "health"), link("resources", "resources"), link("logs", "logs"), link("dns", "dns"),
			link("mail", "mail"), link("accounts", "accounts"), link("organisation", "organisation"), link("power", "power")},
	}
}

func (p *Pages) routes() []web.Route {
	get := func(path, does string, f func(*web.Request) error) web.Route {
		return web.Route{Method: "GET", Path: root + path, Access: api.Officer, Does: does, Handle: f}
	}
	post := func(path, does string, f func(*web.Request) error) web.Route {
		return web.Route{Method: "POST", Path: root + path, Access: api.Officer, Does: does, Handle: f}
	}
	first := func(method, does string, f func(*web.Request) error) web.Route {
		return web.Route{Method: method, Path: firstPath, Access: api.Public, Does: does, Handle: f, FirstRun: true}
	}
	fresh := func(r web.Route) web.Route { r.Fresh = true; return r }
	return append(p.accountsRoutes(), []web.Route{
		get("{$}", "the four lamps", p.overview),
		get("jobs/{id}", "how something that takes long goes on", p.job),
		get("modules", "modules with what each takes", p.modules),
		get("modules/{module}", "one module", p.module),
		post("modules/{module}/switch", "switch a module on or off", p.switchModule),
		post("modules/{module}/restart", "start a service again", p.restartService),
		get("modules/{module}/settings", "a module's settings", p.settings),
		post("modules/{module}/settings", "change a module's settings", p.changeSettings),
		get("organisation", "the organisation's settings", p.settings),
		post("organisation", "change the organisation's settings", p.changeSettings),
		get("updates", "how the box stays up to date", p.updates),
		get("updates/{number}", "the letter about an update", p.letter),
		post("updates/check", "look for a new version", p.checkUpdate),
		post("updates/now", "update now", p.updateNow),
		post("updates/policy", "pause, defer, or choose the night", p.updatePolicy),
		get("updates/back", "what going back would lose", p.goingBack),
		fresh(post("updates/back", "go back to the version of before", p.goBack)),
		get("health", "how everything does, with repairs", p.health),
		post("health/run", "try or repair something", p.runTask),
		get("logs", "lines of logs", p.logs),
		get("resources", "what the box uses", p.resources),
		get("backup", "how the backup does", p.backup),
		post("backup/target", "choose where backups go", p.setTarget),
		post("backup/target/remove", "make no more backups", p.removeTarget),
		get("backup/sheet", "the sheet with the key, to print", p.sheet),
		post("backup/sheet", "the sheet was printed", p.printed),
		post("backup/now", "back up now", p.backupNow),
		post("backup/prove", "prove the newest backup now", p.prove),
		get("backup/restore", "what a restore needs", p.restoring),
		fresh(post("backup/restore", "replace everything by a backup", p.restore)),
		fresh(get("backup/export", "all data in open formats", p.export)),
		first("GET", "what a restore onto a new box needs", p.firstRestoring),
		first("POST", "replace a new box by a backup", p.firstRestore),
		get("dns", "what the domain name system says", p.dns),
		fresh(post("dns", "choose the organisation's domain", p.setDomain)),
		get("mail", "outgoing mail", p.mailPage),
		post("mail", "choose who delivers outgoing mail", p.setRelay),
		post("mail/test", "send a mail to oneself", p.testMail),
		post("mail/{id}/retry", "try a mail again", p.retryMail),
		post("mail/{id}/remove", "give a mail up", p.removeMail),
		get("power", "restart and switch off", p.power),
		fresh(post("power", "restart or switch off", p.setPower)),
	}...)
}

// ctx is the context for asking the box on behalf of the visitor.
func ctx(r *web.Request) context.Context { return api.WithActor(r.HTTP.Context(), r.Person.Name) }

// problem tells an error of the box in the visitor's words.
func problem(err error) error {
	var e *api.Error
	var told *web.Problem
	switch {
	case err == nil:
		return nil
	case errors.As(err, &told):
		return told
	case !errors.As(err, &e):
		return &web.Problem{Status: http.StatusServiceUnavailable, Key: "box.problem.unreachable", Err: err}
	case e.Code == api.NotFound:
		return web.ErrNotFound
	}
	return &web.Problem{Status: e.Status(), Key: "box.problem.says", Args: []any{"text", web.Said(e.Error())}, Err: err}
}

// class is a level's class of the style sheet.
func class(l api.Level) string {
	return map[api.Level]string{api.Good: "good", api.Fair: "warn", api.Bad: "bad"}[l]
}

// Do begins something that can take long, for the visitor, and waits a moment for its end. done is false if the visitor was
// led to the page that tells how it goes on, or if the same is being done already.
func (p *Pages) Do(r *web.Request, about About, f func(context.Context, func(api.Progress)) error) (done bool, err error) {
	j, begun := p.jobs.Start(about, r.Person.Name, f)
	if !begun {
		return false, web.Fail(http.StatusConflict, "box.problem.busy")
	}
	if j.Await(r.HTTP.Context()) {
		_, err := j.Ended()
		return true, err
	}
	return false, r.Redirect(root + "jobs/" + j.ID)
}

// jobView is what the page of a job shows.
type jobView struct {
	*Job
	Steps   []api.Progress
	Over    bool
	OK      bool
	Problem string
}

func (p *Pages) job(r *web.Request) error {
	j := p.jobs.Find(r.Path("id"))
	if j == nil {
		return web.ErrNotFound
	}
	v := jobView{Job: j, Steps: j.Steps()}
	over, err := j.Ended()
	if v.Over = over; !over {
		r.W.Header().Set("Refresh", "2")
	}
	v.OK = err == nil
	if n := len(v.Steps); n > 0 && v.Steps[n-1].Step == 0 {
		v.OK, v.Problem = v.OK && v.Steps[n-1].OK, v.Steps[n-1].Problem
		v.Steps = v.Steps[:n-1]
	}
	if err != nil {
		v.Problem = err.Error()
	}
	return r.Render("job", v)
}
