package release

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	tuf "github.com/theupdateframework/go-tuf/v2/metadata"

	"allotment/image"
	"allotment/internal/cache"
)

// Amount says how much was published or removed.
type Amount struct {
	Files int
	Bytes int64
}

// OpenFolder makes a folder, if there is none, and locks it as a Store until the returned function is called.
func OpenFolder(ctx context.Context, dir string) (Store, func(), error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	unlock, err := cache.LockFolder(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	f := newFolder(dir)
	if err := f.clean(); err != nil {
		unlock()
		return nil, nil, err
	}
	return f, unlock, nil
}

// Publish brings what is in force to a place that devices read. The repository is judged as a device would judge it first. Then
// comes what nothing names yet: blobs, releases, metadata; and the timestamp, which names them all, last. So devices see the old
// state or the new one, and a publication that was cut off is done again from where it was. A place that does not have an
// earlier state of the same repository is left alone.
func (r *Repository) Publish(ctx context.Context, to Store) (Amount, error) {
	p := publication{r: r, to: to}
	if err := p.run(ctx); err != nil {
		return p.Amount, fmt.Errorf("cannot publish repository %q: %w", r.Dir, err)
	}
	return p.Amount, nil
}

// publication is a publication under way.
type publication struct {
	Amount
	r  *Repository
	to Store
}

func (p *publication) run(ctx context.Context) error {
	targets, err := Verify(ctx, p.r.Dir, p.r.Now, p.r.Progress)
	if err != nil {
		return err
	}
	old, err := p.earlier(ctx)
	if err != nil {
		return err
	}
	for _, t := range targets {
		rel, err := p.r.Release(ctx, t)
		if err != nil {
			return err
		}
		for _, b := range Blobs(rel) {
			if err := p.blob(ctx, b); err != nil {
				return err
			}
		}
	}
	for _, t := range targets {
		if err := p.small(ctx, t.file()); err != nil {
			return err
		}
	}
	return p.metadata(ctx, old)
}

// metadata publishes metadata and puts it in force in place of the timestamp old.
func (p *publication) metadata(ctx context.Context, old []byte) error {
	var roots []string
	for v := int64(1); v <= p.r.now.root.Signed.Version; v++ {
		roots = append(roots, metadataName(tuf.ROOT, v))
	}
	snapshot := p.r.now.snapshot.Signed
	files := []string{metadataName(tuf.SNAPSHOT, snapshot.Version)}
	for _, role := range append([]string{tuf.TARGETS}, Channels...) {
		files = append(files, metadataName(role, snapshot.Meta[role+".json"].Version))
	}
	// A new root follows the timestamp, which is good with the root before too: see commit. The first of all precede it.
	if old == nil {
		files, roots = append(files, roots...), nil
	}
	for _, name := range files {
		if err := p.small(ctx, name); err != nil {
			return err
		}
	}
	name := metadataName(tuf.TIMESTAMP, 0)
	timestamp, err := p.r.files.Get(ctx, name)
	if err != nil {
		return err
	}
	if !bytes.Equal(timestamp, old) {
		if err := p.to.Replace(ctx, name, old, timestamp); err != nil {
			return fmt.Errorf("cannot put the new state in force: %w", err)
		}
		p.count(int64(len(timestamp)))
	}
	for _, name := range roots {
		if err := p.small(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (p *publication) count(bytes int64) {
	p.Files++
	p.Bytes += bytes
}

// earlier returns the timestamp that is published, nil if there is none. It is an error unless its state is one that this
// repository had: then nothing newer and nothing foreign is lost.
func (p *publication) earlier(ctx context.Context) ([]byte, error) {
	first := metadataName(tuf.ROOT, 1)
	theirs, err := p.to.Get(ctx, first)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ours, e := p.r.files.Get(ctx, first)
	if e != nil {
		return nil, e
	}
	if err == nil && !bytes.Equal(theirs, ours) {
		return nil, errors.New("another repository is published there: its first root is not this one's; choose another place")
	}
	b, err := p.to.Get(ctx, metadataName(tuf.TIMESTAMP, 0))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	published, err := new(tuf.Metadata[tuf.TimestampType]).FromBytes(b)
	if err != nil {
		return nil, fmt.Errorf("the published timestamp cannot be read: %w", err)
	}
	return b, p.had(ctx, published)
}

// had refuses a published timestamp whose snapshot this repository never had, or that is newer than its own.
func (p *publication) had(ctx context.Context, published *tuf.Metadata[tuf.TimestampType]) error {
	snapshot := published.Signed.Meta["snapshot.json"]
	if snapshot == nil {
		return errors.New("the published timestamp names no snapshot")
	}
	ours := p.r.now.timestamp.Signed.Version
	if v := published.Signed.Version; v > ours {
		return fmt.Errorf("what is published is newer (timestamp %d) than this repository (%d); bring the newer repository here first",
			v, ours)
	}
	b, err := p.r.files.Get(ctx, metadataName(tuf.SNAPSHOT, snapshot.Version))
	sum := sha256.Sum256(b)
	if err != nil || !bytes.Equal(snapshot.Hashes["sha256"], sum[:]) {
		return fmt.Errorf("what is published (snapshot %d) is not an earlier state of this repository: two copies of it were changed; "+
			"go on with the one that was published", snapshot.Version)
	}
	return nil
}

// small publishes a small file, unless it is there.
func (p *publication) small(ctx context.Context, name string) error {
	ours, err := p.r.files.Get(ctx, name)
	if err != nil {
		return err
	}
	theirs, err := p.to.Get(ctx, name)
	if err == nil && bytes.Equal(ours, theirs) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	p.count(int64(len(ours)))
	return p.to.Put(ctx, name, bytes.NewReader(ours), int64(len(ours)))
}

// blob publishes a blob, unless a whole one is there: stores show no file before it is whole.
func (p *publication) blob(ctx context.Context, b image.Blob) (err error) {
	name := blobName(b.Digest)
	size, err := p.to.Size(ctx, name)
	if err == nil && size == b.Size {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	step := p.r.Progress.Step("publish "+b.Digest.Short(), b.Size)
	defer func() { step.Done(err) }()
	f, err := os.Open(p.r.files.path(name))
	if err != nil {
		return err
	}
	defer f.Close()
	p.count(b.Size)
	if err := p.to.Put(ctx, name, io.TeeReader(f, contextWriter{ctx, meter{step}}), b.Size); err != nil {
		return err
	}
	if size, err = p.to.Size(ctx, name); err == nil && size != b.Size {
		err = fmt.Errorf("%s has %d bytes after it was sent, want %d: the store does not keep what it is given", name, size, b.Size)
	}
	return err
}

// Prune removes releases and blobs from the place of a publication that the repository does not have any more, see Expire.
func (r *Repository) Prune(ctx context.Context, to Store) (Amount, error) {
	var gone Amount
	for _, folder := range []string{"targets", "blobs"} {
		names, err := to.List(ctx, folder)
		if err != nil {
			return gone, err
		}
		for _, name := range names {
			if _, err := r.files.Size(ctx, name); !errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err := gone.remove(ctx, to, name); err != nil {
				return gone, err
			}
		}
	}
	return gone, nil
}

// remove removes a file and counts it.
func (a *Amount) remove(ctx context.Context, from Store, name string) error {
	size, err := from.Size(ctx, name)
	if err == nil {
		err = from.Remove(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("cannot remove %q: %w", name, err)
	}
	a.Files++
	a.Bytes += size
	return nil
}

// Expire removes what no device needs any more: of each profile and architecture, releases that are older than the newest keep
// and that no channel names, and blobs that no release names. Metadata stays. It returns how many files went.
func (r *Repository) Expire(ctx context.Context, keep int) (Amount, error) {
	var gone Amount
	wanted, err := r.wanted(ctx, keep)
	if err != nil {
		return gone, err
	}
	for _, folder := range []string{"targets", "blobs"} {
		names, err := r.files.List(ctx, folder)
		if err != nil {
			return gone, err
		}
		for _, name := range names {
			if wanted[name] {
				continue
			}
			if err := gone.remove(ctx, r.files, name); err != nil {
				return gone, err
			}
		}
	}
	return gone, nil
}

// wanted lists the files that Expire leaves.
func (r *Repository) wanted(ctx context.Context, keep int) (map[string]bool, error) {
	wanted := map[string]bool{}
	targets, err := r.Targets()
	if err != nil {
		return nil, err
	}
	for _, t := range targets {
		wanted[t.file()] = true
	}
	folders := map[Select]bool{}
	for _, t := range targets {
		folders[Select{Name: t.Name, Arch: t.Arch}] = true
	}
	for s := range folders {
		all, err := r.descriptions(ctx, s.Name, s.Arch)
		if err != nil {
			return nil, err
		}
		slices.SortFunc(all, func(a, b description) int { return b.release.Version.Compare(a.release.Version) })
		versions := map[image.Version]bool{}
		for _, d := range all {
			versions[d.release.Version] = true
			if len(versions) > keep && !wanted[d.name] {
				continue
			}
			wanted[d.name] = true
			for _, b := range Blobs(d.release) {
				wanted[blobName(b.Digest)] = true
			}
		}
	}
	return wanted, nil
}
