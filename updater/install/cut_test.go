package install_test

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"testing"

	"allotment/image"
	"allotment/image/verity"
	"allotment/updater/fetch"
	"allotment/updater/install"
	"allotment/updater/install/installtest"
)

var errCut = errors.New("cut")

// cutter takes the power from a box at its nth call.
type cutter struct {
	fetch.Source
	t    *testing.T
	box  *installtest.Box
	n    int
	left *installtest.Box // what there was then
}

func (c *cutter) step() error {
	if c.n--; c.n == 0 {
		c.left = c.box.Cut(c.t)
	}
	if c.n <= 0 {
		return errCut
	}
	return nil
}

// Get implements fetch.Source.
func (c *cutter) Get(ctx context.Context, path string, from, to int64) (io.ReadCloser, error) {
	if err := c.step(); err != nil {
		return nil, err
	}
	return c.Source.Get(ctx, path, from, to)
}

// boot cuts before and after each change of the ESP.
type boot struct {
	install.Boot
	*cutter
}

func (b boot) Place(v image.Version, uki string) error {
	return errors.Join(b.step(), b.Boot.Place(v, uki), b.step())
}

func (b boot) Drop(v image.Version) error {
	return errors.Join(b.step(), b.Boot.Drop(v), b.step())
}

// stage installs a release with the power cut at the nth step, and returns what is left; nil if there are fewer steps.
func stageCut(t *testing.T, b *installtest.Box, r image.Release, n int) (*installtest.Box, error) {
	c := &cutter{Source: fetch.Dir(b.Dir), t: t, box: b, n: n}
	config := b.Config
	config.Boot = func() (install.Boot, error) { return boot{b.ESP, c}, nil }
	config.Verity = func(path string, d image.Digest) error {
		return errors.Join(c.step(), installtest.CheckVerity(path, d))
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	_, err := install.Stage(ctx, config, r, c, func(int64, int64) {
		if c.step() != nil {
			stop()
		}
	})
	return c.left, err
}

// wantBootable checks that whatever could be started is whole.
func wantBootable(t *testing.T, b *installtest.Box, r image.Release) {
	t.Helper()
	b.WantRunningWhole(t)
	root, e1 := os.Open(b.Partitions["root-b"])
	hash, e2 := os.Open(b.Partitions["verity-b"])
	if err := errors.Join(e1, e2); err != nil {
		t.Error(err)
		return
	}
	defer root.Close()
	defer hash.Close()
	want, err := verity.ParseRootHash(r.RootHash)
	if err != nil {
		t.Error(err)
	}
	super, err := verity.ReadSuperblock(hash)
	older := slices.Contains(b.ESP.Entries, "0.9")
	switch {
	case older && (err != nil || super.UUID == want.HashUUID()):
		t.Errorf("version 0.9 can be started and is gone: %v", err)
	case err == nil && super.UUID == want.HashUUID():
		if err := verity.Verify(root, hash, want); err != nil {
			t.Errorf("slot B is taken for version 2.0: %v", err)
		}
	case len(b.ESP.Placed) > 0:
		t.Errorf("boot files are placed without a system: %v", err)
	}
	if !slices.Contains(b.ESP.Entries, "1.0") {
		t.Error("what runs cannot be started any more")
	}
}

func TestStageIsCut(t *testing.T) {
	for name, stride := range map[string]int{"delta": 1, "packs": 3} { // of packs most steps are alike
		t.Run(name, func(t *testing.T) {
			c, withDelta := installtest.NewContent(0), name == "delta"
			for n := 1; !t.Failed(); n += stride {
				var left *installtest.Box
				var r image.Release
				installtest.Run(t, func(b *installtest.Box) {
					r = b.Publish(t, "2.0", c, withDelta)
					var err error
					if left, err = stageCut(t, b, r, n); (err == nil) != (left == nil) {
						t.Errorf("with a cut at step %d: %v", n, err)
					}
				})
				if left == nil {
					if n < 8 {
						t.Errorf("only %d steps", n)
					}
					return
				}
				left.Use(t, func() {
					wantBootable(t, left, r)
					to, err := left.Stage(r)
					if err != nil {
						t.Errorf("after a cut at step %d: %v", n, err)
						return
					}
					left.WantStaged(t, to, r, c)
				})
			}
		})
	}
}
