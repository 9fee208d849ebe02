package release

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"allotment/builder/delta"
	"allotment/image"
	"allotment/internal/progress"
)

// synthetic is an image of a version whose root shares most with that of others, and whose one layer is always the same.
func (b *box) synthetic(t testing.TB, v image.Version) *Image {
	t.Helper()
	random := func(seed string, n int) []byte {
		data := make([]byte, n)
		rand.NewChaCha8(sha256.Sum256([]byte(seed))).Read(data)
		return data
	}
	named := func(name string, data []byte) delta.Part {
		p, err := part(t.Context(), name, bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	root, err := os.ReadFile(filepath.Join(b.Dir, "metadata/1.root.json"))
	if err != nil {
		t.Fatal(err)
	}
	img := &Image{RootHash: image.NewDigest(sha256.Sum256([]byte(v))).Hex()}
	img.Manifest = image.Manifest{
		Name: "club", Title: "Garden Club", Version: v, Arch: image.AMD64, Epoch: start.Unix(),
		Layers: []image.Layer{{Name: "debian-base", Digest: image.NewDigest(sha256.Sum256([]byte("verity")))}},
		Update: image.Update{Root: string(root)},
	}
	img.UKI = named("uki", random("uki"+string(v), 9000))
	img.Root = named("root", slices.Concat(random("root", 200_000), random(string(v), 300), random("rest", 100_000)))
	img.Layers = []delta.Part{named("debian-base", random("layer", 50_000))}
	return img
}

// addImage adds a synthetic image as a release with deltas from the last two.
func (b *box) addImage(t testing.TB, v image.Version) (*image.Release, error) {
	t.Helper()
	var rel *image.Release
	err := b.do(t, func(r *Repository) (err error) {
		rel, err = r.Add(t.Context(), b.synthetic(t, v), AddOptions{Deltas: 2, Wave: image.Wave{Kind: "default"}})
		return err
	})
	return rel, err
}

func TestAdd(t *testing.T) {
	b := newBox(t)
	var last, rel *image.Release
	for _, v := range []image.Version{"1.0", "1.1", "1.2", "1.3"} {
		var err error
		last = rel
		if rel, err = b.addImage(t, v); err != nil {
			t.Fatal(err)
		}
	}
	wantOffers(t, b, "candidate/club 1.3")
	var from []string
	for _, d := range rel.Deltas {
		from = append(from, string(d.From))
		if d.Size > 40_000 {
			t.Errorf("delta from %s has %d bytes", d.From, d.Size)
		}
	}
	if got := strings.Join(from, " "); got != "1.2 1.1" {
		t.Errorf("deltas lead from %q", got)
	}
	if rel.Layers[0].Pack != last.Layers[0].Pack || rel.Root.Pack == last.Root.Pack {
		t.Errorf("packs are %+v and %+v", last, rel)
	}
	if left, _ := filepath.Glob(filepath.Join(b.Dir, workPattern)); len(left) > 0 {
		t.Errorf("left behind %v", left)
	}
}

func TestAddRefuses(t *testing.T) {
	b := newBox(t)
	add := func(edit func(*Image), o AddOptions) error {
		img := b.synthetic(t, "1.0")
		edit(img)
		return b.do(t, func(r *Repository) error { _, err := r.Add(t.Context(), img, o); return err })
	}
	wantError(t, add(func(i *Image) { i.Manifest.Update.Root = "" }, AddOptions{}), "could take no update after it")
	wantError(t, add(func(i *Image) { i.Manifest.Update.Root = "{}" }, AddOptions{}), "cannot be read")
	foreign := newBox(t)
	foreign.must(t, func(r *Repository) error { return r.Refresh(t.Context(), "root") })
	text, err := os.ReadFile(filepath.Join(foreign.Dir, "metadata/2.root.json"))
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, add(func(i *Image) { i.Manifest.Update.Root = string(text) }, AddOptions{}), "is that of another repository")
	wantOffers(t, b)
	if err := add(func(i *Image) { i.Manifest.Update.Root = "" }, AddOptions{WithoutRoot: true}); err != nil {
		t.Fatal(err)
	}
	wantOffers(t, b, "candidate/club 1.0")
}

// A pack that was damaged since an earlier release is noticed when the next one would use it again.
func TestAddNoticesDamage(t *testing.T) {
	b := newBox(t)
	rel, err := b.addImage(t, "1.0")
	if err != nil {
		t.Fatal(err)
	}
	flip(t, filepath.Join(b.Dir, blobName(rel.Layers[0].Pack.Digest)))
	_, err = b.addImage(t, "1.1")
	if err == nil {
		t.Error("a damaged pack was used again")
	}
}

// canceller is a reporter that ends the work when a step begins.
type canceller struct {
	progress.Silent
	step   string
	cancel context.CancelFunc
}

func (c canceller) Step(name string, total int64) progress.Step {
	if strings.HasPrefix(name, c.step) {
		c.cancel()
	}
	return c.Silent.Step(name, total)
}

// Whoever ends an add at any step finds the repository as it was.
func TestAddStops(t *testing.T) {
	b := newBox(t)
	if _, err := b.addImage(t, "1.0"); err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{"pack root", "make a delta", "try the delta", "check blob"} {
		ctx, cancel := context.WithCancel(t.Context())
		err := b.do(t, func(r *Repository) error {
			r.Progress = canceller{step: step, cancel: cancel}
			_, err := r.Add(ctx, b.synthetic(t, "1.1"), AddOptions{Deltas: 1})
			return err
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("ended at %q: %v", step, err)
		}
		wantOffers(t, b, "candidate/club 1.0")
		if left, _ := filepath.Glob(filepath.Join(b.Dir, workPattern)); len(left) > 0 {
			t.Errorf("ended at %q: left behind %v", step, left)
		}
	}
}

var errCut = errors.New("cut")

// cutAfter makes all renames after the first n fail. It tells whether there were more.
func cutAfter(r *Repository, n int) *bool {
	reached := false
	r.files.rename = func(from, to string) error {
		if n--; n >= 0 {
			return os.Rename(from, to)
		}
		reached = true
		return errCut
	}
	return &reached
}

// TestInterrupted cuts each kind of work between all files that it puts in place. Whoever opens the repository next, and whoever
// looks before, finds it whole: the old one, or the new one; and the work can be done again. Only when the old key of a role is
// lost, nothing signs for both, and the change is finished first.
func TestInterrupted(t *testing.T) {
	promote := func(ctx context.Context, r *Repository) error {
		_, err := r.Promote(ctx, Select{}, image.Wave{Kind: "fast"})
		return err
	}
	rotate := func(role string) func(context.Context, *Repository) error {
		return func(ctx context.Context, r *Repository) error { return r.Rotate(ctx, role, nil, nil) }
	}
	for name, c := range map[string]struct {
		work     func(context.Context, *Repository) error
		old, new []string
		lost     map[string]bool
	}{
		"add":     {nil, []string{"candidate/club 1.0"}, []string{"candidate/club 1.1"}, nil},
		"promote": {promote, []string{"candidate/club 1.0"}, []string{"stable/club 1.0", "candidate/club 1.0"}, nil},
		"root":    {rotate("root"), []string{"candidate/club 1.0"}, nil, nil},
		"targets": {rotate("targets"), []string{"candidate/club 1.0"}, nil, nil},
		"stable":  {rotate(Stable), []string{"candidate/club 1.0"}, nil, nil},
		"online":  {rotate("timestamp"), []string{"candidate/club 1.0"}, nil, nil},
		"middle":  {rotate("snapshot"), []string{"candidate/club 1.0"}, nil, nil},
		"lost":    {rotate("timestamp"), []string{"candidate/club 1.0"}, nil, map[string]bool{"timestamp-1": true}},
	} {
		t.Run(name, func(t *testing.T) {
			base := newBox(t)
			if _, err := base.addImage(t, "1.0"); err != nil {
				t.Fatal(err)
			}
			if c.work == nil {
				img := base.synthetic(t, "1.1")
				c.work = func(ctx context.Context, r *Repository) error {
					_, err := r.Add(ctx, img, AddOptions{Deltas: 1})
					return err
				}
			}
			if c.new == nil {
				c.new = c.old
			}
			base.keys.lost = c.lost
			for n := 0; ; n++ {
				if !interrupt(t, base, n, c.work, c.old, c.new) {
					break
				}
			}
		})
	}
}

// interrupt cuts work after n renames on a copy of a repository. It returns false when the work has no more.
func interrupt(t *testing.T, base *box, n int, work func(context.Context, *Repository) error, old, new []string) bool {
	t.Helper()
	b := base.copy(t)
	var reached *bool
	err := b.do(t, func(r *Repository) error {
		reached = cutAfter(r, n)
		return work(t.Context(), r)
	})
	if !*reached {
		return false
	}
	if !errors.Is(err, errCut) {
		t.Fatalf("cut %d: %v", n, err)
	}
	if base.keys.lost == nil {
		if got, err := b.verify(t, b.Now); err != nil || !slices.Equal(got, old) && !slices.Equal(got, new) {
			t.Errorf("cut %d: devices are offered %q, %v", n, got, err)
		}
	}
	b.must(t, func(*Repository) error { return nil })
	got, err := b.verify(t, b.Now)
	if err != nil || !slices.Equal(got, old) && !slices.Equal(got, new) {
		t.Errorf("opened after cut %d: devices are offered %q, %v", n, got, err)
	}
	if n%3 == 0 && slices.Equal(got, old) { // each time would take long
		b.must(t, func(r *Repository) error { return work(t.Context(), r) })
		wantOffers(t, b, new...)
	}
	return true
}

// copy makes a copy of the repository and of the keys.
func (b *box) copy(t testing.TB) *box {
	t.Helper()
	keys := &memory{keys: maps.Clone(b.keys.keys), lost: b.keys.lost}
	c := &box{b.Options, keys}
	c.Keys = keys
	c.Dir = filepath.Join(t.TempDir(), "repo")
	if err := os.CopyFS(c.Dir, os.DirFS(b.Dir)); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestInterruptedInit cuts the making of a repository; it can be made again with the same keys.
func TestInterruptedInit(t *testing.T) {
	for n := 0; ; n++ {
		keys := newMemory()
		o := Options{Dir: filepath.Join(t.TempDir(), "repo"), Keys: keys, Now: start}
		if err := os.Mkdir(o.Dir, 0o755); err != nil {
			t.Fatal(err)
		}
		r, err := lock(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		next, err := r.first()
		if err != nil {
			t.Fatal(err)
		}
		reached := cutAfter(r, n)
		r.commit(t.Context(), next, "root", "targets", Stable, Candidate)
		r.Close()
		if !*reached {
			break
		}
		if err := Init(t.Context(), o); err != nil && !strings.Contains(err.Error(), "there is one already") {
			t.Fatalf("cut %d: %v", n, err)
		}
		if _, err := offers(t, o.Dir, start); err != nil {
			t.Errorf("cut %d: %v", n, err)
		}
	}
}

// Two who work on a repository at once take turns.
func TestLock(t *testing.T) {
	b := newBox(t)
	r, err := Open(t.Context(), b.Options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, b.Options); !errors.Is(err, context.Canceled) {
		t.Errorf("second: %v", err)
	}
	r.Close()
	left := filepath.Join(b.Dir, ".work-123") // by somebody who was killed
	if err := os.Mkdir(left, 0o755); err != nil {
		t.Fatal(err)
	}
	if r, err = Open(t.Context(), b.Options); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unfinished work is left: %v", err)
	}
	if _, err := Open(t.Context(), Options{Dir: filepath.Join(b.Dir, "none")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}
