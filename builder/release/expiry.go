package release

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	tuf "github.com/theupdateframework/go-tuf/v2/metadata"
)

// Expiry says until when devices take the metadata of a role.
type Expiry struct {
	Role    string
	Version int64
	Expires time.Time
	Online  bool // refresh signs it anew by itself
}

// Expiries lists all roles.
func (r *Repository) Expiries() []Expiry {
	var all []Expiry
	for _, ro := range roles {
		e := Expiry{Role: ro.name, Online: ro.online}
		switch ro.name {
		case tuf.ROOT:
			e.Version, e.Expires = r.now.root.Signed.Version, r.now.root.Signed.Expires
		case tuf.SNAPSHOT:
			e.Version, e.Expires = r.now.snapshot.Signed.Version, r.now.snapshot.Signed.Expires
		case tuf.TIMESTAMP:
			e.Version, e.Expires = r.now.timestamp.Signed.Version, r.now.timestamp.Signed.Expires
		case tuf.TARGETS:
			e.Version, e.Expires = r.now.targets.Signed.Version, r.now.targets.Signed.Expires
		default:
			e.Version, e.Expires = r.now.channels[ro.name].Signed.Version, r.now.channels[ro.name].Signed.Expires
		}
		all = append(all, e)
	}
	return all
}

// Refresh signs the metadata of roles anew, as it is, so that it lives on. Without names it does so for snapshot and timestamp.
func (r *Repository) Refresh(ctx context.Context, names ...string) error {
	if len(names) == 0 {
		names = []string{tuf.SNAPSHOT, tuf.TIMESTAMP}
	}
	for _, name := range names {
		if _, err := findRole(name); err != nil {
			return err
		}
	}
	return r.commit(ctx, r.now.clone(), names...)
}

// Rotate gives a role new keys in place of those that it has, or, with replace, of some of them, named by the first digits of
// their ids. The new keys are called as fresh says, and after that as Keys.Next says; those that there are not are made.
//
// New root metadata is signed by thresholds of the old and of the new root keys. All other metadata that changes is signed by
// the new keys and, if they are at hand, by the old, so that no moment of the change leaves devices without valid metadata.
func (r *Repository) Rotate(ctx context.Context, name string, replace, fresh []string) error {
	if _, err := findRole(name); err != nil {
		return err
	}
	old, err := pickKeys(r.now.keysOf(name), replace)
	if err != nil {
		return err
	}
	next := r.now.clone()
	for _, id := range old {
		if slices.Contains(Channels, name) {
			err = next.targets.Signed.RevokeKey(id, name)
		} else {
			err = next.root.Signed.RevokeKey(id, name)
		}
		if err != nil {
			return err
		}
	}
	for range old {
		var key string
		if len(fresh) > 0 {
			key, fresh = fresh[0], fresh[1:]
		} else if key, err = r.Keys.Next(name); err != nil {
			return err
		}
		if err := r.addKey(next, name, key); err != nil {
			return err
		}
	}
	return r.commit(ctx, next, rotated(name)...)
}

// rotated are the roles whose metadata changes when a role gets other keys: whoever names them, and the role itself.
func rotated(name string) []string {
	switch {
	case name == tuf.ROOT:
		return []string{tuf.ROOT}
	case slices.Contains(Channels, name):
		return []string{tuf.TARGETS, name}
	}
	return []string{tuf.ROOT, name}
}

// pickKeys finds the ids of keys by their first digits; without any, all.
func pickKeys(s signers, digits []string) ([]string, error) {
	var ids []string
	for _, key := range s.keys {
		id, err := key.ID()
		if err != nil {
			return nil, err
		}
		if len(digits) == 0 || slices.ContainsFunc(digits, func(d string) bool { return len(d) >= 8 && strings.HasPrefix(id, d) }) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 || len(digits) > 0 && len(ids) != len(digits) {
		return nil, fmt.Errorf("cannot find the keys %s of the role: want the first 8 or more digits of their ids; see: allot release keys",
			strings.Join(digits, ", "))
	}
	return ids, nil
}

// KeyUse says who may sign for a role.
type KeyUse struct {
	Role      string
	Threshold int    // signatures that are wanted
	ID        string // of the key: SHA-256 as of the TUF specification, section 4.2
	Name      string // empty if the key folders do not have it
	AtHand    bool   // the private half is there; whether it can be opened is not tried
}

// KeyUses lists the keys of all roles.
func (r *Repository) KeyUses(ring *Keyring) ([]KeyUse, error) {
	var all []KeyUse
	for _, ro := range roles {
		s := r.now.keysOf(ro.name)
		for _, key := range s.keys {
			id, err := key.ID()
			if err != nil {
				return nil, err
			}
			public, err := key.ToPublicKey()
			if err != nil {
				return nil, err
			}
			u := KeyUse{Role: ro.name, Threshold: s.threshold, ID: id}
			if u.Name, err = ring.nameOf(public); err == nil {
				_, err := ring.find(u.Name + ".key")
				u.AtHand = err == nil
			} else if err != errNoKey {
				return nil, err
			}
			all = append(all, u)
		}
	}
	return all, nil
}
