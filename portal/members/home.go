package members

import (
	"slices"

	"allotment/portal/config"
	"allotment/portal/directory"
	"allotment/portal/ledger"
	"allotment/portal/store"
	"allotment/portal/web"
)

// homePage is what page home shows.
type homePage struct {
	Tiles    []tile
	Owned    bool // the member decides about a group, or is an officer
	Requests int  // that she may answer
	Accounts bool // somebody has written down what the server costs
	Hints    []hint
}

// tile is a module that the member may use.
type tile struct {
	Title, About, Path string
}

// hint is something that the member should do, with the page for it.
type hint struct {
	Key, Path string
}

// home shows what the member may use.
func home(r *web.Request) error {
	page := homePage{}
	for _, m := range r.Config().Modules {
		if m.Path != "" && mayUse(r.Person, m) {
			page.Tiles = append(page.Tiles, tile{r.ModuleTitle(m.Name, m.Title), r.Or("module."+m.Name+".about", ""),
				siteAddress(r, m.Path)})
		}
	}
	owned, err := r.Directory.GroupsOwnedBy(r.Context(), r.Person.Name)
	if err != nil {
		return err
	}
	pending, err := r.Onboard.Pending(r.Context(), r.Person.Name)
	if err != nil {
		return err
	}
	page.Owned, page.Requests = r.Officer || len(owned) > 0, len(pending)
	if page.Hints, err = hints(r); err != nil {
		return err
	}
	err = r.DB.View(func(tx *store.Tx) error {
		all, err := ledger.Entries(tx)
		page.Accounts = len(all) > 0
		return err
	})
	if err != nil {
		return err
	}
	return r.Render("home", page)
}

// mayUse tells whether a member may use a module: whoever is a member, if the module has no such permission.
func mayUse(p directory.Person, m config.Module) bool {
	restricted := slices.ContainsFunc(m.Permissions, func(p config.Permission) bool { return p.Name == "use" })
	return !restricted || slices.Contains(p.Permissions, m.Name+".use")
}

// siteAddress is where a module's page is: on the organisation's domain, if the portal has a host name of its own.
func siteAddress(r *web.Request, path string) string {
	c := r.Config()
	if c.Origin != "" && c.Secure {
		return "https://" + c.Domain + path
	}
	return path
}

// hints are what keeps a member from losing her account.
func hints(r *web.Request) ([]hint, error) {
	var found []hint
	if r.Person.OutsideMail == "" {
		found = append(found, hint{"home.hint.outside", "/portal/me"})
	}
	confirmed, err := r.Login.AddressConfirmed(r.Person)
	if err != nil {
		return nil, err
	}
	if r.Person.OutsideMail != "" && !confirmed && r.Login.MailWorks() {
		found = append(found, hint{"home.hint.confirm", "/portal/me"})
	}
	m, err := r.Login.Methods(r.Person.Name)
	if err != nil {
		return nil, err
	}
	if r.Officer && m.Printed == 0 {
		found = append(found, hint{"home.hint.codes", "/portal/me/login"})
	}
	return found, nil
}
