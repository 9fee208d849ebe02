package release

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/image"
)

func wantOffers(t *testing.T, b *box, want ...string) {
	t.Helper()
	got, err := b.verify(t, b.Now)
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("devices are offered %q, %v; want %q", got, err, want)
	}
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want an error with %q", err, want)
	}
}

// A release goes from candidate to stable, and is withdrawn; each step is what devices see.
func TestLifeOfARelease(t *testing.T) {
	b := newBox(t)
	wantOffers(t, b)
	wave, err := NewWave("default", b.Now, -1)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []image.Version{"1.0", "1.1"} {
		if err := b.add(t, "club", v); err != nil {
			t.Fatal(err)
		}
		wantOffers(t, b, map[image.Version][]string{
			"1.0": {"candidate/club 1.0"}, "1.1": {"stable/club 1.0", "candidate/club 1.1"}}[v]...)
		if v == "1.0" {
			b.must(t, func(r *Repository) error { _, err := r.Promote(t.Context(), Select{Name: "club"}, wave); return err })
			wantOffers(t, b, "stable/club 1.0", "candidate/club 1.0")
		}
	}
	if err := b.add(t, "choir", "0.1"); err != nil {
		t.Fatal(err)
	}
	b.must(t, func(r *Repository) error {
		_, err := r.Withdraw(t.Context(), Select{Name: "club"}, "1.0")
		return err
	})
	wantOffers(t, b, "stable/club 1.0 withdrawn", "candidate/choir 0.1", "candidate/club 1.1")
	fast, err := NewWave("fast", b.Now.Add(time.Hour), -1)
	if err != nil || fast.Hours != 12 {
		t.Fatalf("fast wave is %+v, %v", fast, err)
	}
	b.must(t, func(r *Repository) error {
		_, err := r.SetWave(t.Context(), Select{Channel: Stable}, fast)
		return err
	})
	targets, err := Verify(t.Context(), b.Dir, b.Now, b.Progress)
	if err != nil || targets[0].Wave != fast || targets[1].Wave == fast {
		t.Errorf("targets are %+v, %v", targets, err)
	}
}

func TestRefusesOlder(t *testing.T) {
	b := newBox(t)
	if err := b.add(t, "club", "1.10"); err != nil {
		t.Fatal(err)
	}
	for _, v := range []image.Version{"1.9", "1.10"} {
		wantError(t, b.add(t, "club", v), "has version 1.10, "+string(v)+" is not newer")
	}
	promote := func(r *Repository) error {
		_, err := r.Promote(t.Context(), Select{}, image.Wave{Kind: "fast"})
		return err
	}
	b.must(t, promote)
	wantError(t, b.do(t, promote), "is not newer")
	wantError(t, b.do(t, func(r *Repository) error {
		_, err := r.Promote(t.Context(), Select{Name: "choir"}, image.Wave{})
		return err
	}), `cannot find a release of "choir"`)
	b.must(t, func(r *Repository) error { _, err := r.Withdraw(t.Context(), Select{}, "1.10"); return err })
	wantError(t, b.do(t, func(r *Repository) error { _, err := r.Withdraw(t.Context(), Select{}, "1.9"); return err }), "no channel has it")
	wantError(t, b.do(t, promote), "was withdrawn")
	wantError(t, Init(t.Context(), b.Options), "there is one already")
	_, err := NewWave("slow", start, -1)
	wantError(t, err, `cannot use wave "slow"`)
}

// TestTwins damages a repository in each way that a device must notice.
func TestTwins(t *testing.T) {
	file := func(b *box, pattern string) string {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(b.Dir, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("no %s: %v", pattern, err)
		}
		return found[0]
	}
	for name, c := range map[string]struct {
		damage func(b *box)
		want   string
	}{
		"blob":          {func(b *box) { flip(t, file(b, "blobs/*")) }, "is damaged"},
		"missing blob":  {func(b *box) { os.Remove(file(b, "blobs/*")) }, "no such file"},
		"release":       {func(b *box) { flip(t, file(b, "targets/*/*/*/*")) }, "is damaged"},
		"root":          {func(b *box) { replace(t, file(b, "metadata/1.root.json"), `"threshold":2`, `"threshold":1`) }, "not enough signatures"},
		"timestamp":     {func(b *box) { replace(t, file(b, "metadata/timestamp.json"), `"version":2`, `"version":3`) }, "not enough signatures"},
		"snapshot":      {func(b *box) { replace(t, file(b, "metadata/2.snapshot.json"), `"version":2`, `"version":3`) }, "hash verification failed"},
		"channel":       {func(b *box) { replace(t, file(b, "metadata/2.candidate.json"), `false`, `true `) }, "length"},
		"no signature":  {func(b *box) { replace(t, file(b, "metadata/timestamp.json"), `"sig":"`, `"sig":"00`) }, "not enough signatures"},
		"old timestamp": {func(b *box) { b.Now = start.Add(15 * day) }, "expired"},
		"old snapshot": {func(b *box) {
			b.Now = start.Add(31 * day)
			refreshOnly(t, b, "timestamp")
		}, "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			if err := b.add(t, "club", "1.0"); err != nil {
				t.Fatal(err)
			}
			wantOffers(t, b, "candidate/club 1.0")
			c.damage(b)
			_, err := b.verify(t, b.Now)
			wantError(t, err, c.want)
			wantError(t, err, "devices would refuse repository")
		})
	}
}
