package release

import (
	"context"
	"fmt"
	"testing"

	tuf "github.com/theupdateframework/go-tuf/v2/metadata"

	"allotment/image"
)

// refreshOnly signs one role anew and nothing else.
func refreshOnly(t testing.TB, b *box, role string) {
	t.Helper()
	b.must(t, func(r *Repository) error { return r.Refresh(t.Context(), role) })
}

func TestRefresh(t *testing.T) {
	b := newBox(t)
	b.Now = start.Add(40 * day)
	_, err := b.verify(t, b.Now)
	wantError(t, err, "expired")
	b.must(t, func(r *Repository) error { return r.Refresh(t.Context()) })
	wantOffers(t, b)
	b.Now = start.Add(366 * day)
	b.must(t, func(r *Repository) error { return r.Refresh(t.Context()) })
	_, err = b.verify(t, b.Now)
	wantError(t, err, "expired")
	b.must(t, func(r *Repository) error { return r.Refresh(t.Context(), tuf.TARGETS, Stable, Candidate) })
	wantOffers(t, b)
	b.Now = start.Add(4 * 365 * day)
	b.must(t, func(r *Repository) error {
		return r.Refresh(t.Context(), tuf.ROOT, tuf.TARGETS, Stable, Candidate)
	})
	wantOffers(t, b)
	b.must(t, func(r *Repository) error {
		for _, e := range r.Expiries() {
			if e.Expires.Before(b.Now) || e.Version < 2 {
				return fmt.Errorf("%+v", e)
			}
		}
		return nil
	})
	b.Now = start
	wantError(t, b.do(t, func(r *Repository) error { return r.Refresh(t.Context()) }), "this machine's clock shows 2026-11-22 12:00:00")
	wantError(t, b.do(t, func(r *Repository) error { return r.Refresh(t.Context(), "mirror") }), `cannot find role "mirror"`)
}

// Every role gets new keys, and the repository stays good for a device that knows its first root alone. The old keys are
// worth nothing afterwards.
func TestRotate(t *testing.T) {
	for _, ro := range roles {
		t.Run(ro.name, func(t *testing.T) {
			b := newBox(t)
			if err := b.add(t, "club", "1.0"); err != nil {
				t.Fatal(err)
			}
			b.must(t, func(r *Repository) error { return r.Rotate(t.Context(), ro.name, nil, nil) })
			wantOffers(t, b, "candidate/club 1.0")
			for n := range ro.keys {
				delete(b.keys.keys, keyName(ro.name, n+1))
			}
			b.Now = start.Add(day)
			if err := b.add(t, "club", "1.1"); err != nil {
				t.Fatal(err)
			}
			b.must(t, func(r *Repository) error { return r.Refresh(t.Context(), ro.name) })
			wantOffers(t, b, "candidate/club 1.1")
		})
	}
}

// One root key is lost: the other two replace it. With two lost, nobody can.
func TestRotateLostRootKey(t *testing.T) {
	b := newBox(t)
	delete(b.keys.keys, "root-2")
	id := func(n int) string {
		var id string
		b.must(t, func(r *Repository) error { id = r.now.root.Signed.Roles[tuf.ROOT].KeyIDs[n][:8]; return nil })
		return id
	}
	rotate := func(ctx context.Context, digits ...string) error {
		return b.do(t, func(r *Repository) error { return r.Rotate(ctx, tuf.ROOT, digits, []string{"root-4"}) })
	}
	wantError(t, rotate(t.Context(), "12345678"), "cannot find the keys 12345678")
	if err := rotate(t.Context(), id(1)); err != nil {
		t.Fatal(err)
	}
	wantOffers(t, b)
	b.keys.lost = map[string]bool{"root-1": true, "root-3": true}
	wantError(t, rotate(t.Context(), id(0)), "cannot sign root: 1 of 2 keys are at hand")
	wantOffers(t, b)
}

func TestThresholdNotMet(t *testing.T) {
	b := newBox(t)
	for _, lost := range []string{"candidate-1", "snapshot-1", "timestamp-1"} {
		b.keys.lost = map[string]bool{lost: true}
		wantError(t, b.add(t, "club", "1.0"), "0 of 1 keys are at hand; name the folders that hold the others")
		wantOffers(t, b)
	}
	b.keys.lost = nil
	if err := b.add(t, "club", image.Version("1.0")); err != nil {
		t.Fatal(err)
	}
}
