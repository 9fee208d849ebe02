package trust_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/init/durable"
	"allotment/updater/fetch"
	"allotment/updater/trust"
)

// files are the device's, by name.
func (w *world) files() map[string][]byte {
	w.Helper()
	files := map[string][]byte{}
	err := fs.WalkDir(os.DirFS(w.dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		files[name], err = os.ReadFile(filepath.Join(w.dir, name))
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	return files
}

// restart gives the device a folder of these files; a nil one is missing.
func (w *world) restart(files map[string][]byte) {
	w.Helper()
	w.dir = w.TempDir()
	for name, b := range files {
		path := filepath.Join(w.dir, name)
		if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			w.Fatal(err)
		}
		if b == nil {
			continue
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			w.Fatal(err)
		}
	}
}

// The power may fail between any two writes of a refresh, and the disk may keep them in any order: from every mixture of files
// from before and after, with half-written ones beside them, and with any one of them damaged or lost, the device comes to
// the newest release by itself, and to the very files that it would have had.
func TestPowerCut(t *testing.T) {
	w := newWorld(t)
	w.release("2026.11.1")
	w.offers("2026.11.1")
	before := w.files()
	w.old = maps.Clone(w.repo.Files)
	w.repo.Rotate("root")
	w.repo.Rotate("timestamp")
	w.repo.PublishRoot()
	w.repo.PublishTargets("targets")
	w.release("2026.11.2")
	w.offers("2026.11.2")
	after := w.files()
	names := slices.Sorted(maps.Keys(after))
	want := []string{"release", "roots/2.root.json", "seen", "snapshot.json", "stable.json", "targets.json", "timestamp.json"}
	if !slices.Equal(names, want) {
		t.Fatalf("the device has %q, want %q", names, want)
	}
	states := map[string]map[string][]byte{"all lost but what was seen": {"seen": after["seen"], "roots/2.root.json": nil}}
	signed := names[1:] // the release's description is looked at only by its digest
	for mask := range 1 << len(signed) {
		state := map[string][]byte{names[0]: before[names[0]]}
		for i, name := range signed {
			if state[name] = before[name]; mask&(1<<i) != 0 {
				state[name] = after[name]
			}
		}
		states[fmt.Sprintf("mixture %b", mask)] = state
	}
	for _, name := range names {
		whole := after[name]
		for damage, b := range map[string][]byte{
			"lost": nil, "empty": {}, "half": whole[:len(whole)/2], "zeros": make([]byte, len(whole))} {
			state := maps.Clone(after)
			state[name] = b
			state["timestamp.json.new"], state["seen.new"] = b, b
			states[name+" "+damage] = state
		}
	}
	t.Run("states", func(t *testing.T) {
		for what, state := range states {
			t.Run(what, func(t *testing.T) {
				t.Parallel()
				d := &world{T: t, repo: w.repo, now: w.now, root: w.root, urls: w.urls}
				d.restart(state)
				d.offers("2026.11.2")
				got := d.files()
				maps.DeleteFunc(got, func(name string, _ []byte) bool { return strings.HasSuffix(name, ".new") })
				if !maps.EqualFunc(got, after, bytes.Equal) {
					t.Errorf("left %q", slices.Sorted(maps.Keys(got)))
				}
			})
		}
	})
	w.repo.Files = w.old
	w.refuses()
}

// New on a folder that cannot be written to fails at once, and a device without its root is none.
func TestNewRefuses(t *testing.T) {
	w := newWorld(t)
	config := trust.Config{Dir: w.dir, Root: w.root, Source: fetch.Dir(w.dir), Now: time.Now}
	for name, change := range map[string]func(c *trust.Config){
		"no root":      func(c *trust.Config) { c.Root = nil },
		"damaged root": func(c *trust.Config) { c.Root = c.Root[:len(c.Root)-2] },
		"other role":   func(c *trust.Config) { c.Root = w.repo.Files["metadata/timestamp.json"] },
		"no folder":    func(c *trust.Config) { c.Dir = "/dev/null/trust" },
	} {
		c := config
		change(&c)
		if _, err := trust.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Without anybody to ask there is no success.
func TestNoMirror(t *testing.T) {
	w := newWorld(t)
	w.urls = nil
	w.refuses("no address")
}

// An image with a newer root than the device has seen is believed, and what the device has seen still counts.
func TestNewerImage(t *testing.T) {
	w := oldAndNew(t)
	w.repo.PublishRoot()
	w.repo.PublishRoot()
	w.root = w.repo.RootFile(3)
	w.offers("2026.11.3")
	w.repo.Files = w.old
	w.refuses("version")
}

// An image with an older root, after a rollback by hand, follows the roots that the device has kept, without the network.
func TestOlderImage(t *testing.T) {
	w := oldAndNew(t)
	w.repo.Rotate("root")
	w.repo.PublishRoot()
	w.offers("2026.11.3")
	c := w.client()
	if string(c.Root()) != string(w.repo.RootFile(2)) {
		t.Error("starts from the image's root")
	}
	delete(w.repo.Files, "metadata/2.root.json")
	w.offers("2026.11.3")
	w.remove("roots/2.root.json")
	w.refuses("root", "older than what was seen")
}

// The same files from a folder, as a USB stick has them.
func TestFromFolder(t *testing.T) {
	w := newWorld(t)
	w.release("2026.11.1")
	stick := t.TempDir()
	for name, b := range w.repo.Files {
		path := filepath.Join(stick, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, b, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	c, err := trust.New(trust.Config{Dir: w.dir, Root: w.root, Source: fetch.Dir(stick), Now: func() time.Time { return start }})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
	if o, err := c.Offer(context.Background(), "stable", "garden", "amd64"); err != nil || o == nil {
		t.Errorf("%v, %v", o, err)
	}
}
