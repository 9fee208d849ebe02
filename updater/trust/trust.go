// Package trust finds out which release a device shall have, so that nobody between the publisher's keys and the device can
// choose another: it is a client of The Update Framework (TUF specification 1.0.33). go-tuf verifies; the order of work, the
// network, the cache and the memory of what was seen are this package's. See docs/formats/updates-client.md.
package trust

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"allotment/init/durable"
	"allotment/updater/fetch"
)

// Bounds of what an unknown server may make us read, in bytes, and of how far we follow it.
const (
	maxRoot        = 512 << 10
	maxTimestamp   = 16 << 10
	maxSnapshot    = 2 << 20
	maxTargets     = 5 << 20
	maxRotations   = 256 // roots in one refresh
	maxDelegations = 32  // roles in one search
)

// Config says what a Client works with.
type Config struct {
	Dir    string           // a folder of the client's own, durable
	Root   []byte           // root metadata that is trusted from the start, such as that of the verified root file system
	Source fetch.Source     // has the repository's folders metadata and targets
	Now    func() time.Time // the clock
}

// Client is what a device knows of a repository. It is not safe for concurrent use.
type Client struct {
	c      Config
	source fetch.Source                     // the mirror that is asked
	set    *trustedmetadata.TrustedMetadata // nil unless the last refresh succeeded
	root   []byte                           // the newest root metadata that was verified
	seen   seen
}

// errRollback says that the repository, or who speaks for it, gives something older than was seen before.
var errRollback = errors.New("older than what was seen before")

// New prepares the folder and verifies the root metadata; it does not use the network.
func New(c Config) (*Client, error) {
	if err := durable.MkdirAll(filepath.Join(c.Dir, rootsDir), 0o700); err != nil {
		return nil, fmt.Errorf("cannot prepare folder %q: %w", c.Dir, err)
	}
	client := &Client{c: c}
	if _, err := client.open(); err != nil {
		return nil, fmt.Errorf("cannot trust the given root metadata: %w", err)
	}
	return client, nil
}

// Root is the newest root metadata that was verified.
func (c *Client) Root() []byte { return c.root }

// Refresh brings the metadata of the top-level roles up to date, as the specification's section 5 says, or returns why that
// is not possible. What was verified until then is kept; Offer and Target want a refresh that succeeded.
func (c *Client) Refresh(ctx context.Context) error {
	c.set = nil
	return c.mirrors(ctx, c.refresh)
}

// mirrors does something with one mirror after another until it succeeds: one that is behind, or lies, must not be in
// the way.
func (c *Client) mirrors(ctx context.Context, do func(context.Context) error) error {
	var errs []error
	for _, mirror := range fetch.Each(c.c.Source) {
		c.source = mirror
		err := do(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c *Client) refresh(ctx context.Context) error {
	set, err := c.open()
	if err != nil {
		return fmt.Errorf("cannot trust the given root metadata: %w", err)
	}
	for _, step := range []struct {
		role string
		do   func(context.Context, *trustedmetadata.TrustedMetadata) error
	}{
		{metadata.ROOT, c.updateRoot},
		{metadata.TIMESTAMP, c.updateTimestamp},
		{metadata.SNAPSHOT, c.updateSnapshot},
		{metadata.TARGETS, c.updateTargets},
	} {
		if err := step.do(ctx, set); err != nil {
			return fmt.Errorf("cannot update %s metadata: %w", step.role, err)
		}
	}
	c.set = set
	return nil
}

// open verifies the roots that are kept, one after the other from the given one, as if they came from the network. (5.2)
func (c *Client) open() (*trustedmetadata.TrustedMetadata, error) {
	set, err := trustedmetadata.New(c.c.Root)
	if err != nil {
		return nil, err
	}
	c.root = c.c.Root
	c.seen = readSeen(c.c.Dir)
	// Expired is what has an expiry not higher than the time (5.3.10), while go-tuf says lower. A clock that was set back is not
	// believed: the time of a refresh that succeeded lay before an expiry that was signed.
	set.RefTime = c.c.Now().Add(1)
	if set.RefTime.Before(c.seen.Time) {
		set.RefTime = c.seen.Time
	}
	for range maxRotations {
		b, err := os.ReadFile(c.rootPath(set.Root.Signed.Version + 1))
		if err != nil {
			break
		}
		if _, err := set.UpdateRoot(b); err != nil {
			break // damaged: it is fetched again
		}
		c.root = b
	}
	return set, nil
}

// updateRoot follows the rotations of the root keys. (5.3)
func (c *Client) updateRoot(ctx context.Context, set *trustedmetadata.TrustedMetadata) error {
	for range maxRotations {
		next := set.Root.Signed.Version + 1
		b, err := c.fetch(ctx, fmt.Sprintf("%d.root.json", next), maxRoot)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return err
		}
		if _, err := set.UpdateRoot(b); err != nil {
			return err
		}
		if err := durable.WriteFile(c.rootPath(next), b, 0o600); err != nil {
			return err
		}
		c.root = b
	}
	root := set.Root.Signed
	if root.IsExpired(set.RefTime) {
		return &metadata.ErrExpiredMetadata{Msg: fmt.Sprintf("version %d expired on %v", root.Version, root.Expires)}
	}
	if root.Version < c.seen.Root {
		return fmt.Errorf("version %d is %w: %d", root.Version, errRollback, c.seen.Root)
	}
	if c.seen.rotated(&root) { // 5.3.11
		return c.forget()
	}
	return nil
}

// updateTimestamp has the newest timestamp; the one that is kept only guards against older ones. (5.4)
func (c *Client) updateTimestamp(ctx context.Context, set *trustedmetadata.TrustedMetadata) error {
	if b := c.cached(metadata.TIMESTAMP); b != nil {
		set.UpdateTimestamp(b) // if it is damaged, seen is what guards
	}
	b, err := c.fetch(ctx, "timestamp.json", maxTimestamp)
	if err != nil {
		return err
	}
	_, err = set.UpdateTimestamp(b)
	if same := (&metadata.ErrEqualVersionNumber{}); errors.As(err, &same) {
		return nil
	}
	if err != nil {
		return err
	}
	t := set.Timestamp.Signed
	snapshot, err := entry(t.Meta, metadata.SNAPSHOT)
	if err != nil {
		return err
	}
	if t.Version < c.seen.Timestamp || snapshot.Version < c.seen.Snapshot {
		return fmt.Errorf("version %d with snapshot %d is %w: %d with %d",
			t.Version, snapshot.Version, errRollback, c.seen.Timestamp, c.seen.Snapshot)
	}
	return c.keep(metadata.TIMESTAMP, b)
}

// updateSnapshot has the snapshot that the timestamp names. (5.5)
func (c *Client) updateSnapshot(ctx context.Context, set *trustedmetadata.TrustedMetadata) error {
	want, err := entry(set.Timestamp.Signed.Meta, metadata.SNAPSHOT)
	if err != nil {
		return err
	}
	if b := c.cached(metadata.SNAPSHOT); b != nil {
		// One of another version is loaded as well, to guard against older ones.
		if _, err := set.UpdateSnapshot(b, true); err == nil && want.VerifyLengthHashes(b) == nil {
			return c.judgeSnapshot(set)
		}
	}
	b, err := c.download(ctx, set, metadata.SNAPSHOT, want, maxSnapshot)
	if err != nil {
		return err
	}
	if _, err := set.UpdateSnapshot(b, false); err != nil {
		return err
	}
	if err := c.judgeSnapshot(set); err != nil {
		return err
	}
	return c.keep(metadata.SNAPSHOT, b)
}

// judgeSnapshot compares it with what was seen, in case that the snapshot of then is lost. (5.5.5)
func (c *Client) judgeSnapshot(set *trustedmetadata.TrustedMetadata) error {
	for name, version := range c.seen.Roles {
		m := set.Snapshot.Signed.Meta[name]
		if m == nil {
			return fmt.Errorf("%q is no longer listed: %w", name, errRollback)
		}
		if m.Version < version {
			return fmt.Errorf("%q version %d is %w: %d", name, m.Version, errRollback, version)
		}
	}
	return nil
}

// updateTargets has the top-level targets, and with them the end of a refresh. (5.6)
func (c *Client) updateTargets(ctx context.Context, set *trustedmetadata.TrustedMetadata) error {
	if _, err := c.role(ctx, set, metadata.TARGETS, metadata.ROOT); err != nil {
		return err
	}
	return c.remember(set)
}

// role has the metadata of a targets role, verified against the delegator that is asked for: two may delegate to one role with
// different keys, so that it was verified once, or lies in the cache, says nothing.
func (c *Client) role(ctx context.Context, set *trustedmetadata.TrustedMetadata, role,
	delegator string) (*metadata.TargetsType, error) {
	if delegator != metadata.ROOT && slices.Contains(topLevel, role) {
		return nil, fmt.Errorf("%q may not be delegated", role)
	}
	want, err := entry(set.Snapshot.Signed.Meta, role)
	if err != nil {
		return nil, err
	}
	if b := c.cached(role); b != nil {
		if m, err := set.UpdateDelegatedTargets(b, role, delegator); err == nil {
			return &m.Signed, nil
		}
	}
	b, err := c.download(ctx, set, role, want, maxTargets)
	if err != nil {
		return nil, err
	}
	m, err := set.UpdateDelegatedTargets(b, role, delegator)
	if err != nil {
		return nil, err
	}
	return &m.Signed, c.keep(role, b)
}

// topLevel are the roles whose files a delegated role of the same name would replace.
var topLevel = []string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS}

// entry is what metadata say of a role's file.
func entry(meta map[string]*metadata.MetaFiles, role string) (*metadata.MetaFiles, error) {
	m := meta[role+".json"]
	if m == nil {
		return nil, fmt.Errorf("%q is not listed", role+".json")
	}
	return m, nil
}
