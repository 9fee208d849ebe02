package apt

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"allotment/builder/npm"
	"allotment/image"
)

// maxNPM bounds the size of a package of the npm registry.
const maxNPM = 256 << 20

// NPM finds the package of the npm registry that is named NAME@VERSION, and keeps it in the cache. What vouches for it is
// the registry's certificate and the hash that the registry gives; from then on it is the lock.
func (c *Client) NPM(ctx context.Context, named string) (Package, error) {
	m := npm.Form.FindStringSubmatch(named)
	if m == nil {
		return Package{}, fmt.Errorf("cannot find npm package %q: want NAME@VERSION", named)
	}
	b, err := c.get(ctx, c.places.NPM+"/"+m[1]+"/"+m[2])
	if err != nil {
		return Package{}, fmt.Errorf("cannot find npm package %s: %w", named, err)
	}
	r, err := npm.ReadRelease(b, m[1], m[2])
	if err != nil {
		return Package{}, err
	}
	dir, err := os.MkdirTemp("", "allot-npm-")
	if err != nil {
		return Package{}, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "package")
	if _, err := c.http.download(ctx, c.places.NPM+"/"+r.Path(), file, maxNPM, func(int64) {}); err != nil {
		return Package{}, fmt.Errorf("cannot fetch npm package %s: %w", named, err)
	}
	p := Package{Name: r.Name, Version: r.Version, Arch: "all", Source: r.Name, Archive: NPM, Path: r.Path()}
	if err := c.keepNPM(ctx, r, file, &p); err != nil {
		return Package{}, err
	}
	return p, p.Check()
}

// keepNPM verifies the file, puts its size and hash into p, and the file into the cache.
func (c *Client) keepNPM(ctx context.Context, r *npm.Release, file string, p *Package) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := r.Verify(f); err != nil {
		return err
	}
	if _, err := f.Seek(0, 0); err != nil {
		return err
	}
	if p.SHA256, p.Size, err = image.DigestOf(f); err != nil {
		return err
	}
	_, err = c.cache.Make(ctx, "deb", p.SHA256.Hex(), func(tmp string) error {
		return copyExact(file, tmp, *p)
	})
	return err
}
