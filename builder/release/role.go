package release

import (
	"fmt"
	"slices"
	"time"

	tuf "github.com/theupdateframework/go-tuf/v2/metadata"
)

// The channels, which are delegated roles: what every device shall have, and what some try before.
const (
	Stable    = "stable"
	Candidate = "candidate"
)

// Channels are all channels.
var Channels = []string{Stable, Candidate}

// day is the unit of the lifetimes.
const day = 24 * time.Hour

// role is what a role of the repository is by default.
type role struct {
	name      string
	keys      int           // made by init
	threshold int           // signatures that are wanted
	lifetime  time.Duration // from signing until devices refuse the metadata
	online    bool          // its key lies where refresh runs by itself
}

// roles are all roles. Root lives long: a box that was switched off for a year must still find its way. Snapshot and
// timestamp are signed anew by a timer; how long they live is how long a mirror could hide a release.
var roles = []role{
	{tuf.ROOT, 3, 2, 3 * 365 * day, false},
	{tuf.TARGETS, 1, 1, 365 * day, false},
	{Stable, 1, 1, 365 * day, false},
	{Candidate, 1, 1, 365 * day, false},
	{tuf.SNAPSHOT, 1, 1, 30 * day, true},
	{tuf.TIMESTAMP, 1, 1, 14 * day, true},
}

// findRole returns the role of the given name.
func findRole(name string) (role, error) {
	i := slices.IndexFunc(roles, func(r role) bool { return r.name == name })
	if i < 0 {
		return role{}, fmt.Errorf("cannot find role %q: want root, targets, stable, candidate, snapshot or timestamp", name)
	}
	return roles[i], nil
}

// keyName is what the nth key that a role ever had is called.
func keyName(role string, n int) string { return fmt.Sprintf("%s-%d", role, n) }
