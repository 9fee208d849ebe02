package people

import (
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
