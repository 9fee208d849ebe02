// Package lock names the exact inputs of a build: every Debian package by version, size and SHA-256.
package lock

import "allotment/image"

// Lock is the content of a lock file; see docs/formats/lock.md.
type Lock struct {
	Format int                                 `toml:"format"`
	Epoch  int64                               `toml:"epoch"`  // Unix time in seconds of the newest index that it was made from; SOURCE_DATE_EPOCH of builds
	Inputs image.Digest                        `toml:"inputs"` // hash of what was asked for, so that a lock that no longer fits its profile is noticed
	Trees  map[string]map[image.Arch][]Package `toml:"trees"`
}

// Package is one Debian package.
type Package struct {
	Name    string       `toml:"name"`
	Version string       `toml:"version"`
	Arch    string       `toml:"arch"`    // amd64, arm64 or all
	Source  string       `toml:"source"`  // source package, with its version in parentheses if that differs
	Archive string       `toml:"archive"` // main (with updates) or security: which mirror has Path
	Path    string       `toml:"path"`    // below the mirror's root
	Size    int64        `toml:"size"`    // bytes
	SHA256  image.Digest `toml:"sha256"`
}
