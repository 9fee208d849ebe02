package apt

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"time"

	debversion "github.com/knqyf263/go-deb-version"
	"golang.org/x/sync/errgroup"

	"allotment/builder/deb"
	"allotment/image"
	"allotment/internal/progress"
)

// Index is what the archive offers, out of verified indexes.
type Index struct {
	Date time.Time // of the newest of the indexes

	// Entries are the packages for an architecture, those of architecture all included, suite by suite. Several versions
	// of one package can be among them.
	Entries map[image.Arch][]Entry
}

// Entry is a package in an index, with the fields that say what it needs and what it does not stand beside.
type Entry struct {
	Package
	Relations deb.Stanza
}

// relations are the fields that Entry keeps: those that apt solves by (Debian policy 7, 5.6.6 and 5.6.9; Multi-Arch is
// dpkg's). Of several packages that provide a name, apt prefers the one of higher priority.
var relations = []string{
	"Priority", "Essential", "Multi-Arch", "Provides", "Pre-Depends", "Depends", "Conflicts", "Breaks", "Replaces",
}

// Newest returns the newest version of a package.
func (x *Index) Newest(arch image.Arch, name string) (Package, error) {
	var best Package
	var version debversion.Version
	for _, e := range x.Entries[arch] {
		if e.Name != name {
			continue
		}
		v, err := debversion.NewVersion(e.Version)
		if err != nil {
			return Package{}, fmt.Errorf("package %s: version %q: %w", name, e.Version, err)
		}
		if best.Name == "" || v.GreaterThan(version) {
			best, version = e.Package, v
		}
	}
	if best.Name == "" {
		return Package{}, fmt.Errorf("cannot find package %q for %s in Debian's indexes", name, arch)
	}
	return best, nil
}

// maxRelease bounds the size of an InRelease file; Debian's have some 150 KB.
const maxRelease = 16 << 20

// Update fetches and verifies the indexes of all suites for the given architectures, as of the time now.
func (c *Client) Update(ctx context.Context, archs []image.Arch, now time.Time, to progress.Reporter) (*Index, error) {
	step := to.Step("check the signatures of Debian's indexes", 0)
	releases, err := c.releases(ctx, now)
	step.Done(err)
	if err != nil {
		return nil, err
	}
	x := &Index{Entries: map[image.Arch][]Entry{}}
	var jobs []*indexJob
	var total int64
	for _, rel := range releases {
		if rel.date.After(x.Date) {
			x.Date = rel.date
		}
		for _, arch := range archs {
			f, err := rel.packages(arch)
			if err != nil {
				return nil, err
			}
			jobs = append(jobs, &indexJob{rel: rel, arch: arch, file: f})
			total += f.size
		}
	}
	step = to.Step("read Debian's indexes", total)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	for _, j := range jobs {
		group.Go(func() error { return c.index(ctx, j, step.Add) })
	}
	err = group.Wait()
	step.Done(err)
	for _, j := range jobs {
		x.Entries[j.arch] = append(x.Entries[j.arch], j.entries...)
	}
	return x, err
}

// releases fetches and verifies the InRelease file of every suite.
func (c *Client) releases(ctx context.Context, now time.Time) ([]*release, error) {
	var all []*release
	for _, suite := range Suites() {
		url := c.suiteURL(suite) + "/InRelease"
		b, err := c.get(ctx, url)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			return nil, fmt.Errorf("cannot get Debian's index: %w\n  making a lock needs the network; building from a lock does not, "+
				"once its packages are in the cache", err)
		}
		rel, err := readRelease(b, suite, c.keys(suite.keys...), now)
		if err != nil {
			return nil, fmt.Errorf("cannot trust index %s: it %w", url, err)
		}
		all = append(all, rel)
	}
	return all, nil
}

// get fetches a small file.
func (c *Client) get(ctx context.Context, url string) ([]byte, error) {
	f, err := os.CreateTemp("", "allot-index-")
	if err != nil {
		return nil, err
	}
	f.Close()
	defer os.Remove(f.Name())
	if _, err := c.http.download(ctx, url, f.Name(), maxRelease, func(int64) {}); err != nil {
		return nil, err
	}
	return os.ReadFile(f.Name())
}

func (c *Client) suiteURL(s Suite) string {
	mirror := c.places.Mirror
	if s.Archive == Security {
		mirror = c.places.Security
	}
	return mirror + "/dists/" + s.Name
}

// indexJob is one Packages file to be read.
type indexJob struct {
	rel     *release
	arch    image.Arch
	file    indexFile
	entries []Entry
}

// index gets a verified Packages file and reads it.
func (c *Client) index(ctx context.Context, j *indexJob, add func(int64)) error {
	url := c.suiteURL(j.rel.suite) + "/" + j.file.path
	if j.rel.byHash {
		url = c.suiteURL(j.rel.suite) + "/" + path.Dir(j.file.path) + "/by-hash/SHA256/" + j.file.sha256.Hex()
	}
	file, err := c.cache.Make(ctx, "index", j.file.sha256.Hex(), func(tmp string) error {
		return c.http.exact(ctx, url, tmp, j.file.size, j.file.sha256, add)
	})
	if err != nil {
		return fmt.Errorf("cannot get Debian's index %s of %s: %w", j.file.path, j.rel.suite.Name, err)
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := deb.Decompress(bufio.NewReaderSize(f, 256<<10), path.Ext(j.file.path))
	if err != nil {
		return fmt.Errorf("cannot read %s of %s: %w", j.file.path, j.rel.suite.Name, err)
	}
	defer r.Close()
	j.entries, err = readEntries(ctx, r, url, j.rel.suite.Archive)
	return err
}

// readEntries reads a Packages file; name is what errors call it.
func readEntries(ctx context.Context, in io.Reader, name, archive string) ([]Entry, error) {
	var entries []Entry
	r := deb.NewStanzaReader(in, name)
	for {
		s, err := r.Next()
		if err == io.EOF {
			return slices.Clip(entries), nil
		}
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		e, err := readEntry(s, archive)
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", name, err)
		}
		entries = append(entries, e)
	}
}

// readEntry reads one stanza of a Packages file.
func readEntry(s deb.Stanza, archive string) (Entry, error) {
	e := Entry{Package: Package{
		Name: s.Get("Package"), Version: s.Get("Version"), Arch: s.Get("Architecture"), Source: s.Get("Source"),
		Archive: archive, Path: s.Get("Filename"), SHA256: image.Digest("sha256:" + s.Get("SHA256")),
	}}
	if e.Source == "" {
		e.Source = e.Name
	}
	e.Size, _ = strconv.ParseInt(s.Get("Size"), 10, 64) // Check refuses 0
	for _, f := range s {
		if slices.Contains(relations, f.Name) {
			e.Relations = append(e.Relations, f)
		}
	}
	return e, e.Check()
}
