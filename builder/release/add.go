package release

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"

	tuf "github.com/theupdateframework/go-tuf/v2/metadata"

	"allotment/image"
)

// AddOptions say how an image becomes a release.
type AddOptions struct {
	Notes       string // for the officers
	Wave        image.Wave
	Deltas      int  // from so many releases before this one
	WithoutRoot bool // the image may know no root of this repository, so that its boxes take no update after it
}

// Add makes a release out of an image and puts it into channel candidate: packs of all its parts, and deltas from the releases
// before it. Each pack and delta is tried as a device would use it.
func (r *Repository) Add(ctx context.Context, img *Image, o AddOptions) (*image.Release, error) {
	rel, err := r.add(ctx, img, o)
	if err != nil {
		m := img.Manifest
		return nil, fmt.Errorf("cannot add %s %s for %s: %w", m.Name, m.Version, m.Arch, err)
	}
	return rel, nil
}

func (r *Repository) add(ctx context.Context, img *Image, o AddOptions) (*image.Release, error) {
	m := img.Manifest
	if err := r.knowsRoot(ctx, m.Update, o.WithoutRoot); err != nil {
		return nil, err
	}
	rel := &image.Release{
		Format: image.ReleaseFormat, Name: m.Name, Title: m.Title, Version: m.Version, Arch: m.Arch, Epoch: m.Epoch, Notes: o.Notes,
		RootHash: img.RootHash, Trial: trialTime(&m),
	}
	if err := r.newer(ctx, Target{Channel: Candidate, Name: m.Name, Arch: m.Arch}, rel); err != nil {
		return nil, err
	}
	before, err := r.before(ctx, rel)
	if err != nil {
		return nil, err
	}
	w, err := r.newWorkshop(before)
	if err != nil {
		return nil, err
	}
	defer w.close()
	for i, p := range img.parts() {
		packed, err := w.pack(ctx, p)
		if err != nil {
			return nil, err
		}
		switch i {
		case 0:
			rel.UKI = packed
		case 1:
			rel.Root = packed
		default:
			packed.Verity = m.Layers[i-2].Digest
			rel.Layers = append(rel.Layers, packed)
		}
	}
	for _, old := range before[:min(o.Deltas, len(before))] {
		d, err := w.delta(ctx, old, img.parts())
		if err != nil {
			return nil, fmt.Errorf("delta from %s: %w", old.Version, err)
		}
		rel.Deltas = append(rel.Deltas, d)
	}
	_, err = r.place(ctx, rel, o.Wave)
	return rel, err
}

// knowsRoot refuses an image whose boxes would not trust this repository and so never take an update again.
func (r *Repository) knowsRoot(ctx context.Context, u image.Update, without bool) error {
	if without {
		return nil
	}
	if u.Root == "" {
		return errors.New("the image has no root metadata, so its boxes could take no update after it; " +
			`put root = "root.json" below [update] in the profile, with a copy of ` + metadataName(tuf.ROOT, r.now.root.Signed.Version))
	}
	root, err := new(tuf.Metadata[tuf.RootType]).FromBytes([]byte(u.Root))
	if err != nil {
		return fmt.Errorf("the image's root metadata cannot be read: %w", err)
	}
	ours, err := r.files.Get(ctx, metadataName(tuf.ROOT, root.Signed.Version))
	if err != nil || string(ours) != u.Root {
		return fmt.Errorf("the image's root metadata, version %d, is that of another repository, which its boxes would ask for "+
			"updates; name this repository's in the profile: [update] root", root.Signed.Version)
	}
	return nil
}

// before lists the releases of the same profile and architecture that are older than rel, the newest first.
func (r *Repository) before(ctx context.Context, rel *image.Release) ([]*image.Release, error) {
	var all []*image.Release
	found, err := r.descriptions(ctx, rel.Name, rel.Arch)
	if err != nil {
		return nil, err
	}
	known := map[image.Version]bool{}
	for _, d := range found {
		if v := d.release.Version; v.Compare(rel.Version) < 0 && !known[v] {
			known[v] = true
			all = append(all, d.release)
		}
	}
	slices.SortFunc(all, func(a, b *image.Release) int { return b.Version.Compare(a.Version) })
	return all, nil
}

// description is a release's description in the repository, in force or not.
type description struct {
	name    string
	release *image.Release
}

// descriptions lists all descriptions of a profile's releases for an architecture.
func (r *Repository) descriptions(ctx context.Context, name string, arch image.Arch) ([]description, error) {
	var all []description
	for _, c := range Channels {
		folder := path.Join("targets", c, name, string(arch))
		entries, err := os.ReadDir(r.files.path(folder))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			file := path.Join(folder, e.Name())
			b, err := r.files.Get(ctx, file)
			if err != nil {
				return nil, err
			}
			sum := image.NewDigest(sha256.Sum256(b))
			if e.Name() != sum.Hex()+"."+releaseFile {
				return nil, fmt.Errorf("%s is damaged: its SHA-256 is not its name; remove it, or bring it back from a copy", file)
			}
			rel, err := ParseRelease(b)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			all = append(all, description{file, rel})
		}
	}
	return all, nil
}

// place makes a described release the newest of channel candidate. Its blobs must be there.
func (r *Repository) place(ctx context.Context, rel *image.Release, w image.Wave) (Target, error) {
	b, err := json.Marshal(rel)
	if err != nil {
		return Target{}, err
	}
	t := Target{Channel: Candidate, Name: rel.Name, Arch: rel.Arch, Digest: image.NewDigest(sha256.Sum256(b)),
		Size: int64(len(b)), Custom: Custom{Wave: w}}
	if t.Size > maxRelease {
		return t, fmt.Errorf("its description has %d bytes, more than %d", t.Size, maxRelease)
	}
	if rel, err = ParseRelease(b); err != nil {
		return t, err
	}
	if err := r.newer(ctx, t, rel); err != nil {
		return t, err
	}
	for _, blob := range Blobs(rel) {
		if err := newDevice(r.Dir, r.Now).blob(ctx, blob, r.Progress); err != nil {
			return t, err
		}
	}
	next := r.now.clone()
	if err := next.put(t); err != nil {
		return t, err
	}
	if err := r.write(ctx, []named{{t.file(), b}}); err != nil {
		return t, err
	}
	return t, r.commit(ctx, next, Candidate)
}
