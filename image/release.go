package image

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
