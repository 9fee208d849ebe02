package box

import (
	"strings"
	"time"

	"allotment/api"
	"allotment/portal/web"
)

// lamp is one line of the overview: how something does, in a sentence, and what to do about it.
type lamp struct {
	Class string // good, warn or bad
	Title string
	Text  string
	Says  string // what the box says in English, after Text
	Do    string // what the link says; empty: nothing is to be done
	Path  string
}

// overviewView is what the overview shows.
type overviewView struct {
	Lamps   []lamp
	Machine []lamp // what else is not as it should be
	Info    api.Info
	Uptime  time.Duration
	Offices bool
}

func (p *Pages) overview(r *web.Request) error {
	c := ctx(r)
	info, err := r.Box.Info(c)
	if err != nil {
		return problem(err)
	}
	h, err := r.Box.Health(c)
	if err != nil {
		return problem(err)
	}
	modules, err := r.Box.Modules(c)
	if err != nil {
		return problem(err)
	}
	n, err := r.Box.Network(c)
	if err != nil {
		return problem(err)
	}
	v := overviewView{Info: info, Uptime: time.Duration(h.Uptime) * time.Second}
	v.Lamps = []lamp{p.mailLamp(r), webLamp(r, modules, h), p.backupLamp(r), p.updateLamp(r)}
	v.Machine = append(machineLamps(r, modules, h), certsOf(r, n).lamps(r)...)
	return r.Render("overview", v)
}

// mailLamp tells how mail that this server sends goes out. There is no mailbox on the server yet.
func (p *Pages) mailLamp(r *web.Request) lamp {
	l := lamp{Title: r.T("box.lamp.mail"), Path: root + "mail", Do: r.T("box.lamp.mail.do")}
	relay := p.relay()
	pending, err := p.mail.Pending()
	failed, err2 := p.mail.Failed()
	switch {
	case err != nil || err2 != nil:
		l.Class, l.Text = "bad", r.T("box.lamp.mail.unknown")
	case relay.Host == "":
		l.Class, l.Text = "warn", r.T("box.lamp.mail.none", "n", len(pending))
	case len(failed) > 0:
		l.Class, l.Text = "warn", r.T("box.lamp.mail.failed", "n", len(failed))
	default:
		l.Class, l.Text, l.Do = "good", r.T("box.lamp.mail.good", "host", relay.Host), ""
	}
	return l
}

// webLamp tells whether the pages of modules can be used.
func webLamp(r *web.Request, modules []api.Module, h api.Health) lamp {
	l := lamp{Title: r.T("box.lamp.web"), Path: root + "health", Class: "good", Text: r.T("box.lamp.web.good")}
	var starting, broken []string
	for _, m := range modules {
		switch {
		case !m.On || m.Path == "" || m.State == "ready":
		case m.State == "starting":
			starting = append(starting, r.ModuleTitle(m.Name, m.Title))
		default:
			broken = append(broken, r.ModuleTitle(m.Name, m.Title))
		}
	}
	switch {
	case levelOf(h, "network") == api.Bad:
		l.Class, l.Text, l.Do = "bad", r.T("box.lamp.web.network"), r.T("box.lamp.web.do")
	case len(broken) > 0:
		l.Class, l.Text, l.Do = "bad", r.T("box.lamp.web.broken", "names", strings.Join(broken, ", ")), r.T("box.lamp.web.do")
	case len(starting) > 0:
		l.Class, l.Text = "warn", r.T("box.lamp.web.starting", "names", strings.Join(starting, ", "))
	case !r.Config().Secure:
		l.Class, l.Text, l.Do, l.Path = "warn", r.T("box.lamp.web.nodomain"), r.T("box.lamp.web.domain"), root+"dns"
	}
	return l
}

func levelOf(h api.Health, what string) api.Level {
	for _, l := range h.Lamps {
		if l.Module == "" && l.What == what {
			return l.Level
		}
	}
	return api.Good
}

// lampOf is what a lamp of the box says: of a module in its own words, else in those of the messages where there are some.
func lampOf(r *web.Request, x api.Lamp) lamp {
	l := lamp{Class: class(x.Level)}
	if x.Module != "" {
		l.Title, l.Says = r.ModuleTitle(x.Module, x.What), x.Text
		return l
	}
	l.Title = r.Or("box.what."+x.What, x.What)
	if l.Text = r.Or("box.what."+x.What+"."+l.Class, ""); l.Text == "" {
		l.Says = x.Text
	}
	return l
}

// machineLamps are the lines of the box's own health that somebody should look at, and modules that have no page.
func machineLamps(r *web.Request, modules []api.Module, h api.Health) []lamp {
	var all []lamp
	for _, x := range h.Lamps {
		if x.Level == api.Good || x.Module != "" && hasPage(modules, x.Module) || x.Module == "" && x.What == "network" {
			continue
		}
		l := lampOf(r, x)
		l.Path, l.Do = root+"health", r.T("box.lamp.look")
		all = append(all, l)
	}
	return all
}

func hasPage(modules []api.Module, name string) bool {
	for _, m := range modules {
		if m.Name == name {
			return m.Path != ""
		}
	}
	return false
}

// updateLamp tells whether the box stays up to date.
func (p *Pages) updateLamp(r *web.Request) lamp {
	l := lamp{Title: r.T("box.lamp.updates"), Path: root + "updates"}
	u, err := r.Box.Update(ctx(r))
	if err != nil {
		l.Class, l.Text = "bad", r.T("box.lamp.unknown")
		return l
	}
	l.Text, l.Says = updateText(r, u)
	switch {
	case u.State == "off" || u.State == "failed" || u.Policy.Paused != nil && *u.Policy.Paused:
		l.Class, l.Do = "warn", r.T("box.lamp.look")
	case !u.Checked.IsZero() && r.Now.Sub(u.Checked) > staleCheck:
		l.Class, l.Text, l.Says, l.Do = "warn", r.T("box.lamp.updates.old", "date", r.Moment(u.Checked)), "", r.T("box.lamp.look")
	default:
		l.Class = "good"
	}
	return l
}

// staleCheck is how long the publisher may have been silent.
const staleCheck = 7 * 24 * time.Hour
