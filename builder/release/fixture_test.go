package release

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"allotment/image"
	"allotment/internal/progress"
)

// start is when the tests' repositories are made.
var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// memory is Keys without files, which cost time: each key follows from its name.
type memory struct {
	keys map[string]ed25519.PrivateKey
	lost map[string]bool
}

func newMemory() *memory { return &memory{map[string]ed25519.PrivateKey{}, map[string]bool{}} }

func (m *memory) Public(name string) (crypto.PublicKey, error) {
	if k, ok := m.keys[name]; ok {
		return k.Public(), nil
	}
	return nil, fs.ErrNotExist
}

func (m *memory) New(name string) (crypto.PublicKey, error) {
	seed := sha256.Sum256([]byte(name))
	m.keys[name] = ed25519.NewKeyFromSeed(seed[:])
	return m.keys[name].Public(), nil
}

func (m *memory) Next(role string) (string, error) {
	for n := 1; ; n++ {
		if _, ok := m.keys[keyName(role, n)]; !ok {
			return keyName(role, n), nil
		}
	}
}

func (m *memory) Signer(_ context.Context, public crypto.PublicKey) (crypto.Signer, error) {
	for name, k := range m.keys {
		if k.Public().(ed25519.PublicKey).Equal(public) && !m.lost[name] {
			return k, nil
		}
	}
	return nil, errNoKey
}

// box is a repository in a folder of its own, and what works on it.
type box struct {
	Options
	keys *memory
}

func newBox(t testing.TB) *box {
	t.Helper()
	keys := newMemory()
	b := &box{Options{Dir: filepath.Join(t.TempDir(), "repo"), Keys: keys, Now: start, Progress: progress.Silent{}}, keys}
	if err := Init(t.Context(), b.Options); err != nil {
		t.Fatal(err)
	}
	return b
}

// do opens the repository for one piece of work.
func (b *box) do(t testing.TB, work func(*Repository) error) error {
	t.Helper()
	r, err := Open(t.Context(), b.Options)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return work(r)
}

// must is do that cannot fail.
func (b *box) must(t testing.TB, work func(*Repository) error) {
	t.Helper()
	if err := b.do(t, work); err != nil {
		t.Fatal(err)
	}
}

// blob puts content into the repository.
func (b *box) blob(t testing.TB, content string) image.Blob {
	t.Helper()
	blob, err := newFolder(b.Dir).write(t.Context(), blobName, func(w io.Writer) error {
		_, err := io.WriteString(w, content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

// describe makes a small release whose packs are the parts themselves.
func (b *box) describe(t testing.TB, name string, v image.Version) *image.Release {
	t.Helper()
	part := func(part string, content string) image.Part {
		blob := b.blob(t, content)
		return image.Part{Name: part, Digest: blob.Digest, Size: blob.Size, Pack: blob, Index: b.blob(t, "index of "+content)}
	}
	layer := part("debian-base", "a layer that does not change")
	layer.Verity = image.NewDigest(sha256.Sum256([]byte("verity")))
	return &image.Release{
		Format: image.ReleaseFormat, Name: name, Title: "Test", Version: v, Arch: image.AMD64, Epoch: start.Unix(),
		RootHash: fmt.Sprintf("%x", sha256.Sum256([]byte(v))),
		UKI:      part("uki", "uki "+string(v)), Root: part("root", "root "+string(v)), Layers: []image.Part{layer},
		Trial: image.TrialTime{Seconds: 600},
	}
}

// add makes a release and puts it into candidate.
func (b *box) add(t testing.TB, name string, v image.Version) error {
	t.Helper()
	rel := b.describe(t, name, v)
	return b.do(t, func(r *Repository) error {
		_, err := r.place(t.Context(), rel, image.Wave{Start: start.Unix(), Kind: "default"})
		return err
	})
}

// verify is what a device is offered, as CHANNEL/NAME VERSION.
func (b *box) verify(t testing.TB, now time.Time) ([]string, error) {
	t.Helper()
	return offers(t, b.Dir, now)
}

func offers(t testing.TB, dir string, now time.Time) ([]string, error) {
	t.Helper()
	targets, err := Verify(t.Context(), dir, now, progress.Silent{})
	if err != nil {
		return nil, err
	}
	var got []string
	for _, target := range targets {
		rel, err := readRelease(t.Context(), newFolder(dir), target)
		if err != nil {
			t.Fatal(err)
		}
		line := target.Channel + "/" + target.Name + " " + string(rel.Version)
		if target.Withdrawn {
			line += " withdrawn"
		}
		got = append(got, line)
	}
	return got, nil
}

// flip changes one byte of a file.
func flip(t testing.TB, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// replace changes text in a file, which must have it.
func replace(t testing.TB, path, old, text string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(b, []byte(old), []byte(text), 1)
	if bytes.Equal(changed, b) {
		t.Fatalf("%s has no %q", path, old)
	}
	if err := os.WriteFile(path, changed, 0o644); err != nil {
		t.Fatal(err)
	}
}
