package release

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"allotment/image"
)

// Place makes a release that is described the newest of channel candidate. Its blobs must be there.
func (r *Repository) Place(ctx context.Context, rel *image.Release, w image.Wave) (Target, error) {
	t, err := r.place(ctx, rel, w)
	if err != nil {
		return t, fmt.Errorf("cannot add %s %s for %s: %w", rel.Name, rel.Version, rel.Arch, err)
	}
	return t, nil
}

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
	if err := r.newer(ctx, t, b); err != nil {
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
