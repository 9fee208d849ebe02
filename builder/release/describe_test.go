package release

import (
	"encoding/json"
	"testing"

	"allotment/image"
)

func TestTrialTime(t *testing.T) {
	ready := func(seconds int) *image.Check { return &image.Check{TCP: 1, Timeout: seconds} }
	for name, c := range map[string]struct {
		modules []image.Module
		want    int
	}{
		"none":   {nil, 600},
		"little": {[]image.Module{{Services: []image.Service{{Ready: ready(30)}, {}}}}, 600},
		"much": {[]image.Module{
			{Services: []image.Service{{Ready: ready(0)}, {Ready: ready(100)}}},
			{Migrations: []image.Migration{{}, {Task: image.Task{Timeout: 900}}}},
		}, 60 + 100 + 300 + 900},
		"endless": {[]image.Module{{Migrations: []image.Migration{{Task: image.Task{Timeout: 10000}}}}}, 7200},
	} {
		if got := trialTime(&image.Manifest{Modules: c.modules}); got.Seconds != c.want {
			t.Errorf("%s: %d s, want %d", name, got.Seconds, c.want)
		}
	}
}

// TestParseRelease breaks a description in each way that a device could not work with.
func TestParseRelease(t *testing.T) {
	b := newBox(t)
	for name, c := range map[string]struct {
		damage func(*image.Release)
		want   string
	}{
		"whole":     {func(*image.Release) {}, ""},
		"format":    {func(r *image.Release) { r.Format = 2 }, "format 2, want 1"},
		"epoch":     {func(r *image.Release) { r.Epoch = 0 }, "lacks name"},
		"name":      {func(r *image.Release) { r.Name = "../x" }, "cannot be part of a path"},
		"trial":     {func(r *image.Release) { r.Trial.Seconds = 0 }, "gives its trial no time"},
		"root hash": {func(r *image.Release) { r.RootHash = "00" }, "root hash"},
		"size":      {func(r *image.Release) { r.Root.Size = 0 }, `part "root" has no digest or no size`},
		"pack":      {func(r *image.Release) { r.UKI.Pack.Size = -1 }, `the pack of part "uki", or the index of that, has no digest`},
		"verity":    {func(r *image.Release) { r.Layers[0].Verity = r.UKI.Digest; r.Layers[0].Size = -1 }, `part "debian-base"`},
		"delta": {func(r *image.Release) {
			r.Deltas = []image.Blob{{Digest: r.UKI.Digest, Size: 1, From: "1.0"}}
		}, `starts from "1.0", which is not before 1.0`},
	} {
		rel := b.describe(t, "club", "1.0")
		c.damage(rel)
		text, err := json.Marshal(rel)
		if err != nil {
			t.Fatal(err)
		}
		_, err = ParseRelease(text)
		if c.want == "" && err == nil {
			continue
		}
		t.Run(name, func(t *testing.T) { wantError(t, err, c.want) })
	}
	for _, text := range []string{"", "{}", `{"format":1}{}`, `{"format":1,"colour":2}`} {
		if _, err := ParseRelease([]byte(text)); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

// FuzzParseRelease feeds descriptions; what is taken can be written and is taken again.
func FuzzParseRelease(f *testing.F) {
	text, err := json.Marshal(newBox(f).describe(f, "club", "1.0"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"format":1,"deltas":[{"digest":"sha256:00"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		rel, err := ParseRelease(b)
		if err != nil {
			return
		}
		text, err := json.Marshal(rel)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseRelease(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	})
}
