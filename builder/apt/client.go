package apt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"golang.org/x/sync/errgroup"

	"allotment/builder/profile"
	"allotment/image"
	"allotment/internal/cache"
	"allotment/internal/progress"
)

// The public places that packages come from when a profile names no others.
const (
	DefaultMirror   = "http://deb.debian.org/debian"
	DefaultSecurity = "http://deb.debian.org/debian-security"
	DefaultSnapshot = "https://snapshot.debian.org"
	DefaultNPM      = "https://registry.npmjs.org"
)

// parallel is how many files are fetched at once.
const parallel = 4

// Client fetches indexes and packages. Everything it fetches is verified, and kept in the cache by its hash.
type Client struct {
	cache  cache.Dir
	places profile.Debian
	epochs []int64
	http   *transfer
	keys   func(names ...string) openpgp.EntityList
}

// New returns a client of the given places. Packages that the mirror no longer has are looked for in the snapshot
// service as of the given epochs, those of the locks that name them; 0 stands for none.
func New(c cache.Dir, places profile.Debian, epochs ...int64) *Client {
	places.Mirror = strings.TrimSuffix(cmp.Or(places.Mirror, DefaultMirror), "/")
	places.Security = strings.TrimSuffix(cmp.Or(places.Security, DefaultSecurity), "/")
	places.Snapshot = strings.TrimSuffix(cmp.Or(places.Snapshot, DefaultSnapshot), "/")
	places.NPM = strings.TrimSuffix(cmp.Or(places.NPM, DefaultNPM), "/")
	return &Client{cache: c, places: places, epochs: epochs, http: newTransfer(), keys: debianKeys}
}

// Fetch returns the paths of verified packages in the order of packages, fetching what the cache lacks. What it has is
// verified again: bytes on a disk can change.
func (c *Client) Fetch(ctx context.Context, packages []Package, to progress.Reporter) ([]string, error) {
	var missing, bytes int64
	for _, p := range packages {
		if st, err := os.Stat(c.cache.Path("deb", p.SHA256.Hex())); err != nil || st.Size() != p.Size {
			missing++
			bytes += p.Size
		}
	}
	if missing == 0 {
		to = progress.Silent{} // what takes no time is no step; the paths are found all the same
	}
	step := to.Step(fmt.Sprintf("fetch %d packages", missing), bytes)
	paths := make([]string, len(packages))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, p := range packages {
		group.Go(func() (err error) {
			paths[i], err = c.fetch(ctx, p, step.Add)
			return err
		})
	}
	err := group.Wait()
	step.Done(err)
	return paths, err
}

// fetch returns the path of one verified package. One that was damaged in the cache is thrown away and fetched again.
func (c *Client) fetch(ctx context.Context, p Package, add func(int64)) (string, error) {
	if err := p.Check(); err != nil {
		return "", err
	}
	key := p.SHA256.Hex()
	if path := c.cache.Path("deb", key); damaged(path, p) {
		err := c.cache.Discard(ctx, "deb", key, func(path string) bool { return damaged(path, p) })
		if err != nil {
			return "", fmt.Errorf("cannot replace package %s, which is damaged in the cache: %w", p, err)
		}
	}
	path, err := c.cache.Make(ctx, "deb", key, func(tmp string) error { return c.find(ctx, p, tmp, add) })
	if err != nil {
		return "", fmt.Errorf("cannot fetch package %s: %w", p, err)
	}
	return path, nil
}

// damaged tells whether there is a file at path that has not the bytes of p.
func damaged(path string, p Package) bool {
	f, err := os.Open(path)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	digest, _, err := image.DigestOf(f)
	return err != nil || digest != p.SHA256
}

// find copies a package to the new file tmp from the first place that has it: the pool, the mirror, the snapshot
// service. A place that has other bytes under its name ends the search; one that does not answer does not.
func (c *Client) find(ctx context.Context, p Package, tmp string, add func(int64)) error {
	var faults []error
	if c.places.Pool != "" {
		err := c.inPool(p, tmp)
		if err == nil {
			add(p.Size)
		}
		if !errors.Is(err, errMissing) {
			return err
		}
		faults = append(faults, err)
	}
	for _, url := range c.urls(p) {
		err := c.http.exact(ctx, url, tmp, p.Size, p.SHA256, add)
		if err == nil || errors.Is(err, errWrong) || ctx.Err() != nil {
			return err
		}
		faults = append(faults, err)
	}
	return noPlace(faults)
}

// noPlace is the error for a package that no place gave.
func noPlace(faults []error) error {
	remedy := "the network or the mirror fails; packages in the cache or in a pool (see docs/formats/lock.md) need neither"
	for _, f := range faults {
		if errors.Is(f, errMissing) {
			remedy = "make the lock anew, or get the package from a pool that allot lock --keep has filled"
		}
	}
	return fmt.Errorf("%w\n  %s", errors.Join(faults...), remedy)
}

// urls are the places on the network that may have a package.
func (c *Client) urls(p Package) []string {
	if p.Archive == NPM {
		return []string{c.places.NPM + "/" + p.Path}
	}
	mirror, archive := c.places.Mirror, "debian"
	if p.Archive == Security {
		mirror, archive = c.places.Security, "debian-security"
	}
	urls := []string{mirror + "/" + p.Path}
	for _, epoch := range c.epochs {
		if epoch == 0 {
			continue
		}
		// The service takes a snapshot some hours after the archive's date, and answers with the last one before the time
		// that it is asked for: so ask for a day later first. The archives keep a package longer than that.
		for _, after := range []time.Duration{24 * time.Hour, 0} {
			at := time.Unix(epoch, 0).Add(after).UTC().Format("20060102T150405Z")
			urls = append(urls, c.places.Snapshot+"/archive/"+archive+"/"+at+"/"+p.Path)
		}
	}
	return urls
}
