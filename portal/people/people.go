// Package people is the officers' pages about people: who is there, groups, offices, collectives, permissions, import and
// export, and who did what.
package people

import (
	"context"
	"embed"
	"slices"
	"strings"

	"golang.org/x/text/cases"
	"golang.org/x/text/collate"
	"golang.org/x/text/language"

	"allotment/api"
	"allotment/portal/directory"
	"allotment/portal/web"
)

//go:embed pages messages
var files embed.FS

// importLimit is how large a list of people may be, in bytes; it goes to the browser and back for the dry run.
const importLimit = 2 << 20

// Section is the pages of this package.
func Section() web.Section {
	officer := func(method, path, does string, handle func(*web.Request) error) web.Route {
		return web.Route{Method: method, Path: "/portal/people" + path, Access: api.Officer, Does: does, Handle: handle}
	}
	fresh := func(route web.Route) web.Route { route.Fresh = true; return route }
	large := func(route web.Route) web.Route { route.Body = importLimit; return route }
	link := func(path, key string) web.Link {
		return web.Link{Path: "/portal/people" + path, Key: key, Access: api.Officer}
	}
	return web.Section{
		Name:  "people",
		Files: files,
		Menu: []web.Link{link("", "people.menu"), link("/groups", "people.menu.groups"), link("/offices", "people.menu.offices"),
			link("/permissions", "people.menu.permissions"), link("/collectives", "people.menu.collectives"),
			link("/import", "people.menu.import"), link("/log", "people.menu.log")},
		Routes: []web.Route{
			officer("GET", "", "everybody, with a search", list),
			officer("GET", "/new", "a form for a new person", newPerson),
			officer("POST", "/new", "add a person", addPerson),
			officer("GET", "/p/{person}", "a person", showPerson),
			officer("POST", "/p/{person}", "change a person", changePerson),
			officer("POST", "/p/{person}/join", "put a person into a group", joinGroup),
			officer("POST", "/p/{person}/leave", "take a person out of a group", leaveGroup),
			fresh(officer("POST", "/p/{person}/deactivate", "end a person's access at once", deactivate)),
			fresh(officer("POST", "/p/{person}/welcome", "a link by which a person sets her first password", welcome)),
			fresh(officer("POST", "/p/{person}/code", "make a code for a person who has lost her password", makeCode)),
			officer("POST", "/p/{person}/activate", "give a person access again", activate),
			fresh(officer("POST", "/p/{person}/handover", "hand a person's groups and offices to another", handOver)),
			fresh(officer("POST", "/p/{person}/delete", "remove a person in 30 days", deletePerson)),
			officer("POST", "/p/{person}/undelete", "keep a person who was to be removed", undelete),
			officer("GET", "/groups", "all groups", listGroups),
			officer("POST", "/groups", "add a group", addGroup),
			officer("GET", "/groups/{group}", "a group", showGroup),
			officer("POST", "/groups/{group}", "change a group", changeGroup),
			officer("POST", "/groups/{group}/add", "add members", addMembers),
			officer("POST", "/groups/{group}/drop", "take a member out", dropMember),
			fresh(officer("POST", "/groups/{group}/remove", "remove a group", removeGroup)),
			officer("GET", "/offices", "all offices", listOffices),
			fresh(officer("POST", "/offices", "add an office", addOffice)),
			fresh(officer("POST", "/offices/{office}", "give an office to a person for a term", appoint)),
			fresh(officer("POST", "/offices/{office}/remove", "remove an office", removeOffice)),
			officer("POST", "/offices/{office}/title", "rename an office", renameOffice),
			officer("GET", "/collectives", "all collectives", listCollectives),
			officer("POST", "/collectives", "add a collective", addCollective),
			officer("POST", "/collectives/{collective}/title", "rename a collective", renameCollective),
			fresh(officer("POST", "/collectives/{collective}/leave", "let a collective leave with its people, as a file", leaveCollective)),
			officer("GET", "/permissions", "what groups may do in modules", showPermissions),
			fresh(officer("POST", "/permissions", "change what groups may do", changePermissions)),
			officer("GET", "/import", "a form for a list of people", showImport),
			fresh(large(officer("POST", "/import", "try a list of people, or take it in", importPeople))),
			fresh(officer("GET", "/export", "everybody as a file", export)),
			officer("GET", "/log", "who did what", showLog),
		},
	}
}

// listPage is what page people shows.
type listPage struct {
	People []directory.Person
	Groups map[string]string // titles by name
	Total  int
	Search string
}

// list shows everybody whom the search fits: in names, addresses and groups, without regard to case.
func list(r *web.Request) error {
	all, err := r.Directory.People(r.Context())
	if err != nil {
		return err
	}
	titles, err := groupTitles(r)
	if err != nil {
		return err
	}
	page := listPage{Total: len(all), Groups: titles, Search: r.Query("q")}
	fold := cases.Fold()
	wanted := strings.Fields(fold.String(page.Search))
	for _, p := range all {
		text := []string{p.Name, p.Display, p.Given, p.Family, p.Mail, p.OutsideMail, p.Phone}
		for _, g := range p.Groups {
			text = append(text, titles[g])
		}
		if containsAll(fold.String(strings.Join(text, " ")), wanted) {
			page.People = append(page.People, p)
		}
	}
	sortPeople(r.Language, page.People)
	return r.Render("people", page)
}

func containsAll(text string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

// sortPeople sorts by family name as a language does.
func sortPeople(tag string, all []directory.Person) {
	c := collate.New(language.Make(tag), collate.IgnoreCase)
	slices.SortStableFunc(all, func(a, b directory.Person) int {
		if d := c.CompareString(a.Family, b.Family); d != 0 {
			return d
		}
		return c.CompareString(a.Display, b.Display)
	})
}

func sortOptions(tag string, all []web.Option) {
	c := collate.New(language.Make(tag), collate.IgnoreCase)
	slices.SortFunc(all, func(a, b web.Option) int { return c.CompareString(a.Label, b.Label) })
}

// groupTitles are the titles of all groups by name.
func groupTitles(r *web.Request) (map[string]string, error) {
	all, err := r.Directory.Groups(r.Context())
	if err != nil {
		return nil, err
	}
	titles := map[string]string{}
	for _, g := range all {
		titles[g.Name] = r.GroupTitle(g)
	}
	return titles, nil
}

func title(title, name string) string {
	if title == "" {
		return name
	}
	return title
}

// personOptions are people to choose from who can log in, after an empty choice.
func personOptions(ctx context.Context, r *web.Request, except ...string) ([]web.Option, error) {
	all, err := r.Directory.People(ctx)
	if err != nil {
		return nil, err
	}
	sortPeople(r.Language, all)
	options := []web.Option{{Value: "", Label: r.T("people.nobody")}}
	for _, p := range all {
		if p.Active && !slices.Contains(except, p.Name) {
			options = append(options, web.Option{Value: p.Name, Label: p.Display + " (" + p.Name + ")"})
		}
	}
	return options, nil
}
