// Package installtest is a machine to install releases on: a state partition on btrfs and the partitions of both slots on block
// devices, of which slot A runs version 1.0; and a folder with what releases consist of.
package installtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"allotment/image"
	"allotment/image/delta"
	"allotment/image/layer"
	"allotment/image/verity"
	"allotment/init/state/btrfs"
	"allotment/init/state/btrfs/btrfstest"
	"allotment/updater/attempt"
	"allotment/updater/fetch"
	"allotment/updater/install"
)

// Noise is n bytes that cannot be compressed, always the same for a seed.
func Noise(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// Content is the parts of a release.
type Content struct {
	UKI, Root []byte
	Layers    map[string][]byte
}

// edit changes a few bytes and moves the rest by a block.
func edit(b []byte, seed byte) []byte {
	return slices.Concat(b[:64<<10], Noise(seed, 4096), b[64<<10:])
}

// OldContent is that of version 1.0.
func OldContent() Content {
	return Content{Noise(1, 300<<10), Noise(2, 2<<20), map[string][]byte{"base": Noise(3, 1<<20), "web": Noise(4, 512<<10)}}
}

// NewContent changes all of OldContent but layer web, and adds a layer. For each seed it is another one.
func NewContent(seed byte) Content {
	old := OldContent()
	return Content{edit(old.UKI, 11+seed), edit(old.Root, 12+seed),
		map[string][]byte{"base": edit(old.Layers["base"], 13+seed), "web": old.Layers["web"], "chat": Noise(5, 256<<10)}}
}

// Box is a machine whose slot A runs OldContent.
type Box struct {
	install.Config
	Dir        string            // with the blobs of what is published
	Disks      string            // with the files that are its disks
	Partitions map[string]string // devices by their names
	ESP        *ESP
}

// ESP stands for what the boot loader reads, which package slot writes and tests.
type ESP struct {
	Placed  map[image.Version][]byte
	Entries []image.Version
}

// Versions implements install.Boot.
func (e *ESP) Versions() ([]image.Version, error) { return slices.Clone(e.Entries), nil }

// Close implements install.Boot.
func (e *ESP) Close() error { return nil }

// Place implements install.Boot.
func (e *ESP) Place(v image.Version, uki string) (err error) {
	e.Placed[v], err = os.ReadFile(uki)
	return err
}

// UKI implements install.Boot.
func (e *ESP) UKI(v image.Version) (io.Reader, error) {
	if !slices.Contains(e.Entries, v) {
		return nil, fs.ErrNotExist
	}
	return strings.NewReader("UKI of " + string(v)), nil
}

// Drop implements install.Boot.
func (e *ESP) Drop(v image.Version) error {
	delete(e.Placed, v)
	e.Entries = slices.DeleteFunc(e.Entries, func(o image.Version) bool { return o == v })
	return nil
}

// CheckVerity does in this program what the kernel does on a device: this kernel may not have fs-verity.
func CheckVerity(path string, d image.Digest) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return layer.Verify(path, image.Layer{Name: filepath.Base(path), Digest: d, Size: info.Size()})
}

// Run runs the body with a box, whose state is a btrfs and whose partitions are block devices.
func Run(t *testing.T, body func(b *Box)) {
	t.Helper()
	b := &Box{Dir: t.TempDir(), Disks: t.TempDir(), ESP: &ESP{map[image.Version][]byte{}, []image.Version{"1.0", "0.9"}}}
	b.Config = install.Config{Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Verity: CheckVerity,
		Manifest: &image.Manifest{Name: "test", Version: "1.0", Arch: image.AMD64, Epoch: 100},
		Running:  attempt.System{Version: "1.0", Slot: image.SlotA},
	}
	if err := errors.Join(os.Rename(btrfstest.Make(t), filepath.Join(b.Disks, "state")), b.makeSlots()); err != nil {
		t.Fatal(err)
	}
	b.Use(t, func() {
		if err := b.fill(); err != nil {
			t.Error(err)
			return
		}
		body(b)
	})
}

// Use runs the body while the box's disks are attached.
func (b *Box) Use(t *testing.T, body func()) {
	t.Helper()
	b.State, b.Partitions = t.TempDir(), map[string]string{}
	b.Boot = func() (install.Boot, error) { return b.ESP, nil }
	b.Partition = func(name string) (string, error) { return b.Partitions[name], nil }
	btrfstest.Run(t, filepath.Join(b.Disks, "state"), b.State, func() {
		for _, name := range slots {
			loop, err := btrfstest.Attach(filepath.Join(b.Disks, name))
			if err != nil {
				t.Error(err)
				return
			}
			defer loop.Close()
			b.Partitions[name] = loop.Name()
		}
		body()
	})
}

// slots are the names of the slots' partitions.
var slots = []string{"root-a", "verity-a", "root-b", "verity-b"}

// Cut returns the box as it would be if its power were cut now: with what its disks were given, and not what is in memory.
func (b *Box) Cut(t *testing.T) *Box {
	t.Helper()
	next := *b
	next.Disks = t.TempDir()
	next.ESP = &ESP{maps.Clone(b.ESP.Placed), slices.Clone(b.ESP.Entries)}
	for _, name := range append([]string{"state"}, slots...) {
		if err := btrfstest.Copy(filepath.Join(b.Disks, name), filepath.Join(next.Disks, name)); err != nil {
			t.Error(err)
		}
	}
	return &next
}

// makeSlots writes version 1.0 into slot A and version 0.9 into slot B.
func (b *Box) makeSlots() error {
	old := OldContent()
	older := Noise(90, 1<<20)
	var hash, olderHash bytes.Buffer
	root, err := verity.Format(bytes.NewReader(old.Root), int64(len(old.Root)), &hash)
	b.Running.RootHash = root
	_, e := verity.Format(bytes.NewReader(older), int64(len(older)), &olderHash)
	err = errors.Join(err, e)
	for i, text := range [][]byte{old.Root, hash.Bytes(), older, olderHash.Bytes()} {
		file := filepath.Join(b.Disks, slots[i])
		err = errors.Join(err, os.WriteFile(file, text, 0o600), os.Truncate(file, 4<<20))
	}
	return err
}

// fill writes what version 1.0 has on the state partition.
func (b *Box) fill() error {
	old := OldContent()
	err := errors.Join(os.MkdirAll(filepath.Join(b.State, "layers"), 0o755),
		os.MkdirAll(filepath.Join(install.Dir(b.State), "boot"), 0o755), os.Mkdir(filepath.Join(b.Dir, "blobs"), 0o755),
		os.WriteFile(install.UKI(b.State, "1.0"), old.UKI, 0o444))
	for _, name := range slices.Sorted(maps.Keys(old.Layers)) {
		d, size, e := layer.Digest(bytes.NewReader(old.Layers[name]))
		b.Manifest.Layers = append(b.Manifest.Layers, image.Layer{Name: name, Digest: d, Size: size})
		err = errors.Join(err, e, os.WriteFile(b.LayerPath(d), old.Layers[name], 0o444), btrfs.SetImmutable(b.LayerPath(d), true))
	}
	return errors.Join(err, btrfs.Sync(b.State))
}

// LayerPath is where a layer lies.
func (b *Box) LayerPath(d image.Digest) string {
	return filepath.Join(b.State, "layers", layer.FileName(d))
}

// Blob puts bytes into the folder.
func (b *Box) Blob(data []byte) (image.Blob, error) {
	d := image.NewDigest(sha256.Sum256(data))
	return image.Blob{Digest: d, Size: int64(len(data))}, os.WriteFile(filepath.Join(b.Dir, "blobs", d.Hex()), data, 0o644)
}

func (b *Box) part(name string, data []byte) (image.Part, error) {
	p := image.Part{Name: name, Digest: image.NewDigest(sha256.Sum256(data)), Size: int64(len(data))}
	var pack, index bytes.Buffer
	x, err := delta.Pack(context.Background(), &pack, bytes.NewReader(data), p.Size, 1)
	if err == nil {
		err = x.Write(&index)
	}
	var e1, e2 error
	p.Pack, e1 = b.Blob(pack.Bytes())
	p.Index, e2 = b.Blob(index.Bytes())
	return p, errors.Join(err, e1, e2)
}

// Publish makes a release of content, with a delta from version 1.0 if that is wanted, and puts its blobs into the folder.
func (b *Box) Publish(t *testing.T, v image.Version, c Content, withDelta bool) image.Release {
	t.Helper()
	r := image.Release{Format: image.ReleaseFormat, Name: "test", Version: v, Arch: image.AMD64, Epoch: 200,
		Trial: image.TrialTime{Seconds: 600}}
	var hash bytes.Buffer
	root, err := verity.Format(bytes.NewReader(c.Root), int64(len(c.Root)), &hash)
	r.RootHash = root.String()
	var e1, e2 error
	r.UKI, e1 = b.part("uki", c.UKI)
	r.Root, e2 = b.part("root", c.Root)
	err = errors.Join(err, e1, e2)
	for _, name := range slices.Sorted(maps.Keys(c.Layers)) {
		p, e := b.part(name, c.Layers[name])
		var e2 error
		p.Verity, _, e2 = layer.Digest(bytes.NewReader(c.Layers[name]))
		r.Layers = append(r.Layers, p)
		err = errors.Join(err, e, e2)
	}
	if withDelta {
		d, e := b.Blob(MakeDelta(t, OldContent(), c))
		d.From = "1.0"
		r.Deltas = []image.Blob{{Digest: d.Digest, Size: d.Size, From: "0.8"}, d}
		err = errors.Join(err, e)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// MakeDelta leads from old to what edit made of it, and gives what else is new as it is.
func MakeDelta(t *testing.T, old, next Content) []byte {
	t.Helper()
	file := func(name string, data []byte) delta.File {
		return delta.File{Name: name, Digest: image.NewDigest(sha256.Sum256(data)), Size: int64(len(data))}
	}
	h := delta.Header{Sources: []delta.File{file("uki", old.UKI), file("root", old.Root), file("base", old.Layers["base"])},
		Outputs: []delta.File{file("uki", next.UKI), file("root", next.Root), file("base", next.Layers["base"]),
			file("chat", next.Layers["chat"])}}
	var out bytes.Buffer
	w, err := delta.NewWriter(&out, h)
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(nil, zstd.WithSingleSegment(true))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for i, data := range [][]byte{next.UKI, next.Root, next.Layers["base"]} {
		rest := int64(len(data)) - 68<<10
		err = errors.Join(err, w.Copy(delta.Range{File: i, Size: 64 << 10}),
			w.Data(4096, z.EncodeAll(data[64<<10:68<<10], nil)),
			w.Copy(delta.Range{File: i, Offset: 64 << 10, Size: rest}))
	}
	err = errors.Join(err, w.Data(int64(len(next.Layers["chat"])), z.EncodeAll(next.Layers["chat"], nil)))
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Stage installs a release from the folder.
func (b *Box) Stage(r image.Release) (attempt.System, error) {
	return install.Stage(context.Background(), b.Config, r, fetch.Dir(b.Dir), nil)
}

// WantStaged checks that the release is where a start would find it.
func (b *Box) WantStaged(t *testing.T, to attempt.System, r image.Release, c Content) {
	t.Helper()
	if to.Version != r.Version || to.Slot != image.SlotB || to.RootHash.String() != r.RootHash {
		t.Errorf("staged %+v", to)
	}
	root, e1 := os.Open(b.Partitions["root-b"])
	hash, e2 := os.Open(b.Partitions["verity-b"])
	if err := errors.Join(e1, e2); err != nil {
		t.Error(err)
		return
	}
	defer root.Close()
	defer hash.Close()
	if err := verity.Verify(root, hash, to.RootHash); err != nil {
		t.Error(err)
	}
	for _, l := range r.Layers {
		if err := CheckVerity(b.LayerPath(l.Verity), l.Verity); err != nil {
			t.Error(err)
		}
		if err := os.Remove(b.LayerPath(l.Verity)); err == nil {
			t.Errorf("layer %s can be removed", l.Name)
		}
	}
	uki, err := os.ReadFile(install.UKI(b.State, r.Version))
	if err != nil || !bytes.Equal(uki, c.UKI) || !bytes.Equal(b.ESP.Placed[r.Version], c.UKI) {
		t.Errorf("the UKI differs, %v", err)
	}
	if len(b.ESP.Entries) != 1 || b.ESP.Entries[0] != "1.0" {
		t.Errorf("entries are %q", b.ESP.Entries)
	}
	if got, err := install.NeedsOf(b.State, r.Version); err != nil || got.RootHash != to.RootHash || len(got.Layers) != len(r.Layers) {
		t.Errorf("it needs %+v, %v", got, err)
	}
	b.WantNothingLeft(t)
	b.WantRunningWhole(t)
}

// WantNothingLeft checks that no downloads and no half files are left.
func (b *Box) WantNothingLeft(t *testing.T) {
	t.Helper()
	for _, pattern := range []string{"update/fetch/*", "layers/*.new", "update/boot/*.new"} {
		if left, err := filepath.Glob(filepath.Join(b.State, pattern)); err != nil || len(left) > 0 {
			t.Errorf("left are %q, %v", left, err)
		}
	}
}

// WantRunningWhole checks that what runs is as it was.
func (b *Box) WantRunningWhole(t *testing.T) {
	t.Helper()
	root, e1 := os.Open(b.Partitions["root-a"])
	hash, e2 := os.Open(b.Partitions["verity-a"])
	if err := errors.Join(e1, e2); err != nil {
		t.Error(err)
		return
	}
	defer root.Close()
	defer hash.Close()
	if err := verity.Verify(root, hash, b.Running.RootHash); err != nil {
		t.Error(err)
	}
	for _, l := range b.Manifest.Layers {
		if err := CheckVerity(b.LayerPath(l.Digest), l.Digest); err != nil {
			t.Error(err)
		}
	}
}

// WantNoSystem checks that slot B is not one.
func (b *Box) WantNoSystem(t *testing.T) {
	t.Helper()
	f, err := os.Open(b.Partitions["verity-b"])
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	if super, err := verity.ReadSuperblock(f); !errors.Is(err, verity.ErrNoSuperblock) {
		t.Errorf("slot B has superblock %v, %v", super.UUID, err)
	}
	if len(b.ESP.Placed) > 0 {
		t.Errorf("boot files of %v are placed", slices.Collect(maps.Keys(b.ESP.Placed)))
	}
	b.WantRunningWhole(t)
}
