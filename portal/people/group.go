package people

import (
	"errors"
	"slices"
	"strings"

	"allotment/portal/directory"
	"allotment/portal/web"
)

// groupPage is what page group shows.
type groupPage struct {
	Group   directory.Group
	Members []directory.Person
	Owners  []web.Option // everybody, those who own it chosen
	Owning  []string     // names of those
	Others  []web.Option // who is no member
	Fixed   bool         // it cannot be removed
}

func listGroups(r *web.Request) error {
	all, err := r.Directory.Groups(r.Context())
	if err != nil {
		return err
	}
	return r.Render("groups", all)
}

func addGroup(r *web.Request) error {
	g := directory.Group{Title: r.Form.Required("title", web.Line), Name: strings.ToLower(r.Form.Required("name", 63)),
		About: r.Form.Text("about", web.Line)}
	if r.Form.OK() {
		if err := r.Form.Take("name", r.Directory.AddGroup(r.Context(), g)); err != nil {
			return err
		}
	}
	if !r.Form.OK() {
		return listGroups(r)
	}
	r.Record("group.added", g.Name, nil)
	return r.Done("/portal/people/groups/"+g.Name, "groups.added", "title", g.Title)
}

func showGroup(r *web.Request) error {
	g, err := r.Directory.Group(r.Context(), r.Path("group"))
	if err != nil {
		return err
	}
	r.Form.Set("title", g.Title)
	r.Form.Set("about", g.About)
	r.Form.Set("mail", g.Mail)
	r.Form.Set("owners", g.Owners...)
	r.Form.Set("revision", g.Revision)
	return renderGroup(r, g)
}

func renderGroup(r *web.Request, g directory.Group) error {
	all, err := r.Directory.People(r.Context())
	if err != nil {
		return err
	}
	sortPeople(r.Language, all)
	page := groupPage{Group: g, Fixed: slices.Contains(web.FixedGroups, g.Name)}
	members := map[string]bool{}
	for _, m := range g.Members {
		members[m] = true
	}
	for _, p := range all {
		option := web.Option{Value: p.Name, Label: p.Display + " (" + p.Name + ")"}
		page.Owners = append(page.Owners, option)
		if slices.Contains(g.Owners, p.Name) {
			page.Owning = append(page.Owning, p.Display)
		}
		if members[p.Name] {
			page.Members = append(page.Members, p)
		} else {
			page.Others = append(page.Others, option)
		}
	}
	return r.Render("group", page)
}

func changeGroup(r *web.Request) error {
	name := r.Path("group")
	now, err := r.Directory.Group(r.Context(), name)
	if err != nil {
		return err
	}
	title, about, mail := r.Form.Required("title", web.Line), r.Form.Text("about", web.Line), r.Form.Mail("mail")
	if r.Form.OK() {
		err = r.Directory.ChangeGroup(r.Context(), name, r.Form.Value("revision"), func(g *directory.Group) {
			g.Title, g.About, g.Mail, g.Owners = title, about, mail, r.Form.All("owners")
		})
		if errors.Is(err, directory.ErrConflict) {
			r.Form.Set("revision", now.Revision)
			r.Form.Fail("", "people.conflict")
		} else if err := r.Form.Take("mail", err); err != nil {
			return err
		}
	}
	if !r.Form.OK() {
		return renderGroup(r, now)
	}
	r.Record("group.changed", name, nil)
	return r.Done("/portal/people/groups/"+name, "people.changed")
}

func addMembers(r *web.Request) error {
	group := r.Path("group")
	if _, err := r.Directory.Group(r.Context(), group); err != nil {
		return err
	}
	for _, name := range r.Form.All("person") {
		err := r.Directory.AddMember(r.Context(), group, name)
		if err != nil && !errors.Is(err, directory.ErrExists) {
			return err
		}
		r.Record("group.joined", name, map[string]string{"group": group})
	}
	return r.Done("/portal/people/groups/"+group, "people.changed")
}

func dropMember(r *web.Request) error {
	group, name := r.Path("group"), r.Form.Value("person")
	if err := r.Directory.RemoveMember(r.Context(), group, name); err != nil {
		return err
	}
	r.Record("group.left", name, map[string]string{"group": group})
	return r.Done("/portal/people/groups/"+group, "people.changed")
}

func removeGroup(r *web.Request) error {
	group := r.Path("group")
	if slices.Contains(web.FixedGroups, group) {
		return web.ErrForbidden
	}
	if err := r.Directory.RemoveGroup(r.Context(), group); err != nil {
		return err
	}
	r.Record("group.removed", group, nil)
	return r.Done("/portal/people/groups", "groups.removed", "name", group)
}
