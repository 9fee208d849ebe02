package release

import (
	"errors"
	"fmt"
	"regexp"

	"allotment/image"
	"allotment/image/verity"
)

// profileName is what profiles may be called.
var profileName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)

// ParseRelease reads the description of a release and checks that a device can work with it.
func ParseRelease(b []byte) (*image.Release, error) {
	var rel image.Release
	if err := decode(b, &rel); err != nil {
		return nil, fmt.Errorf("cannot read the release: %w", err)
	}
	if err := check(&rel); err != nil {
		return nil, fmt.Errorf("cannot use the release: %w", err)
	}
	return &rel, nil
}

func check(rel *image.Release) error {
	switch {
	case rel.Format != image.ReleaseFormat:
		return fmt.Errorf("it has format %d, want %d", rel.Format, image.ReleaseFormat)
	case rel.Name == "" || rel.Version == "" || rel.Arch == "" || rel.Epoch <= 0:
		return errors.New("it lacks name, version, architecture or epoch")
	case !profileName.MatchString(rel.Name):
		return fmt.Errorf("its name %q cannot be part of a path", rel.Name)
	case rel.Trial.Seconds <= 0:
		return errors.New("it gives its trial no time")
	}
	if _, err := verity.ParseRootHash(rel.RootHash); err != nil {
		return err
	}
	for _, p := range partsOf(rel) {
		if p.Digest == "" || p.Size <= 0 {
			return fmt.Errorf("part %q has no digest or no size", p.Name)
		}
	}
	for _, l := range rel.Layers {
		if l.Verity == "" {
			return fmt.Errorf("layer %q has no fs-verity digest", l.Name)
		}
	}
	for _, b := range Blobs(rel) {
		if b.Digest == "" || b.Size <= 0 {
			return errors.New("a blob has no digest or no size")
		}
	}
	for _, d := range rel.Deltas {
		if d.From == "" || d.From.Compare(rel.Version) >= 0 {
			return fmt.Errorf("a delta starts from %q, which is not before %s", d.From, rel.Version)
		}
	}
	return nil
}

// partsOf lists the parts of a release: UKI, root, layers.
func partsOf(rel *image.Release) []image.Part {
	return append([]image.Part{rel.UKI, rel.Root}, rel.Layers...)
}

// Blobs lists the blobs that a release names, each once.
func Blobs(rel *image.Release) []image.Blob {
	var blobs []image.Blob
	known := map[image.Digest]bool{}
	add := func(b image.Blob) {
		if !known[b.Digest] {
			known[b.Digest] = true
			blobs = append(blobs, b)
		}
	}
	for _, p := range partsOf(rel) {
		add(p.Pack)
		add(p.Index)
	}
	for _, d := range rel.Deltas {
		add(d)
	}
	return blobs
}

// blobName is the name of a blob in a store.
func blobName(d image.Digest) string { return "blobs/" + d.Hex() }

// The bounds of a trial's time, in seconds.
const (
	shortestTrial = 10 * 60
	longestTrial  = 2 * 60 * 60
)

// trialTime is how long a trial of m may take: as long as all migrations and all services one after the other.
func trialTime(m *image.Manifest) image.TrialTime {
	const migration, ready = 300, 60 // what 0 means: image.Task and image.Check
	orElse := func(seconds, usual int) int {
		if seconds == 0 {
			return usual
		}
		return seconds
	}
	total := 0
	for _, mod := range m.Modules {
		for _, mi := range mod.Migrations {
			total += orElse(mi.Timeout, migration)
		}
		for _, s := range mod.Services {
			if s.Ready != nil {
				total += orElse(s.Ready.Timeout, ready)
			}
		}
	}
	return image.TrialTime{Seconds: min(max(total, shortestTrial), longestTrial)}
}
