// Package programs is the officers' page of programs elsewhere that ask the portal, by OpenID Connect, who a visitor is.
package programs

import (
	"embed"
	"errors"
	"slices"
	"strings"

	"allotment/api"
	"allotment/portal/sso"
	"allotment/portal/store"
	"allotment/portal/web"
)

//go:embed pages messages
var files embed.FS

const path = "/portal/programs"

// pages are the pages of the clients of an SSO.
type pages struct {
	*sso.SSO
}

// Section is the pages of this package.
func Section(s *sso.SSO) web.Section {
	p := pages{s}
	officer := func(method, rest, does string, handle func(*web.Request) error) web.Route {
		return web.Route{Method: method, Path: path + rest, Access: api.Officer, Fresh: method == "POST", Does: does, Handle: handle}
	}
	return web.Section{Name: "programs", Files: files, Routes: []web.Route{
		officer("GET", "", "programs elsewhere that ask who a visitor is", p.list),
		officer("POST", "", "let a program ask who a visitor is", p.add),
		officer("POST", "/{program}/secret", "give a program a new secret", p.renew),
		officer("POST", "/{program}/remove", "let a program ask no more", p.remove),
	}}
}

// page is what page programs shows.
type page struct {
	Issuer   string
	Programs []sso.Client
	Modules  []web.Option

	ID, Secret string // of a program that has just been given one
}

func (p pages) list(r *web.Request) error { return p.show(r, "", "") }

func (p pages) show(r *web.Request, id, secret string) error {
	all, err := p.Clients()
	if err != nil {
		return err
	}
	v := page{Issuer: p.Issuer(r.HTTP), Programs: all, ID: id, Secret: secret, Modules: []web.Option{{Label: r.T("programs.everybody")}}}
	for _, m := range r.Config().Modules {
		v.Modules = append(v.Modules, web.Option{Value: m.Name, Label: r.ModuleTitle(m.Name, m.Title)})
	}
	return r.Render("programs", v)
}

func (p pages) add(r *web.Request) error {
	c := sso.Client{Title: r.Form.Required("title", web.Line), ID: r.Form.Required("id", web.Line),
		Redirects: []string{r.Form.Required("redirect", 2*web.Line)}, Module: r.Form.Text("module", web.Line),
		Public: r.Form.Checked("public"), Offline: r.Form.Checked("offline")}
	if logout := r.Form.Text("logout", 2*web.Line); logout != "" {
		c.Logouts = []string{logout}
	}
	if _, err := p.client(c.ID); err == nil {
		r.Form.Fail("id", "programs.exists")
	}
	if !r.Form.OK() {
		return p.show(r, "", "")
	}
	secret, err := p.RegisterClient(r.Person.Name, c)
	if errors.Is(err, sso.ErrClient) {
		r.Form.Fail("", "programs.refused")
		return p.show(r, "", "")
	}
	if err != nil {
		return err
	}
	return p.show(r, c.ID, secret)
}

// client is a program; web.ErrNotFound: there is none of that name.
func (p pages) client(id string) (sso.Client, error) {
	all, err := p.Clients()
	if err != nil {
		return sso.Client{}, err
	}
	i := slices.IndexFunc(all, func(c sso.Client) bool { return c.ID == strings.ToLower(id) })
	if i < 0 {
		return sso.Client{}, web.ErrNotFound
	}
	return all[i], nil
}

func (p pages) renew(r *web.Request) error {
	c, err := p.client(r.Path("program"))
	if err != nil {
		return err
	}
	secret, err := p.RegisterClient(r.Person.Name, c)
	if err != nil {
		return err
	}
	return p.show(r, c.ID, secret)
}

func (p pages) remove(r *web.Request) error {
	err := p.RemoveClient(r.Person.Name, r.Path("program"))
	if errors.Is(err, store.ErrNotFound) {
		return web.ErrNotFound
	}
	if err != nil {
		return err
	}
	return r.Done(path, "programs.removed")
}
