package release

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"

	tuf "github.com/theupdateframework/go-tuf/v2/metadata"
)

// state is the metadata in force of every role.
type state struct {
	root      *tuf.Metadata[tuf.RootType]
	targets   *tuf.Metadata[tuf.TargetsType]
	channels  map[string]*tuf.Metadata[tuf.TargetsType]
	snapshot  *tuf.Metadata[tuf.SnapshotType]
	timestamp *tuf.Metadata[tuf.TimestampType]
}

// metadataName is the name of a role's metadata in a store; that of the timestamp has no version.
func metadataName(role string, version int64) string {
	if role == tuf.TIMESTAMP {
		return "metadata/timestamp.json"
	}
	return "metadata/" + strconv.FormatInt(version, 10) + "." + role + ".json"
}

// loadState reads the metadata that a store has and checks signatures and hashes, but no expiry: whoever has the keys may mend
// that.
func loadState(ctx context.Context, s Store) (*state, error) {
	var st state
	var err error
	if st.root, err = loadRoot(ctx, s); err != nil {
		return nil, err
	}
	if st.timestamp, err = read[tuf.TimestampType](ctx, s, tuf.TIMESTAMP, &tuf.MetaFiles{}); err != nil {
		return nil, err
	}
	if err := st.root.VerifyDelegate(tuf.TIMESTAMP, st.timestamp); err != nil {
		return nil, err
	}
	if st.snapshot, err = read[tuf.SnapshotType](ctx, s, tuf.SNAPSHOT, st.timestamp.Signed.Meta["snapshot.json"]); err != nil {
		return nil, err
	}
	if err := st.root.VerifyDelegate(tuf.SNAPSHOT, st.snapshot); err != nil {
		return nil, err
	}
	if st.targets, err = read[tuf.TargetsType](ctx, s, tuf.TARGETS, st.snapshot.Signed.Meta["targets.json"]); err != nil {
		return nil, err
	}
	if err := st.root.VerifyDelegate(tuf.TARGETS, st.targets); err != nil {
		return nil, err
	}
	st.channels = map[string]*tuf.Metadata[tuf.TargetsType]{}
	for _, c := range Channels {
		if st.channels[c], err = read[tuf.TargetsType](ctx, s, c, st.snapshot.Signed.Meta[c+".json"]); err != nil {
			return nil, err
		}
		if err := st.targets.VerifyDelegate(c, st.channels[c]); err != nil {
			return nil, err
		}
	}
	return &st, nil
}

// loadRoot follows the chain of root metadata to its newest.
func loadRoot(ctx context.Context, s Store) (*tuf.Metadata[tuf.RootType], error) {
	var root *tuf.Metadata[tuf.RootType]
	for version := int64(1); ; version++ {
		next, err := read[tuf.RootType](ctx, s, tuf.ROOT, &tuf.MetaFiles{Version: version})
		if errors.Is(err, fs.ErrNotExist) && root != nil {
			return root, nil
		}
		if err != nil {
			return nil, err
		}
		if next.Signed.Version != version {
			return nil, fmt.Errorf("%s says that it is version %d", metadataName(tuf.ROOT, version), next.Signed.Version)
		}
		if root != nil {
			if err := root.VerifyDelegate(tuf.ROOT, next); err != nil {
				return nil, fmt.Errorf("root %d is not signed by the keys of root %d: %w", version, version-1, err)
			}
		}
		if err := next.VerifyDelegate(tuf.ROOT, next); err != nil {
			return nil, fmt.Errorf("root %d is not signed by its own keys: %w", version, err)
		}
		root = next
	}
}

// read reads the metadata of a role, which must be as what is a file of metadata says of it.
func read[T tuf.Roles](ctx context.Context, s Store, role string, want *tuf.MetaFiles) (*tuf.Metadata[T], error) {
	if want == nil {
		return nil, fmt.Errorf("metadata of role %s is not listed", role)
	}
	name := metadataName(role, want.Version)
	b, err := s.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := want.VerifyLengthHashes(b); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	m, err := new(tuf.Metadata[T]).FromBytes(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// file describes the bytes of a file of metadata.
func file(version int64, b []byte) *tuf.MetaFiles {
	sum := sha256.Sum256(b)
	return &tuf.MetaFiles{Version: version, Length: int64(len(b)), Hashes: tuf.Hashes{"sha256": sum[:]}}
}

// rootKeys are the keys that a root names for a role.
func rootKeys(root *tuf.Metadata[tuf.RootType], name string) signers {
	r := root.Signed.Roles[name]
	return pick(root.Signed.Keys, r.KeyIDs, r.Threshold)
}

// channelKeys are the keys that targets metadata names for a channel.
func channelKeys(targets *tuf.Metadata[tuf.TargetsType], name string) signers {
	d := targets.Signed.Delegations
	i := slices.IndexFunc(d.Roles, func(r tuf.DelegatedRole) bool { return r.Name == name })
	return pick(d.Keys, d.Roles[i].KeyIDs, d.Roles[i].Threshold)
}

func pick(keys map[string]*tuf.Key, ids []string, threshold int) signers {
	s := signers{threshold: threshold}
	for _, id := range ids {
		s.keys = append(s.keys, keys[id])
	}
	return s
}

// keysOf are the keys that sign for a role now.
func (st *state) keysOf(name string) signers {
	if slices.Contains(Channels, name) {
		return channelKeys(st.targets, name)
	}
	return rootKeys(st.root, name)
}

// clone copies the state so far as changes alter it in place.
func (st *state) clone() *state {
	c := &state{new(*st.root), new(*st.targets), map[string]*tuf.Metadata[tuf.TargetsType]{}, new(*st.snapshot), new(*st.timestamp)}
	c.root.Signed.Keys = maps.Clone(st.root.Signed.Keys)
	c.root.Signed.Roles = map[string]*tuf.Role{}
	for name, r := range st.root.Signed.Roles {
		c.root.Signed.Roles[name] = new(*r)
	}
	d := new(*st.targets.Signed.Delegations)
	d.Keys, d.Roles = maps.Clone(d.Keys), slices.Clone(d.Roles)
	c.targets.Signed.Delegations = d
	for name, m := range st.channels {
		c.channels[name] = new(*m)
		c.channels[name].Signed.Targets = maps.Clone(m.Signed.Targets)
	}
	c.snapshot.Signed.Meta = maps.Clone(st.snapshot.Signed.Meta)
	c.timestamp.Signed.Meta = maps.Clone(st.timestamp.Signed.Meta)
	return c
}
