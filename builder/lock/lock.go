// Package lock names the exact inputs of a build: every Debian package by version, size and SHA-256.
package lock

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"allotment/builder/apt"
	"allotment/builder/profile"
	"allotment/image"
)

// Lock is the content of a lock file; see docs/formats/lock.md.
type Lock struct {
	Format int `toml:"format"`

	// Epoch is the Unix time in seconds of the newest index that the lock was made from: every time stamp of a build.
	Epoch int64 `toml:"epoch"`

	// Inputs is the hash of what was asked for, so that a lock that no longer fits its profile is noticed.
	Inputs image.Digest `toml:"inputs"`

	Trees map[string]map[image.Arch][]Package `toml:"trees"`
}

// Package is one Debian package.
type Package = apt.Package

// ErrOutdated is what Check's error wraps when a lock no longer fits its profile.
var ErrOutdated = errors.New("the lock no longer fits")

// Check tells when the lock was made for something else than the trees and architectures that the profile has now.
func (l *Lock) Check(p *profile.Profile) error {
	if l.Inputs != InputsOf(p.Trees, p.Archs) {
		return fmt.Errorf("cannot use the lock of %q: %w: its packages or architectures have changed; "+
			"make it anew with: allot lock %s", p.Name, ErrOutdated, p.Name)
	}
	return nil
}

// All returns every package of the named trees for arch once, sorted by name; of every tree if none is named.
func (l *Lock) All(arch image.Arch, trees ...string) []Package {
	if len(trees) == 0 {
		trees = slices.Sorted(maps.Keys(l.Trees))
	}
	var all []Package
	for _, t := range trees {
		all = append(all, l.Trees[t][arch]...)
	}
	slices.SortFunc(all, compare)
	return slices.CompactFunc(all, func(a, b Package) bool { return a.SHA256 == b.SHA256 })
}

// InputsOf hashes what decides the content of a lock: for each tree what it asks for, and the architectures.
func InputsOf(trees map[string]*profile.Tree, archs []image.Arch) image.Digest {
	type wish struct {
		Name, Base                      string
		Packages, AMD64, ARM64, Without []string
		NPM                             []string `json:",omitempty"`
	}
	wishes := []wish{}
	for _, name := range slices.Sorted(maps.Keys(trees)) {
		t := trees[name]
		wishes = append(wishes, wish{name, t.Base, set(t.Packages), set(t.PackagesAMD64), set(t.PackagesARM64), set(t.Without), t.NPM})
	}
	b, err := json.Marshal(map[string]any{"suites": apt.Suites(), "archs": set(archs), "trees": wishes})
	if err != nil {
		panic("lock: " + err.Error()) // strings alone
	}
	return image.NewDigest(sha256.Sum256(b))
}

// set is the different elements of s in order.
func set[S ~string](s []S) []S {
	c := append([]S{}, s...)
	slices.Sort(c)
	return slices.Compact(c)
}
