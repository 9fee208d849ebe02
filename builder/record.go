package builder

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"allotment/builder/tools"
	"allotment/image"
	"allotment/image/disk"
	"allotment/internal/cache"
)

// Result is what a build made, or found made already.
type Result struct {
	Base    string   // path of the images without their suffixes
	Outputs []Output // images first, then sums, packages and record
	Fresh   bool     // false: nothing had changed since the last build

	Warnings []string // of the trees that were made, such as patterns that fit nothing
}

// Output is one finished file.
type Output struct {
	Path   string       `json:"path"`
	Size   int64        `json:"size"` // bytes
	Digest image.Digest `json:"digest"`
	MTime  int64        `json:"mtime"` // nanoseconds since 1970
}

// Image returns the path of the image with the given suffix, such as qcow2.
func (r *Result) Image(suffix string) (string, error) {
	want := r.Base + "." + suffix
	for _, o := range r.Outputs {
		if o.Path == want {
			return want, nil
		}
	}
	return "", fmt.Errorf("cannot find %q: the profile does not name %s among its outputs", want, suffix)
}

// Text lists the outputs for a person.
func (r *Result) Text() string {
	var s strings.Builder
	if !r.Fresh {
		fmt.Fprintf(&s, "nothing has changed since the last build\n")
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(&s, "warning: %s\n", w)
	}
	for _, o := range r.Outputs {
		fmt.Fprintf(&s, "%9.1f MB  %s  %s\n", float64(o.Size)/1e6, o.Digest.Short(), o.Path)
	}
	return s.String()
}

// builderCode is the code that makes an image of its parts.
var builderCode = []string{"builder", "image", "internal/run", "internal/cache"}

// inputsKey hashes all that a build depends on.
func (b *build) inputsKey() (string, error) {
	var err error
	if b.code, err = b.Source.Key(append(builderCode, deviceCode...)...); err != nil {
		return "", err
	}
	parts := []any{b.code, b.toolsID, b.goVersion, b.Arch, b.Lock, b.keys.DB.Cert.Raw, b.keys.Auth, b.base(), b.Profile.Outputs,
		b.Profile.Kernel, b.Profile.Disk, b.Profile.Network, b.Profile.Time, b.Profile.Title,
		b.Profile.Organisation, b.Profile.Settings, b.Profile.Developer, b.Profile.Update}
	for _, spec := range b.Profile.Modules {
		chain, err := b.Profile.Chain(&spec.Tree)
		if err != nil {
			return "", err
		}
		key, err := b.treeKey(chain)
		if err != nil {
			return "", err
		}
		parts = append(parts, spec.Module, key)
	}
	rootChain, err := b.Profile.Chain(b.Profile.Trees[rootTree])
	if err != nil {
		return "", err
	}
	key, err := b.treeKey(rootChain)
	return cache.Key(append(parts, key)...), err
}

// upToDate returns what the last build with the same inputs made, if it is all still there as it was.
func (b *build) upToDate() (*Result, bool) {
	text, err := os.ReadFile(b.Cache.Path("done", b.key))
	if err != nil {
		return nil, false
	}
	r := &Result{Base: b.base()}
	if err := json.Unmarshal(text, &r.Outputs); err != nil {
		return nil, false
	}
	for _, o := range r.Outputs {
		st, err := os.Stat(o.Path)
		if err != nil || st.Size() != o.Size || st.ModTime().UnixNano() != o.MTime {
			return nil, false
		}
	}
	return r, len(r.Outputs) > 0
}

// remember notes the finished outputs for upToDate.
func (b *build) remember(ctx context.Context, outputs []Output) error {
	text, err := json.Marshal(outputs)
	if err != nil {
		return err
	}
	os.Remove(b.Cache.Path("done", b.key)) // of a build whose outputs were since removed
	_, err = b.Cache.Make(ctx, "done", b.key, func(tmp string) error { return os.WriteFile(tmp, text, 0o644) })
	return err
}

// base is the path of the images without their suffixes.
func (b *build) base() string {
	return filepath.Join(b.Out, fmt.Sprintf("allotment-%s-%s-%s", b.Profile.Name, b.Profile.Version, b.Arch))
}

// record is the build record: what went in and what came out. It names no path, user or time of the host, so that it is
// the same wherever the build is repeated.
type record struct {
	Format   int            `json:"format"`
	Profile  string         `json:"profile"`
	Version  image.Version  `json:"version"`
	Arch     image.Arch     `json:"arch"`
	Epoch    int64          `json:"epoch"`
	Lock     image.Digest   `json:"lock"` // of the lock's canonical text
	Go       string         `json:"go"`
	Code     string         `json:"code"`  // SHA-256 over the source code of builder and device
	Tools    []string       `json:"tools"` // packages of the tool root
	DBCert   image.Digest   `json:"db-certificate"`
	RootHash string         `json:"roothash"`
	UKI      image.Digest   `json:"uki"`
	Layers   []recordLayer  `json:"layers"`
	Outputs  []recordOutput `json:"outputs"`
}

type recordLayer struct {
	image.Layer
	OCI image.Digest `json:"oci"` // of the layer's uncompressed tar file (OCI diff id)
}

type recordOutput struct {
	Name   string       `json:"name"`
	Size   int64        `json:"size"`
	Digest image.Digest `json:"digest"`
}

// record gathers the build record.
func (b *build) record(p *parts, outputs []Output) (*record, error) {
	rec := &record{
		Format: 1, Profile: b.Profile.Name, Version: b.Profile.Version, Arch: b.Arch, Epoch: b.epoch,
		Lock: image.NewDigest(sha256.Sum256(b.Lock.Encode())), Go: b.goVersion, Code: b.code,
		DBCert: image.NewDigest(sha256.Sum256(b.keys.DB.Cert.Raw)), RootHash: p.root.hash.String(),
		UKI: image.NewDigest(sha256.Sum256(p.boot.uki)), Tools: []string{}, Layers: []recordLayer{},
	}
	toolLock, err := tools.Lock()
	if err != nil {
		return nil, err
	}
	for _, tool := range toolLock.All(image.Arch(runtime.GOARCH), "tools") {
		rec.Tools = append(rec.Tools, tool.String())
	}
	for _, l := range p.layers {
		oci, err := fileDigest(l.Tar)
		if err != nil {
			return nil, err
		}
		rec.Layers = append(rec.Layers, recordLayer{l.Layer, oci})
	}
	for _, o := range outputs {
		rec.Outputs = append(rec.Outputs, recordOutput{filepath.Base(o.Path), o.Size, o.Digest})
	}
	return rec, nil
}

// fileDigest hashes a file, of which a disk image may be holes for the most part.
func fileDigest(path string) (image.Digest, error) {
	f, err := disk.OpenPlain(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := f.WriteTo(h); err != nil {
		return "", err
	}
	return image.NewDigest([sha256.Size]byte(h.Sum(nil))), nil
}
