// Package trusttest makes small signed repositories for tests: every role and file can be had, changed and broken.
package trusttest

import (
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"allotment/image"
)

// Repo is a repository: the metadata as they are edited, and the files as they are published.
type Repo struct {
	Root      *metadata.Metadata[metadata.RootType]
	Timestamp *metadata.Metadata[metadata.TimestampType]
	Snapshot  *metadata.Metadata[metadata.SnapshotType]
	Targets   map[string]*metadata.Metadata[metadata.TargetsType] // targets and the roles below it
	Keys      map[string][]ed25519.PrivateKey                     // who signs a role
	Files     map[string][]byte                                   // by path, as a web server has them
	t         T
	keys      uint64
}

// T is what is told of mistakes in making a repository: a testing.TB.
type T interface {
	Helper()
	Fatal(...any)
}

// New is a published repository with root 2-of-3, one key for each other role, and the delegated role stable, which all
// expire a year after now.
func New(t T, now time.Time) *Repo {
	expires := now.AddDate(1, 0, 0).UTC().Truncate(time.Second)
	r := &Repo{
		t:         t,
		Root:      metadata.Root(expires),
		Timestamp: metadata.Timestamp(expires),
		Snapshot:  metadata.Snapshot(expires),
		Targets: map[string]*metadata.Metadata[metadata.TargetsType]{
			metadata.TARGETS: metadata.Targets(expires),
			"stable":         metadata.Targets(expires),
		},
		Keys:  map[string][]ed25519.PrivateKey{},
		Files: map[string][]byte{},
	}
	r.Root.Signed.ConsistentSnapshot = true
	for role, n := range map[string]int{metadata.ROOT: 3, metadata.TARGETS: 1, metadata.SNAPSHOT: 1, metadata.TIMESTAMP: 1} {
		for range n {
			r.AddKey(role, r.NewKey())
		}
	}
	r.Root.Signed.Roles[metadata.ROOT].Threshold = 2
	stable := metadata.DelegatedRole{Name: "stable", Threshold: 1, Paths: []string{"stable/*/*/release.json"}}
	r.Delegate(metadata.TARGETS, stable, r.NewKey())
	r.PublishRoot()
	r.PublishTargets(metadata.TARGETS)
	r.PublishTargets("stable")
	r.PublishSnapshot()
	r.PublishTimestamp()
	return r
}

// Check ends the test if err is not nil.
func (r *Repo) Check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// NewKey makes the next key of a fixed sequence.
func (r *Repo) NewKey() ed25519.PrivateKey {
	r.keys++
	seed := sha256.Sum256(binary.BigEndian.AppendUint64(nil, r.keys))
	return ed25519.NewKeyFromSeed(seed[:])
}

func (r *Repo) public(k ed25519.PrivateKey) *metadata.Key {
	key, err := metadata.KeyFromPublicKey(k.Public())
	r.Check(err)
	return key
}

func (r *Repo) id(k ed25519.PrivateKey) string {
	id, err := r.public(k).ID()
	r.Check(err)
	return id
}

// AddKey lets a key sign a top-level role.
func (r *Repo) AddKey(role string, k ed25519.PrivateKey) {
	r.Check(r.Root.Signed.AddKey(r.public(k), role))
	r.Keys[role] = append(r.Keys[role], k)
}

// Rotate replaces all keys of a top-level role by one; for the root role, whose old keys go on signing, by as many.
func (r *Repo) Rotate(role string) {
	old := slices.DeleteFunc(r.Keys[role], func(k ed25519.PrivateKey) bool {
		return !slices.Contains(r.Root.Signed.Roles[role].KeyIDs, r.id(k))
	})
	r.Keys[role] = nil
	for _, k := range old {
		r.Check(r.Root.Signed.RevokeKey(r.id(k), role))
		if role == metadata.ROOT {
			r.AddKey(role, r.NewKey())
		}
	}
	if role == metadata.ROOT {
		r.Keys[role] = append(r.Keys[role], old...)
	} else {
		r.AddKey(role, r.NewKey())
	}
}

// Delegate lets a role of the given keys speak for some of another's targets.
func (r *Repo) Delegate(delegator string, role metadata.DelegatedRole, keys ...ed25519.PrivateKey) {
	t := &r.Targets[delegator].Signed
	if t.Delegations == nil {
		t.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}}
	}
	for _, k := range keys {
		id := r.id(k)
		t.Delegations.Keys[id] = r.public(k)
		role.KeyIDs = append(role.KeyIDs, id)
	}
	t.Delegations.Roles = append(t.Delegations.Roles, role)
	r.Keys[role.Name] = append(r.Keys[role.Name], keys...)
}

// Add gives a targets role a target, with what is signed beside it, and puts its bytes where clients look for them.
func (r *Repo) Add(role, name string, content []byte, custom any) {
	sum := sha256.Sum256(content)
	file := &metadata.TargetFiles{Length: int64(len(content)), Hashes: metadata.Hashes{"sha256": sum[:]}, Path: name}
	if custom != nil {
		b, err := json.Marshal(custom)
		r.Check(err)
		file.Custom = (*json.RawMessage)(&b)
	}
	r.Targets[role].Signed.Targets[name] = file
	dir, base := path.Split(name)
	r.Files[fmt.Sprintf("targets/%s%x.%s", dir, sum, base)] = content
}

// Sign signs m anew with the keys of a role and returns its text.
func Sign[T metadata.Roles](r *Repo, m *metadata.Metadata[T], role string) []byte {
	m.ClearSignatures()
	for _, k := range r.Keys[role] {
		s, err := signature.LoadSigner(k, crypto.Hash(0))
		r.Check(err)
		_, err = m.Sign(s)
		r.Check(err)
	}
	b, err := m.ToBytes(false)
	r.Check(err)
	return b
}

// PublishRoot signs and publishes the root as it is, and begins its next version.
func (r *Repo) PublishRoot() {
	r.Files[fmt.Sprintf("metadata/%d.root.json", r.Root.Signed.Version)] = Sign(r, r.Root, metadata.ROOT)
	r.Root.Signed.Version++
}

// RootFile is the text of a published root.
func (r *Repo) RootFile(version int) []byte {
	return r.Files[fmt.Sprintf("metadata/%d.root.json", version)]
}

// PublishTargets signs and publishes a targets role for the next snapshot, and begins its next version.
func (r *Repo) PublishTargets(role string) {
	m := r.Targets[role]
	b := Sign(r, m, role)
	r.Files[fmt.Sprintf("metadata/%d.%s.json", m.Signed.Version, role)] = b
	r.Snapshot.Signed.Meta[role+".json"] = meta(m.Signed.Version, b)
	m.Signed.Version++
}

// PublishSnapshot signs and publishes the snapshot for the next timestamp, and begins its next version.
func (r *Repo) PublishSnapshot() {
	b := Sign(r, r.Snapshot, metadata.SNAPSHOT)
	r.Files[fmt.Sprintf("metadata/%d.snapshot.json", r.Snapshot.Signed.Version)] = b
	r.Timestamp.Signed.Meta["snapshot.json"] = meta(r.Snapshot.Signed.Version, b)
	r.Snapshot.Signed.Version++
}

// PublishTimestamp signs and publishes the timestamp, and begins its next version.
func (r *Repo) PublishTimestamp() {
	r.Files["metadata/timestamp.json"] = Sign(r, r.Timestamp, metadata.TIMESTAMP)
	r.Timestamp.Signed.Version++
}

// Publish publishes the targets roles that are named, and what follows from them.
func (r *Repo) Publish(roles ...string) {
	for _, role := range roles {
		r.PublishTargets(role)
	}
	r.PublishSnapshot()
	r.PublishTimestamp()
}

func meta(version int64, b []byte) *metadata.MetaFiles {
	sum := sha256.Sum256(b)
	return &metadata.MetaFiles{Version: version, Length: int64(len(b)), Hashes: metadata.Hashes{"sha256": sum[:]}}
}

// Release is a description that fits in every way.
func Release(name string, version image.Version) image.Release {
	digest := func(what string) image.Digest { return image.NewDigest(sha256.Sum256([]byte(what + string(version)))) }
	part := func(what string) image.Part {
		return image.Part{Name: what, Digest: digest(what), Size: 1, Pack: image.Blob{Digest: digest("pack of " + what), Size: 1},
			Index: image.Blob{Digest: digest("index of " + what), Size: 1}}
	}
	layer := part("layer")
	layer.Verity = digest("verity")
	return image.Release{Format: image.ReleaseFormat, Name: name, Version: version, Arch: image.AMD64, Epoch: 1, Trial: image.TrialTime{Seconds: 600},
		RootHash: digest("root hash").Hex(), UKI: part("uki"), Root: part("root"), Layers: []image.Part{layer}}
}

// AddRelease puts a release into the channel stable and publishes it.
func (r *Repo) AddRelease(release image.Release, wave image.Wave) {
	b, err := json.Marshal(release)
	r.Check(err)
	r.Add("stable", path.Join("stable", release.Name, string(release.Arch), "release.json"), b,
		map[string]any{"wave": wave, "withdrawn": false})
	r.Publish("stable")
}
