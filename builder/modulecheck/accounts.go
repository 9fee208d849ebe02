package modulecheck

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"allotment/builder/profile"
	"allotment/builder/rootfs"
)

// ids are the names of users or groups by id.
type ids map[int]string

// owner is the owner of a path by name, as in declarations; an id without a name is written as such.
func owner(n *rootfs.Node, users, groups ids) string {
	return nameOr(users, n.UID) + ":" + nameOr(groups, n.GID)
}

func nameOr(names ids, id int) string {
	if name, ok := names[id]; ok {
		return name
	}
	return strconv.Itoa(id)
}

// readIDs reads /etc/passwd or /etc/group of a tree, both of which have the name first and the id third.
func readIDs(t *rootfs.Tree, path string) (ids, error) {
	b, err := t.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out := ids{}
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		f := strings.Split(line, ":")
		if len(f) < 4 {
			return nil, fmt.Errorf("cannot read %q of the installation: line %q", path, line)
		}
		id, err := strconv.Atoi(f[2])
		if err != nil {
			return nil, fmt.Errorf("cannot read %q of the installation: %w", path, err)
		}
		out[id] = f[0]
	}
	return out, nil
}

// declaredIDs are the names that a module's tree gives ids.
func declaredIDs(a profile.Accounts) (users, groups ids) {
	users, groups = ids{0: "root"}, ids{0: "root"}
	for _, u := range a.Users {
		users[u.UID] = u.Name
	}
	for _, g := range a.Groups {
		groups[g.GID] = g.Name
	}
	return users, groups
}

// newNames are the names in made that are neither in before nor in declared, sorted by id.
func newNames(made, before, declared ids) []string {
	known := map[string]bool{}
	for _, names := range []ids{before, declared} {
		for _, name := range names {
			known[name] = true
		}
	}
	var out []string
	for _, id := range slices.Sorted(maps.Keys(made)) {
		if !known[made[id]] {
			out = append(out, made[id])
		}
	}
	return out
}
