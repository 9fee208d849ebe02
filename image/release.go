package image

import (
	"errors"
	"fmt"
	"regexp"

	"allotment/image/verity"
)

// ReleaseFormat is the value of Release.Format that this code reads and writes.
const ReleaseFormat = 1

// Release names one version of the whole system by digest: what a device fetches, and how. It is a target of the update
// repository, so it is as trusted as the keys that signed that. See docs/formats/release.md.
type Release struct {
	Format   int       `json:"format"`
	Name     string    `json:"name"` // of the profile
	Title    string    `json:"title"`
	Version  Version   `json:"version"`
	Arch     Arch      `json:"arch"`
	Epoch    int64     `json:"epoch"`           // Unix time in seconds of the newest input, as in Manifest
	Notes    string    `json:"notes,omitempty"` // for the officers, plain text
	RootHash string    `json:"roothash"`        // of Root's dm-verity tree, which the device computes; also in the UKI
	UKI      Part      `json:"uki"`             // holds kernel and initrd, which BIOS machines start without it
	Root     Part      `json:"root"`            // EROFS
	Layers   []Part    `json:"layers"`          // in the order of Manifest.Layers
	Deltas   []Blob    `json:"deltas,omitempty"`
	Trial    TrialTime `json:"trial"`
}

// releaseName is what profiles may be called, which is a part of paths.
var releaseName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)

// Check refuses a description that no device could work with: one that lacks something, or names no bytes.
func (r *Release) Check() error {
	switch {
	case r.Format != ReleaseFormat:
		return fmt.Errorf("it has format %d, want %d", r.Format, ReleaseFormat)
	case r.Name == "" || r.Version == "" || r.Arch == "" || r.Epoch <= 0 || len(r.Layers) == 0:
		return errors.New("it lacks name, version, architecture, epoch or layers")
	case !releaseName.MatchString(r.Name):
		return fmt.Errorf("its name %q cannot be part of a path", r.Name)
	case r.Trial.Seconds <= 0:
		return errors.New("it gives its trial no time")
	}
	if _, err := verity.ParseRootHash(r.RootHash); err != nil {
		return err
	}
	for _, p := range r.Parts() {
		if p.Digest == "" || p.Size <= 0 {
			return fmt.Errorf("part %q has no digest or no size", p.Name)
		}
		for _, b := range []Blob{p.Pack, p.Index} {
			if b.Digest == "" || b.Size <= 0 {
				return fmt.Errorf("the pack of part %q, or the index of that, has no digest or no size", p.Name)
			}
		}
	}
	for _, l := range r.Layers {
		if l.Verity == "" {
			return fmt.Errorf("layer %q has no fs-verity digest", l.Name)
		}
	}
	for _, d := range r.Deltas {
		switch {
		case d.Digest == "" || d.Size <= 0:
			return fmt.Errorf("the delta from %s has no digest or no size", d.From)
		case d.From == "" || d.From.Compare(r.Version) >= 0:
			return fmt.Errorf("a delta starts from %q, which is not before %s", d.From, r.Version)
		}
	}
	return nil
}

// Parts are all files of the release: the UKI, the root, and the layers in their order.
func (r *Release) Parts() []Part { return append([]Part{r.UKI, r.Root}, r.Layers...) }

// Part is one file of a release, whole, as the device keeps it.
type Part struct {
	Name   string `json:"name"`             // for people: uki, root, or the layer's
	Digest Digest `json:"digest"`           // SHA-256 of the bytes
	Size   int64  `json:"size"`             // bytes
	Verity Digest `json:"verity,omitempty"` // of a layer: its fs-verity digest, by which the store names it
	Pack   Blob   `json:"pack"`             // from which any device can make the part, see docs/formats/delta.md
	Index  Blob   `json:"index"`            // of Pack: hashes of its extents, so that ranges of it can be checked
}

// Blob is a file that any web server can give.
type Blob struct {
	Digest Digest  `json:"digest"` // SHA-256; also the file's name
	Size   int64   `json:"size"`
	From   Version `json:"from,omitempty"` // of a delta: the release that it starts from
}

// TrialTime says how long a trial may take.
type TrialTime struct {
	Seconds int `json:"seconds"` // from the start of the supervisor until the commit; the sum of what the modules declare
}

// Update says where a device's updates come from. It lies in the manifest, so in the verified root.
type Update struct {
	URLs    []string `toml:"urls" json:"urls,omitempty"` // of the repository and its mirrors; empty: no updates by the network
	Channel string   `toml:"-" json:"channel,omitempty"` // stable or candidate: that of the profile
	Root    string   `toml:"root" json:"root,omitempty"` // TUF root metadata: in a profile the name of its file, elsewhere its text
}

// Wave says when which share of the devices may take a release. It is part of the signed metadata.
type Wave struct {
	Start int64  `json:"start"` // Unix time in seconds
	Hours int    `json:"hours"` // until every device may
	Kind  string `json:"kind"`  // default, fast, or emergency, which does not wait for the maintenance window
}
