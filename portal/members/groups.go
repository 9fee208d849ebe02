package members

import (
	"slices"

	"allotment/portal/directory"
	"allotment/portal/web"
)

// groupsPage is what page mygroups shows.
type groupsPage struct {
	Mine, Others []directory.Group
	Asked        []string // titles of groups that the member waits for
}

func showGroups(r *web.Request) error {
	all, err := r.Directory.Groups(r.Context())
	if err != nil {
		return err
	}
	var page groupsPage
	for _, g := range all {
		if slices.Contains(g.Members, r.Person.Name) {
			page.Mine = append(page.Mine, g)
		} else if g.Name != officers {
			page.Others = append(page.Others, g)
		}
	}
	asked, err := r.Onboard.AskedBy(r.Person.Name)
	if err != nil {
		return err
	}
	for _, a := range asked {
		page.Asked = append(page.Asked, groupTitle(r, all, a.Group))
	}
	return r.Render("mygroups", page)
}

func leaveGroup(r *web.Request) error {
	group := r.Path("group")
	if err := r.Directory.RemoveMember(r.Context(), group, r.Person.Name); err != nil {
		return err
	}
	r.Record("group.left", r.Person.Name, map[string]string{"group": group})
	return r.Done("/portal/groups", "mygroups.left")
}
