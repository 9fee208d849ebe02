package install_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"allotment/image"
	"allotment/image/layer"
	"allotment/init/state/btrfs"
	"allotment/updater/install"
	"allotment/updater/install/installtest"
)

// older puts the traces of version 0.9 into the state, as if it lay in slot B, and returns the path of a layer of its own.
func older(t *testing.T, b *installtest.Box) string {
	t.Helper()
	text := installtest.Noise(50, 64<<10)
	d, size, err := layer.Digest(bytes.NewReader(text))
	path := b.LayerPath(d)
	err = errors.Join(err, os.WriteFile(path, text, 0o444), btrfs.SetImmutable(path, true), b.KeepNeeds("0.9", install.Needs{Layers: []image.Layer{{Name: "old", Digest: d, Size: size}}}),
		os.WriteFile(install.UKI(b.State, "0.9"), []byte("UKI"), 0o444), os.MkdirAll(install.FetchDir(b.State), 0o755),
		os.WriteFile(filepath.Join(install.FetchDir(b.State), "1234.part"), text, 0o600),
		os.WriteFile(path+".new", text, 0o444))
	if err != nil {
		t.Error(err)
	}
	return path
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestTidy(t *testing.T) {
	installtest.Run(t, func(b *installtest.Box) {
		path := older(t, b)
		if err := install.Tidy(b.Config, "0.9"); err != nil || !exists(path) || !exists(install.UKI(b.State, "0.9")) {
			t.Errorf("what version 0.9 needs is gone: %v", err)
		}
		b.WantNothingLeft(t)
		if err := install.Tidy(b.Config, "0.9", "0.8"); err == nil || !exists(path) {
			t.Errorf("not knowing what version 0.8 needs: %v", err)
		}
		if err := install.Tidy(b.Config); err != nil || exists(path) || exists(install.UKI(b.State, "0.9")) || !exists(install.UKI(b.State, "1.0")) {
			t.Errorf("what nobody needs stays: %v", err)
		}
		if _, err := install.NeedsOf(b.State, "0.9"); err == nil {
			t.Error("needs of version 0.9 are kept")
		}
		b.WantRunningWhole(t)
	})
}

// What only the slot that is written needs goes first, and makes room.
func TestStageRemovesWhatNobodyNeeds(t *testing.T) {
	installtest.Run(t, func(b *installtest.Box) {
		path := older(t, b)
		c := installtest.NewContent(0)
		r := b.Publish(t, "2.0", c, true)
		bad := r
		bad.UKI.Size = 1 << 30
		if _, err := b.Stage(bad); !errors.Is(err, install.ErrNoSpace) || !exists(path) {
			t.Errorf("a release that does not fit took what version 0.9 needs: %v", err)
		}
		to, err := b.Stage(r)
		if err != nil || exists(path) {
			t.Errorf("the layer is there still, %v", err)
			return
		}
		b.WantStaged(t, to, r, c)
	})
}

func TestDescribe(t *testing.T) {
	installtest.Run(t, func(b *installtest.Box) {
		if err := os.Remove(install.UKI(b.State, "1.0")); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := install.Describe(b.Config); err != nil {
				t.Error(err)
			}
		}
		text, err := os.ReadFile(install.UKI(b.State, "1.0"))
		if err != nil || string(text) != "UKI of 1.0" {
			t.Errorf("kept %q, %v", text, err)
		}
		n, err := install.NeedsOf(b.State, "1.0")
		if err != nil || !slices.Equal(n.Layers, b.Manifest.Layers) || n.RootHash != b.Running.RootHash {
			t.Errorf("it needs %+v, %v", n, err)
		}
	})
}
