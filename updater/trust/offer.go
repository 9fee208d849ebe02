package trust

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"allotment/image"
	"allotment/init/durable"
	"allotment/updater/fetch"
)

// maxRelease bounds a release's description in bytes.
const maxRelease = 1 << 20

// Offer is the release that devices of a channel shall have.
type Offer struct {
	Release image.Release
	Digest  image.Digest // of the release's description, by which a bad one is remembered
	Wave    image.Wave
}

// custom is what the repository signs beside a release's digest.
type custom struct {
	Wave      image.Wave `json:"wave"`
	Withdrawn bool       `json:"withdrawn"`
}

// Offer returns what the channel has for a profile's name and an architecture; nil if it has nothing or has withdrawn it.
func (c *Client) Offer(ctx context.Context, channel, name string, arch image.Arch) (o *Offer, err error) {
	err = c.mirrors(ctx, func(ctx context.Context) error {
		o, err = c.offer(ctx, channel, name, arch)
		return err
	})
	return o, err
}

func (c *Client) offer(ctx context.Context, channel, name string, arch image.Arch) (*Offer, error) {
	target, err := c.Target(ctx, path.Join(channel, name, string(arch), "release.json"))
	if target == nil || err != nil {
		return nil, err
	}
	var signed custom
	if target.Custom != nil {
		if err := json.Unmarshal(*target.Custom, &signed); err != nil {
			return nil, fmt.Errorf("cannot read what is signed of %q: %w", target.Path, err)
		}
	}
	if signed.Withdrawn {
		return nil, nil
	}
	b, err := c.description(ctx, target)
	if err != nil {
		return nil, err
	}
	release, err := parseRelease(b, name, arch)
	if err != nil {
		return nil, fmt.Errorf("cannot use release %q: %w", target.Path, err)
	}
	digest, _, err := image.DigestOf(bytes.NewReader(b))
	return &Offer{Release: *release, Digest: digest, Wave: signed.Wave}, err
}

// description is the text of a release, which is kept, so that it is fetched once.
func (c *Client) description(ctx context.Context, t *metadata.TargetFiles) ([]byte, error) {
	path := filepath.Join(c.c.Dir, offerFile)
	if b, err := os.ReadFile(path); err == nil && t.VerifyLengthHashes(b) == nil {
		return b, nil
	}
	b, err := c.Read(ctx, t, maxRelease)
	if err != nil {
		return nil, err
	}
	return b, durable.WriteFile(path, b, 0o600)
}

// Target searches what the repository says of a target, in the order of the delegations. It is nil if no role knows it.
// (5.6.7)
func (c *Client) Target(ctx context.Context, name string) (*metadata.TargetFiles, error) {
	if c.set == nil {
		return nil, errors.New("cannot look for a release: the metadata have not been refreshed")
	}
	type edge struct{ role, delegator string }
	stack := []edge{{metadata.TARGETS, metadata.ROOT}}
	visited := map[string]bool{}
	for len(stack) > 0 && len(visited) < maxDelegations {
		e := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if visited[e.role] {
			continue
		}
		visited[e.role] = true
		targets, err := c.role(ctx, c.set, e.role, e.delegator)
		if err != nil {
			return nil, fmt.Errorf("cannot look for %q in role %q: %w", name, e.role, err)
		}
		if t := targets.Targets[name]; t != nil {
			t.Path = name
			return t, nil
		}
		if targets.Delegations == nil {
			continue
		}
		var below []edge
		for _, r := range targets.Delegations.GetRolesForTarget(name) {
			below = append(below, edge{r.Name, e.role})
			if r.Terminating {
				stack = nil
				break
			}
		}
		slices.Reverse(below)
		stack = append(stack, below...)
	}
	return nil, nil
}

// Read fetches a target of at most limit bytes and verifies its length and digests.
func (c *Client) Read(ctx context.Context, t *metadata.TargetFiles, limit int64) ([]byte, error) {
	if t.Length > limit {
		return nil, fmt.Errorf("cannot fetch %q: %w: %d", t.Path, fetch.ErrTooLarge, limit)
	}
	b, err := fetch.Bytes(ctx, c.source, c.address(t), t.Length)
	if err != nil {
		return nil, err
	}
	if err := t.VerifyLengthHashes(b); err != nil {
		return nil, fmt.Errorf("cannot use %q: %w", t.Path, err)
	}
	return b, nil
}

// address is where the source has a target: with its digest before the name, if the repository is kept so. (5.7.3)
func (c *Client) address(t *metadata.TargetFiles) string {
	dir, base := path.Split(t.Path)
	if c.set.Root.Signed.ConsistentSnapshot {
		algorithm := "sha256"
		for name := range t.Hashes {
			if t.Hashes[algorithm] == nil {
				algorithm = name
			}
		}
		base = fmt.Sprintf("%x.%s", []byte(t.Hashes[algorithm]), base)
	}
	parts := strings.Split("targets/"+dir+base, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return strings.Join(parts, "/")
}

// parseRelease reads a release's description. Fields that this code does not know are passed over: a release that an older
// device must not misunderstand has another Format.
func parseRelease(b []byte, name string, arch image.Arch) (*image.Release, error) {
	var r image.Release
	var format struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &format); err != nil {
		return nil, err
	}
	if format.Format != image.ReleaseFormat {
		return nil, fmt.Errorf("it has format %d, this system knows %d", format.Format, image.ReleaseFormat)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, err
	}
	if r.Name != name || r.Arch != arch {
		return nil, fmt.Errorf("it is of %s for %s, not of %s for %s", r.Name, r.Arch, name, arch)
	}
	return &r, r.Check()
}

// Newer says, as an error in one sentence, why a release is not an update of the running version; nil if it is one.
func (o *Offer) Newer(running image.Version) error {
	if c := o.Release.Version.Compare(running); c < 0 {
		return fmt.Errorf("release %s is older than the running %s", o.Release.Version, running)
	} else if c == 0 {
		return fmt.Errorf("release %s is the running one", running)
	}
	return nil
}
