package profile

import (
	"strings"

	"allotment/builder/npm"
)

// maxID is the largest id of a user or group that a tree may declare; Debian gives larger ones to nobody but "nobody".
const maxID = 59999

// checkTree checks the tree that stands below key prefix ("" for a file of its own). Accounts are those of the tree and
// below it; they are not known if a tree below has faults.
func checkTree(d *document, prefix string, t *Tree, a Accounts, known bool) {
	at := func(key string) string { return join(prefix, key) }
	checkPackages(d, at, t)
	checkImage(d, at, t)
	for key, patterns := range map[string][]string{"include": t.Include, "remove": t.Remove} {
		for i, p := range patterns {
			d.pattern(item(at(key), i), p)
		}
	}
	for i, ig := range t.Ignore {
		d.pattern(item(at("ignore"), i, "path"), ig.Path)
		d.filled(item(at("ignore"), i, "why"), ig.Why)
	}
	checkAccounts(d, at, t, a, known)
	c := treeCheck{d: d, accounts: a, known: known, dir: t.Dir, paths: once{}}
	for i, x := range t.Dirs {
		c.entry(item(at("dir"), i), x.Path, x.Mode, x.Owner)
	}
	for i, x := range t.Links {
		c.entry(item(at("link"), i), x.Path, "", "")
		if x.Target == "" || strings.ContainsAny(x.Target, "\x00\n") {
			d.fault(item(at("link"), i, "target"), "want a path, absolute or from the link's folder", "target %q is not usable", x.Target)
		}
	}
	for i, x := range t.Files {
		c.entry(item(at("file"), i), x.Path, x.Mode, x.Owner)
		c.content(item(at("file"), i), x)
	}
	c.paths = once{} // a mode may be of what is declared above
	for i, x := range t.Modes {
		key := item(at("mode"), i)
		c.entry(key, x.Path, x.Mode, x.Owner)
		if x.Mode == "" && x.Owner == "" {
			d.fault(key, "give mode, owner or both", "mode for %q changes nothing", x.Path)
		}
	}
}

// checkImage checks a tree that is an OCI image: nothing of Debian lies below it or in it.
func checkImage(d *document, at func(string) string, t *Tree) {
	if t.Image == "" {
		return
	}
	if err := CheckImage(t.Image); err != nil {
		d.fault(at("image"), err.Error(), "image %q is not usable", t.Image)
	}
	if t.Base != "" || len(t.Packages)+len(t.PackagesAMD64)+len(t.PackagesARM64)+len(t.NPM)+len(t.Without) > 0 || t.CABundle {
		d.fault(at("image"), "take base, packages, without and ca-bundle out", "a tree is either an image or made of packages")
	}
}

func checkPackages(d *document, at func(string) string, t *Tree) {
	wanted := once{}
	for _, list := range []struct {
		key   string
		names []string
	}{{"packages", t.Packages}, {"packages-amd64", t.PackagesAMD64}, {"packages-arm64", t.PackagesARM64}} {
		unique(d, at(list.key), list.names)
		for i, n := range list.names {
			if d.name(item(at(list.key), i), n, packageForm) {
				wanted[n] = list.key
			}
		}
	}
	unique(d, at("npm"), t.NPM)
	for i, n := range t.NPM {
		d.name(item(at("npm"), i), n, npm.Form)
	}
	unique(d, at("without"), t.Without)
	for i, n := range t.Without {
		d.name(item(at("without"), i), n, packageForm)
		if list, ok := wanted[n]; ok {
			d.fault(item(at("without"), i), "take it out of one of the two", "package %q is also in %s", n, list)
		}
	}
}

// checkAccounts checks the users and groups that a tree declares, also against those below it.
func checkAccounts(d *document, at func(string) string, t *Tree, a Accounts, known bool) {
	for i, u := range t.Users {
		checkUser(d, item(at("user"), i), u, a, known)
	}
	for i, g := range t.Groups {
		key := item(at("group"), i)
		d.name(join(key, "name"), g.Name, accountForm)
		d.number(join(key, "gid"), g.GID, 0, maxUser(g.Name))
		checkGroup(d, join(key, "gid"), g, a)
	}
}

func checkUser(d *document, key string, u User, a Accounts, known bool) {
	before := len(d.faults)
	d.name(join(key, "name"), u.Name, accountForm)
	d.number(join(key, "uid"), u.UID, 0, maxUser(u.Name))
	for _, x := range a.Users {
		if x.Name != u.Name && x.UID == u.UID {
			d.fault(join(key, "uid"), "give it another one", "user %q has id %d too", x.Name, u.UID)
		}
	}
	if count(a.Users, func(x User) bool { return x.Name == u.Name }) > 1 {
		d.fault(join(key, "name"), "", "user %q is declared twice, here or in a tree below", u.Name)
	}
	if u.Group == "" && len(d.faults) == before { // else the same would be said twice
		checkGroup(d, join(key, "uid"), Group{u.Name, u.UID}, a)
	}
	if _, ok := a.GID(u.Group); u.Group != "" && !ok && known {
		d.fault(join(key, "group"), oneOf(u.Group, groupNames(a)), "no group %q", u.Group)
	}
	for j, g := range u.Groups {
		if _, ok := a.GID(g); !ok && known {
			d.fault(item(join(key, "groups"), j), oneOf(g, groupNames(a)), "no group %q", g)
		}
	}
	for k, p := range map[string]string{"home": u.Home, "shell": u.Shell} {
		if p != "" && p != "/" {
			d.path(join(key, k), p)
		}
	}
}

// maxUser is the largest id for an account; "nogroup" and "nobody" have 65534 everywhere.
func maxUser(name string) int {
	if name == "nobody" || name == "nogroup" {
		return 65534
	}
	return maxID
}

// checkGroup checks that a group that is declared, as such or for a user, shares neither name nor id with another one.
func checkGroup(d *document, key string, g Group, a Accounts) {
	for _, x := range a.Groups {
		if x.Name != g.Name && x.GID == g.GID {
			d.fault(key, "give it another one", "group %q has id %d too", x.Name, g.GID)
		}
	}
	if count(a.Groups, func(x Group) bool { return x.Name == g.Name }) > 1 {
		d.fault(key, "a user without a group of its own needs group = ...", "group %q is declared twice, here or in a tree below", g.Name)
	}
}

func count[T any](all []T, fits func(T) bool) int {
	n := 0
	for _, x := range all {
		if fits(x) {
			n++
		}
	}
	return n
}

func groupNames(a Accounts) []string {
	out := make([]string, len(a.Groups))
	for i, g := range a.Groups {
		out[i] = g.Name
	}
	return out
}

func userNames(a Accounts) []string {
	out := make([]string, len(a.Users))
	for i, u := range a.Users {
		out[i] = u.Name
	}
	return out
}

// treeCheck checks the entries of one tree.
type treeCheck struct {
	d        *document
	accounts Accounts
	known    bool
	dir      string
	paths    once
}

// entry checks what folders, links, files and modes have in common.
func (c *treeCheck) entry(key, path, mode, owner string) {
	if c.d.path(join(key, "path"), path) {
		c.paths.add(c.d, join(key, "path"), path)
	}
	if mode != "" {
		c.d.name(join(key, "mode"), mode, octalForm)
	}
	if _, _, ok := c.accounts.Owner(owner); !ok && c.known {
		user, group, _ := strings.Cut(owner, ":")
		remedy := "want user:group"
		if _, ok := c.accounts.User(user); !ok {
			remedy = "want user:group; " + oneOf(user, userNames(c.accounts))
		} else if group != "" {
			remedy = "want user:group; " + oneOf(group, groupNames(c.accounts))
		}
		c.d.fault(join(key, "owner"), remedy, "owner %q is not known", owner)
	}
}

// content checks that a file has content from just one place, and that the place is there.
func (c *treeCheck) content(key string, f File) {
	var from []string
	for _, k := range []string{"content", "source", "copy"} {
		if c.d.has(join(key, k)) {
			from = append(from, k)
		}
	}
	if len(from) != 1 {
		c.d.fault(key, "give just one of content, source and copy", "file %q takes its content from %d places", f.Path, len(from))
		return
	}
	switch from[0] {
	case "copy":
		c.d.path(join(key, "copy"), f.Copy)
	case "source":
		c.d.source(join(key, "source"), c.dir, f.Source)
	}
}
