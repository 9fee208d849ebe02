package people

import (
	"errors"
	"net/http"
	"strings"

	"allotment/portal/directory"
	"allotment/portal/web"
)

// collectivePage is a collective with how many people belong to it.
type collectivePage struct {
	directory.Collective
	People int
}

func listCollectives(r *web.Request) error {
	all, err := r.Directory.Collectives(r.Context())
	if err != nil {
		return err
	}
	people, err := r.Directory.People(r.Context())
	if err != nil {
		return err
	}
	count := map[string]int{}
	for _, p := range people {
		count[p.Collective]++
	}
	var page []collectivePage
	for _, c := range all {
		page = append(page, collectivePage{c, count[c.Name]})
		showTitle(r, c.Name, c.Title, c.Revision)
	}
	return r.Render("collectives", page)
}

func addCollective(r *web.Request) error {
	c := directory.Collective{Name: strings.ToLower(r.Form.Required("name", 63)), Title: r.Form.Required("title", web.Line)}
	if r.Form.OK() {
		if err := r.Form.Take("name", r.Directory.AddCollective(r.Context(), c)); err != nil {
			return err
		}
	}
	if !r.Form.OK() {
		return listCollectives(r)
	}
	r.Record("collective.added", c.Name, nil)
	return r.Done("/portal/people/collectives", "people.changed")
}

// showTitle fills in the fields by which an office or a collective is renamed, but where the visitor has just done so.
func showTitle(r *web.Request, name, title, revision string) {
	if !r.Form.Has("title-" + name) {
		r.Form.Set("title-"+name, title)
	}
	if !r.Form.Has("revision-" + name) {
		r.Form.Set("revision-"+name, revision)
	}
}

// renamed takes what came of a change of the title of name. Where somebody else was faster, the next page has the fields as
// they were sent, and sending them again overwrites.
func renamed(r *web.Request, name string, err error) error {
	if errors.Is(err, directory.ErrConflict) {
		r.Form.Fail("title-"+name, "people.conflict")
		r.Form.Unset("revision-" + name)
		r.Status = http.StatusConflict
		return nil
	}
	return err
}

func renameCollective(r *web.Request) error {
	name := r.Path("collective")
	title := r.Form.Required("title-"+name, web.Line)
	if r.Form.OK() {
		err := r.Directory.ChangeCollective(r.Context(), name, r.Form.Value("revision-"+name), func(c *directory.Collective) {
			c.Title = title
		})
		if err := renamed(r, name, err); err != nil {
			return err
		}
	}
	if !r.Form.OK() {
		return listCollectives(r)
	}
	r.Record("collective.renamed", name, map[string]string{"title": title})
	return r.Done("/portal/people/collectives", "people.changed")
}
