package release

import (
	"fmt"

	"allotment/image"
)

// ParseRelease reads the description of a release and checks that a device can work with it.
func ParseRelease(b []byte) (*image.Release, error) {
	var rel image.Release
	if err := decode(b, &rel); err != nil {
		return nil, fmt.Errorf("cannot read the release: %w", err)
	}
	if err := rel.Check(); err != nil {
		return nil, fmt.Errorf("cannot use the release: %w", err)
	}
	return &rel, nil
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
	for _, p := range rel.Parts() {
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
