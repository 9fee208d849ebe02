package install_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"allotment/image"
	"allotment/updater/fetch"
	"allotment/updater/install"
	"allotment/updater/install/installtest"
)

func TestStage(t *testing.T) {
	for _, withDelta := range []bool{true, false} {
		t.Run(map[bool]string{true: "delta", false: "packs"}[withDelta], func(t *testing.T) {
			installtest.Run(t, func(b *installtest.Box) {
				c := installtest.NewContent(0)
				r := b.Publish(t, "2.0", c, withDelta)
				if withDelta { // then packs are not even looked at
					for _, p := range install.AllParts(r) {
						if err := os.Remove(filepath.Join(b.Dir, fetch.Path(p.Pack))); err != nil {
							t.Error(err)
						}
					}
				}
				to, err := b.Stage(r)
				if err != nil {
					t.Error(err)
					return
				}
				b.WantStaged(t, to, r, c)
				// Once more: layers that are there are taken as they are.
				if to, err = b.Stage(r); err != nil {
					t.Error(err)
				}
				b.WantStaged(t, to, r, c)
			})
		})
	}
}

func TestProgress(t *testing.T) {
	installtest.Run(t, func(b *installtest.Box) {
		r := b.Publish(t, "2.0", installtest.NewContent(0), false)
		var last, sum int64
		_, err := install.Stage(context.Background(), b.Config, r, fetch.Dir(b.Dir), func(done, total int64) {
			if done < last || done > total || total < sum {
				t.Errorf("%d of %d after %d of %d", done, total, last, sum)
			}
			last, sum = done, total
		})
		if err != nil || last != sum || sum < r.Root.Size {
			t.Errorf("ended at %d of %d, %v", last, sum, err)
		}
	})
}

// A delta that is damaged costs a detour.
func TestDamagedDelta(t *testing.T) {
	installtest.Run(t, func(b *installtest.Box) {
		c := installtest.NewContent(0)
		good := b.Publish(t, "2.0", c, true)
		bad := installtest.MakeDelta(t, installtest.OldContent(), c)
		bad[len(bad)/2] ^= 1
		d, err := b.Blob(bad)
		if err != nil {
			t.Error(err)
		}
		d.From = "1.0"
		good.Deltas = []image.Blob{d}
		to, err := b.Stage(good)
		if err != nil {
			t.Error(err)
			return
		}
		b.WantStaged(t, to, good, c)
	})
}

// liar gives every blob with a byte flipped the first time.
type liar struct {
	fetch.Source
	asked map[string]int
}

func (l liar) Get(ctx context.Context, path string, from, to int64) (io.ReadCloser, error) {
	r, err := l.Source.Get(ctx, path, from, to)
	if l.asked[path]++; err != nil || l.asked[path] > 1 {
		return r, err
	}
	b, err := io.ReadAll(r)
	b[len(b)/2] ^= 1
	return io.NopCloser(bytes.NewReader(b)), errors.Join(err, r.Close())
}

func TestLyingSource(t *testing.T) {
	for _, withDelta := range []bool{true, false} {
		installtest.Run(t, func(b *installtest.Box) {
			c := installtest.NewContent(0)
			r := b.Publish(t, "2.0", c, withDelta)
			l := liar{fetch.Dir(b.Dir), map[string]int{}}
			to, err := install.Stage(context.Background(), b.Config, r, l, nil)
			if err != nil || len(l.asked) == 0 {
				t.Errorf("asked for %d blobs, %v", len(l.asked), err)
				return
			}
			b.WantStaged(t, to, r, c)
		})
	}
}

// cutSource gives no more than n bytes in all.
type cutSource struct {
	fetch.Source
	left *int64
}

func (s cutSource) Get(ctx context.Context, path string, from, to int64) (io.ReadCloser, error) {
	r, err := s.Source.Get(ctx, path, from, to)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{&cutReader{r, s.left}, r}, nil
}

type cutReader struct {
	r    io.Reader
	left *int64
}

var errGone = errors.New("the server is gone")

func (c *cutReader) Read(p []byte) (int, error) {
	if *c.left <= 0 {
		return 0, errGone
	}
	n, err := c.r.Read(p[:min(int64(len(p)), *c.left)])
	*c.left -= int64(n)
	return n, err
}

// A download that breaks off is gone on from, so that each byte is fetched once.
func TestBrokenDownloadIsResumed(t *testing.T) {
	for _, withDelta := range []bool{true, false} {
		installtest.Run(t, func(b *installtest.Box) {
			c := installtest.NewContent(0)
			r := b.Publish(t, "2.0", c, withDelta)
			whole := r.UKI.Pack.Size + r.UKI.Index.Size + r.Root.Pack.Size + r.Root.Index.Size
			for _, l := range r.Layers {
				whole += l.Pack.Size + l.Index.Size
			}
			const step = 300 << 10
			for n := int64(0); ; n++ {
				left := int64(step)
				to, err := install.Stage(context.Background(), b.Config, r, cutSource{fetch.Dir(b.Dir), &left}, nil)
				if err == nil {
					b.WantStaged(t, to, r, c)
					return
				}
				if b.WantNoSystem(t); !errors.Is(err, errGone) || n*step > whole {
					t.Errorf("at try %d: %v", n, err)
					return
				}
			}
		})
	}
}

func TestSourceThatFails(t *testing.T) {
	installtest.Run(t, func(b *installtest.Box) {
		c := installtest.NewContent(0)
		r := b.Publish(t, "2.0", c, false)
		path := filepath.Join(b.Dir, fetch.Path(r.Layers[1].Pack))
		for _, p := range install.AllParts(r) {
			if p.Name == "chat" {
				path = filepath.Join(b.Dir, fetch.Path(p.Pack))
			}
		}
		pack, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		bad := slices.Clone(pack)
		bad[len(bad)/2] ^= 1
		for _, text := range [][]byte{bad, pack[:len(pack)-10], nil} {
			if err := os.WriteFile(path, text, 0o644); err != nil {
				t.Error(err)
			}
			if _, err := b.Stage(r); err == nil {
				t.Error("staged what was damaged")
			}
			b.WantNoSystem(t)
		}
		if err := os.WriteFile(path, pack, 0o644); err != nil {
			t.Error(err)
		}
		to, err := b.Stage(r)
		if err != nil {
			t.Error(err)
			return
		}
		b.WantStaged(t, to, r, c)
	})
}

func TestRefused(t *testing.T) {
	installtest.Run(t, func(b *installtest.Box) {
		r := b.Publish(t, "2.0", installtest.NewContent(0), false)
		for name, spoil := range map[string]func(r *image.Release){
			"format 9":             func(r *image.Release) { r.Format = 9 },
			`it is of "other"`:     func(r *image.Release) { r.Name = "other" },
			"arm64 machines":       func(r *image.Release) { r.Arch = image.ARM64 },
			"it runs already":      func(r *image.Release) { r.Version = "1.0" },
			"older than version":   func(r *image.Release) { r.Version = "0.9.9" },
			"contents are older":   func(r *image.Release) { r.Epoch = 99 },
			"root hash":            func(r *image.Release) { r.RootHash = "x" },
			"is the one that runs": func(r *image.Release) { r.RootHash = b.Running.RootHash.String() },
			"root of 5000 bytes":   func(r *image.Release) { r.Root.Size = 5000 },
			"of another one":       func(r *image.Release) { r.Layers = append(slices.Clone(r.Layers), r.Layers[0]) },
			"not those of a layer": func(r *image.Release) { r.Layers = []image.Part{{Name: "x", Size: 1, Verity: "../x"}} },
		} {
			bad := r
			spoil(&bad)
			_, err := b.Stage(bad)
			if !errors.Is(err, install.ErrRefused) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		// What cannot be done here and now.
		for name, spoil := range map[string]func(r *image.Release){
			"the release needs 8": func(r *image.Release) { r.Root.Size = 8 << 20 },
			"MiB are missing":     func(r *image.Release) { r.UKI.Size = 1 << 30 },
		} {
			bad := r
			spoil(&bad)
			if _, err := b.Stage(bad); err == nil || errors.Is(err, install.ErrRefused) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		if len(b.ESP.Entries) != 2 || len(b.ESP.Placed) != 0 {
			t.Errorf("refusals led to entries %q", b.ESP.Entries)
		}
		r.RootHash = "00" + r.RootHash[2:] // this shows only when all is written
		if _, err := b.Stage(r); err == nil || !strings.Contains(err.Error(), "the release names 00") {
			t.Errorf("got %v", err)
		}
		b.WantNoSystem(t)
	})
}

func TestRunningSlotIsNeverWritten(t *testing.T) {
	installtest.Run(t, func(b *installtest.Box) {
		r := b.Publish(t, "2.0", installtest.NewContent(0), false)
		// Whatever names the partitions have: the tree shows which runs.
		swapped := b.Config
		swapped.Running.Slot = image.SlotB
		if _, err := install.Stage(context.Background(), swapped, r, fetch.Dir(b.Dir), nil); err == nil ||
			!strings.Contains(err.Error(), "it holds what runs") {
			t.Errorf("got %v", err)
		}
		b.WantRunningWhole(t)
		if _, err := install.OpenTarget(b.Config, r, image.SlotA); err == nil || !strings.Contains(err.Error(), "it runs") {
			t.Errorf("got %v", err)
		}
		// What is in use is not given: as a mounted file system, so dm-verity claims its devices.
		f, err := os.OpenFile(b.Partitions["root-b"], os.O_RDWR|os.O_EXCL, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		if _, err := b.Stage(r); err == nil || !strings.Contains(err.Error(), "busy") {
			t.Errorf("got %v", err)
		}
	})
}
