package trust

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"allotment/init/durable"
	"allotment/updater/fetch"
)

const (
	rootsDir  = "roots"
	seenFile  = "seen" // not .json, which is a role's
	offerFile = "release"
)

func (c *Client) rootPath(version int64) string {
	return filepath.Join(c.c.Dir, rootsDir, fmt.Sprintf("%d.root.json", version))
}

func (c *Client) rolePath(role string) string {
	return filepath.Join(c.c.Dir, url.PathEscape(role)+".json")
}

// cached is a role's file as it is kept, or nil. It may be damaged, so it is verified as one from the network is.
func (c *Client) cached(role string) []byte {
	b, err := os.ReadFile(c.rolePath(role))
	if err != nil {
		return nil
	}
	return b
}

func (c *Client) keep(role string, b []byte) error {
	return durable.WriteFile(c.rolePath(role), b, 0o600)
}

// download has a role's file of the version that is listed.
func (c *Client) download(ctx context.Context, set *trustedmetadata.TrustedMetadata, role string, m *metadata.MetaFiles,
	limit int64) ([]byte, error) {
	name := url.PathEscape(role) + ".json"
	if set.Root.Signed.ConsistentSnapshot {
		name = fmt.Sprintf("%d.%s", m.Version, name)
	}
	return c.fetch(ctx, name, min(limit, cmp.Or(m.Length, limit)))
}

// fetch has a file of metadata. One with a null is refused: go-tuf follows what it takes for an entry, and whoever has the
// keys of a role could make it panic. No role's format has any.
func (c *Client) fetch(ctx context.Context, name string, limit int64) ([]byte, error) {
	b, err := fetch.Bytes(ctx, c.source, "metadata/"+name, limit)
	if err != nil {
		return nil, err
	}
	var v struct{ Signed any }
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("cannot read %q: %w", name, err)
	}
	if hasNull(v.Signed) {
		return nil, fmt.Errorf("cannot use %q: it has a null", name)
	}
	return b, nil
}

func hasNull(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for _, e := range v {
			if hasNull(e) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, hasNull)
	}
	return v == nil
}

// seen is the newest that was ever seen. It guards against older metadata where the cache is lost or damaged.
type seen struct {
	Root      int64            `json:"root"`      // version
	Timestamp int64            `json:"timestamp"` // version
	Snapshot  int64            `json:"snapshot"`  // version
	Roles     map[string]int64 `json:"roles"`     // versions by name in the snapshot
	Keys      []string         `json:"keys"`      // of the timestamp and snapshot roles, by role and id
	Time      time.Time        `json:"time"`      // of the last refresh that succeeded
}

// readSeen returns nothing seen if the file is missing or damaged: the cache guards as well.
func readSeen(dir string) seen {
	var s seen
	b, err := os.ReadFile(filepath.Join(dir, seenFile))
	if err != nil || json.Unmarshal(b, &s) != nil {
		return seen{}
	}
	return s
}

// remember writes what a refresh that succeeded has seen.
func (c *Client) remember(set *trustedmetadata.TrustedMetadata) error {
	s := seen{
		Root:      set.Root.Signed.Version,
		Timestamp: set.Timestamp.Signed.Version,
		Snapshot:  set.Snapshot.Signed.Version,
		Roles:     map[string]int64{},
		Keys:      onlineKeys(&set.Root.Signed),
		Time:      set.RefTime,
	}
	for name, m := range set.Snapshot.Signed.Meta {
		s.Roles[name] = m.Version
	}
	return c.writeSeen(s)
}

func (c *Client) writeSeen(s seen) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	c.seen = s
	return durable.WriteFile(filepath.Join(c.c.Dir, seenFile), b, 0o600)
}

// onlineKeys lists the keys of the roles whose versions an attacker may have driven ahead.
func onlineKeys(root *metadata.RootType) []string {
	var keys []string
	for _, role := range []string{metadata.SNAPSHOT, metadata.TIMESTAMP} {
		if r := root.Roles[role]; r != nil {
			for _, id := range r.KeyIDs {
				keys = append(keys, role+" "+id)
			}
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// rotated tells whether a key of then is no longer in force. One that was only added says nothing of a compromise.
func (s seen) rotated(root *metadata.RootType) bool {
	keys := onlineKeys(root)
	return slices.ContainsFunc(s.Keys, func(k string) bool { return !slices.Contains(keys, k) })
}

// forget gives up what was seen under keys that have been rotated, so that a publisher recovers from an attacker who raised
// version numbers. What was seen goes last: a cut before leaves the keys of then, and with them this step, to the next time.
func (c *Client) forget() error {
	for _, role := range []string{metadata.TIMESTAMP, metadata.SNAPSHOT} {
		if err := os.Remove(c.rolePath(role)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := durable.SyncDir(c.c.Dir); err != nil {
		return err
	}
	return c.writeSeen(seen{Root: c.seen.Root, Time: c.seen.Time})
}
