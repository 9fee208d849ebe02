package trust_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"allotment/image"
	"allotment/updater/trust"
	"allotment/updater/trust/trusttest"
)

const target = "stable/garden/amd64/release.json"

// offer refreshes and asks for the offer.
func (w *world) offer() (what string, err error) {
	c := w.client()
	if err := c.Refresh(context.Background()); err != nil {
		return "", err
	}
	o, err := c.Offer(context.Background(), "stable", "garden", image.AMD64)
	if o != nil {
		what = string(o.Release.Version)
	}
	return what, err
}

func TestOfferRefuses(t *testing.T) {
	edit := func(change func(r *image.Release)) func(*world) {
		return func(w *world) {
			r := trusttest.Release("garden", "2026.11.2")
			change(&r)
			b, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			w.repo.Add("stable", target, b, nil)
		}
	}
	text := func(s string) func(*world) {
		return func(w *world) { w.repo.Add("stable", target, []byte(s), nil) }
	}
	for name, c := range map[string]struct {
		change func(w *world)
		why    string
	}{
		"format":       {edit(func(r *image.Release) { r.Format = 2 }), "format 2"},
		"future":       {text(`{"format": 7, "version": "seven", "arch": "riscv64"}`), "format 7"},
		"name":         {edit(func(r *image.Release) { r.Name = "choir" }), "of choir for amd64"},
		"architecture": {edit(func(r *image.Release) { r.Arch = image.ARM64 }), "for arm64"},
		"no layers":    {edit(func(r *image.Release) { r.Layers = nil }), "lacks"},
		"no root hash": {edit(func(r *image.Release) { r.RootHash = "" }), "root hash"},
		"size":         {edit(func(r *image.Release) { r.Root.Size = -1 }), "part \"root\""},
		"no verity":    {edit(func(r *image.Release) { r.Layers[0].Verity = "" }), "digest"},
		"no pack":      {edit(func(r *image.Release) { r.UKI.Pack.Size = 0 }), "pack"},
		"delta":        {edit(func(r *image.Release) { r.Deltas = []image.Blob{{Digest: r.UKI.Digest, Size: 1}} }), "delta"},
		"version":      {text(`{"format": 1, "version": "../../x"}`), "version"},
		"no JSON":      {text("garden"), "invalid"},
		"too large":    {text(strings.Repeat(" ", 1<<20) + "{}"), "more bytes than allowed"},
		"custom":       {func(w *world) { w.repo.Add("stable", target, []byte("{}"), "text") }, "signed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c.change(w)
			w.repo.Publish("stable")
			if got, err := w.offer(); err == nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("%q, error %v, want %q", got, err, c.why)
			}
		})
	}
}

// The bytes of the description are what is signed, or nothing. (Arbitrary software)
func TestOfferOfOtherBytes(t *testing.T) {
	w := newWorld(t)
	w.release("2026.11.1")
	for way, b := range map[string]string{"same length": "x", "shorter": "", "longer": "xx"} {
		w.answer = func(out http.ResponseWriter, path string, file []byte) bool {
			if strings.HasSuffix(path, "release.json") {
				fmt.Fprintf(out, "%s%s", b, file[1:])
				return true
			}
			return false
		}
		if got, err := w.offer(); err == nil {
			t.Errorf("%s: offers %q", way, got)
		}
	}
}

func TestOfferNothing(t *testing.T) {
	w := newWorld(t)
	w.release("2026.11.1")
	w.repo.Targets["stable"].Signed.Targets[target].Custom = ptr(json.RawMessage(`{"withdrawn": true}`))
	w.repo.Publish("stable")
	if got, err := w.offer(); err != nil || got != "" {
		t.Errorf("withdrawn: %q, %v", got, err)
	}
	c := w.client()
	if _, err := c.Offer(context.Background(), "stable", "garden", image.AMD64); err == nil {
		t.Error("offers without a refresh")
	}
	if err := c.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, channel := range []string{"candidate", "stable/garden", ".."} {
		if o, err := c.Offer(context.Background(), channel, "garden", image.AMD64); err != nil || o != nil {
			t.Errorf("channel %q: %v, %v", channel, o, err)
		}
	}
}

func ptr[T any](v T) *T { return &v }

// A role speaks for what it was given only.
func TestDelegationOfOtherPaths(t *testing.T) {
	w := newWorld(t)
	b, err := json.Marshal(trusttest.Release("garden", "2026.11.2"))
	if err != nil {
		t.Fatal(err)
	}
	w.repo.Add("stable", "candidate/garden/amd64/release.json", b, nil)
	w.repo.Publish("stable")
	c := w.client()
	if err := c.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
	if o, err := c.Offer(context.Background(), "candidate", "garden", image.AMD64); err != nil || o != nil {
		t.Errorf("offers %v, %v", o, err)
	}
}

// Two roles delegate to a third, with different keys. That it was verified for one, or lies in the cache, says nothing for the
// other: also not for one client that has just looked for another target.
func TestCachedRoleIsVerifiedForItsDelegator(t *testing.T) {
	w := newWorld(t)
	expires := w.repo.Root.Signed.Expires
	for _, name := range []string{"a", "b", "shared"} {
		w.repo.Targets[name] = metadata.Targets(expires)
	}
	key := w.repo.NewKey()
	w.repo.Delegate("targets", metadata.DelegatedRole{Name: "a", Threshold: 1, Paths: []string{"a/*"}}, w.repo.NewKey())
	w.repo.Delegate("targets", metadata.DelegatedRole{Name: "b", Threshold: 1, Paths: []string{"b/*"}}, w.repo.NewKey())
	w.repo.Delegate("a", metadata.DelegatedRole{Name: "shared", Threshold: 1, Paths: []string{"a/*"}}, key)
	w.repo.Delegate("b", metadata.DelegatedRole{Name: "shared", Threshold: 1, Paths: []string{"b/*"}}, w.repo.NewKey())
	w.repo.Keys["shared"] = w.repo.Keys["shared"][:1] // that of a
	w.repo.Add("shared", "a/x", []byte("x"), nil)
	w.repo.Add("shared", "b/y", []byte("y"), nil)
	w.repo.Publish("targets", "a", "b", "shared")
	for range 2 { // without the cache and with it
		c := w.client()
		if err := c.Refresh(context.Background()); err != nil {
			t.Fatal(err)
		}
		if found, err := c.Target(context.Background(), "a/x"); err != nil || found == nil {
			t.Fatalf("not found for a: %v", err)
		}
		if found, err := c.Target(context.Background(), "b/y"); err == nil {
			t.Errorf("found for b: %v", found)
		}
	}
}

// A channel's key that was replaced in targets no longer counts, although the role's file is the one that was verified before.
func TestRevokedChannelKey(t *testing.T) {
	w := newWorld(t)
	w.release("2026.11.1")
	w.offers("2026.11.1")
	d := w.repo.Targets["targets"].Signed.Delegations
	d.Roles = nil
	stable := metadata.DelegatedRole{Name: "stable", Threshold: 1, Paths: []string{"stable/*/*/release.json"}}
	w.repo.Delegate("targets", stable, w.repo.NewKey())
	w.repo.Publish("targets")
	if got, err := w.offer(); err == nil {
		t.Errorf("offers %q", got)
	}
	w.repo.Keys["stable"] = w.repo.Keys["stable"][1:]
	w.release("2026.11.2")
	w.offers("2026.11.2")
}

// A delegated role must not take the file of a top-level role.
func TestDelegationOfTopLevelName(t *testing.T) {
	for _, name := range []string{"root", "timestamp", "snapshot", "targets"} {
		w := newWorld(t)
		w.repo.Delegate("targets", metadata.DelegatedRole{Name: name, Threshold: 1, Paths: []string{"x"}}, w.repo.NewKey())
		w.repo.Snapshot.Signed.Meta[name+".json"] = metadata.MetaFile(1)
		w.repo.Publish("targets")
		c := w.client()
		if err := c.Refresh(context.Background()); err != nil {
			t.Fatal(err)
		}
		found, err := c.Target(context.Background(), "x")
		if found != nil || err == nil && name != "targets" {
			t.Errorf("%s: %v, %v", name, found, err)
		}
		w.works()
	}
}

// Whoever publishes while a device reads leaves what it began with readable.
func TestPublishedMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.release("2026.11.1")
	c := w.client()
	if err := c.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
	w.release("2026.11.2")
	w.release("2026.11.3")
	if o, err := c.Offer(context.Background(), "stable", "garden", image.AMD64); err != nil || o.Release.Version != "2026.11.1" {
		t.Errorf("offers %v, %v", o, err)
	}
	if err := c.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
	if o, err := c.Offer(context.Background(), "stable", "garden", image.AMD64); err != nil || o.Release.Version != "2026.11.3" {
		t.Errorf("offers %v, %v", o, err)
	}
}

// With nothing new, a check is two small requests.
func TestIdleRequests(t *testing.T) {
	w := newWorld(t)
	w.release("2026.11.1")
	w.offers("2026.11.1")
	w.asked = nil
	w.offers("2026.11.1")
	if !slices.Equal(w.asked, []string{"metadata/2.root.json", "metadata/timestamp.json"}) {
		t.Errorf("asked for %q", w.asked)
	}
}

// Nothing that is not signed is taken, and nothing makes the client panic.
func FuzzRefresh(f *testing.F) {
	repo := trusttest.New(f, start)
	for i, name := range []string{"metadata/1.root.json", "metadata/timestamp.json", "metadata/1.snapshot.json", "metadata/1.targets.json"} {
		f.Add(byte(i), repo.Files[name])
		f.Add(byte(i), []byte(`{"signed":null,"signatures":[null]}`))
		f.Add(byte(i), []byte(`{"signed":{"_type":"root","keys":{"a":null},"roles":{"root":null}},"signatures":[{"keyid":"a","sig":""}]}`))
	}
	f.Fuzz(func(t *testing.T, file byte, b []byte) {
		name := []string{"metadata/2.root.json", "metadata/timestamp.json", "metadata/1.snapshot.json", "metadata/1.targets.json"}[file%4]
		files := memory(maps.Clone(repo.Files))
		files[name] = b
		c, err := trust.New(trust.Config{Dir: t.TempDir(), Root: repo.RootFile(1), Source: files, Now: func() time.Time { return start }})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Refresh(context.Background()); err == nil && !sameSigned(b, repo.Files[name]) {
			t.Errorf("%s was taken: %q", name, b)
		}
	})
}

// memory is a source of files that are in memory.
type memory map[string][]byte

func (m memory) Get(_ context.Context, path string, _, _ int64) (io.ReadCloser, error) {
	b, ok := m[path]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// sameSigned tells whether two files differ only in what is not signed: white space, order, needless signatures.
func sameSigned(a, b []byte) bool {
	var x, y struct{ Signed any }
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	return fmt.Sprint(x) == fmt.Sprint(y)
}
