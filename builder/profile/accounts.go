package profile

import (
	"cmp"
	"slices"
	"strings"

	"allotment/image"
)

// Accounts are the users and groups that a tree knows: its own and those of the trees below it.
type Accounts struct {
	Users  []User  // sorted by id
	Groups []Group // sorted by id, the users' own groups included
}

// With returns the accounts of a tree that declares users and groups on top of a.
func (a Accounts) With(t *Tree) Accounts {
	out := Accounts{Users: slices.Concat(a.Users, t.Users), Groups: slices.Concat(a.Groups, t.Groups)}
	for _, u := range t.Users {
		if u.Group == "" {
			out.Groups = append(out.Groups, Group{Name: u.Name, GID: u.UID})
		}
	}
	slices.SortFunc(out.Users, func(x, y User) int { return cmp.Compare(x.UID, y.UID) })
	slices.SortFunc(out.Groups, func(x, y Group) int { return cmp.Compare(x.GID, y.GID) })
	return out
}

// GID is the id of the group called name.
func (a Accounts) GID(name string) (int, bool) {
	for _, g := range a.Groups {
		if g.Name == name {
			return g.GID, true
		}
	}
	return 0, false
}

// User is the user called name with its ids.
func (a Accounts) User(name string) (image.User, bool) {
	for _, u := range a.Users {
		if u.Name == name {
			gid, ok := a.GID(cmp.Or(u.Group, u.Name))
			return image.User{Name: u.Name, UID: u.UID, GID: gid}, ok
		}
	}
	return image.User{}, false
}

// Owner is the ids that "user:group" names; empty means root:root.
func (a Accounts) Owner(s string) (uid, gid int, ok bool) {
	if s == "" { // every tree has a root, whether it names it or not
		return 0, 0, true
	}
	user, group, _ := strings.Cut(s, ":")
	u, okUser := a.User(user)
	gid, okGroup := a.GID(group)
	return u.UID, gid, okUser && okGroup
}

// Members are the names of the users that have group as a further group, in the order of their ids.
func (a Accounts) Members(group string) []string {
	var out []string
	for _, u := range a.Users {
		if slices.Contains(u.Groups, group) {
			out = append(out, u.Name)
		}
	}
	return out
}

// ImageUsers are the users as the device's manifest lists them.
func (a Accounts) ImageUsers() []image.User {
	var out []image.User
	for _, u := range a.Users {
		if iu, ok := a.User(u.Name); ok {
			out = append(out, iu)
		}
	}
	return out
}
