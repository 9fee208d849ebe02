package install

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
)

// noise is n bytes that cannot be compressed, always the same for a seed.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// content is the parts of a release.
type content struct {
	uki, root []byte
	layers    map[string][]byte
}

// edit changes a few bytes and moves the rest by a block.
func edit(b []byte, seed byte) []byte {
	return slices.Concat(b[:64<<10], noise(seed, 4096), b[64<<10:])
}

func oldContent() content {
	return content{noise(1, 300<<10), noise(2, 2<<20), map[string][]byte{"base": noise(3, 1<<20), "web": noise(4, 512<<10)}}
}

// newContent changes all but layer web, and adds one.
func newContent() content {
	old := oldContent()
	return content{edit(old.uki, 11), edit(old.root, 12),
		map[string][]byte{"base": edit(old.layers["base"], 13), "web": old.layers["web"], "chat": noise(5, 256<<10)}}
}

// box is a machine whose slot A runs the old content.
type box struct {
	Config
	dir        string // of the repository
	partitions map[string]string
	boot       *bootFiles
	devices    []*os.File
}

// bootFiles stands for the ESP, which package slot writes and tests.
type bootFiles struct {
	placed  map[image.Version][]byte
	entries []image.Version
	fail    error
}

func (b *bootFiles) Versions() ([]image.Version, error) { return slices.Clone(b.entries), b.fail }
func (b *bootFiles) Close() error                       { return nil }

func (b *bootFiles) Place(v image.Version, uki string) (err error) {
	b.placed[v], err = os.ReadFile(uki)
	return err
}

func (b *bootFiles) UKI(v image.Version) (io.Reader, error) {
	if !slices.Contains(b.entries, v) {
		return nil, fs.ErrNotExist
	}
	return strings.NewReader("UKI of " + string(v)), nil
}

func (b *bootFiles) Drop(v image.Version) error {
	b.entries = slices.DeleteFunc(b.entries, func(e image.Version) bool { return e == v })
	return nil
}

// checkVerity does in this program what the kernel does on a device: this kernel may not have fs-verity.
func checkVerity(path string, d image.Digest) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return layer.Verify(path, image.Layer{Name: filepath.Base(path), Digest: d, Size: info.Size()})
}

// onBox runs the body with a box, whose state is a btrfs and whose partitions are block devices.
func onBox(t *testing.T, body func(b *box)) {
	t.Helper()
	state := t.TempDir()
	b := &box{dir: t.TempDir(), partitions: map[string]string{},
		boot: &bootFiles{map[image.Version][]byte{}, []image.Version{"1.0", "0.9"}, nil}}
	b.Config = Config{State: state, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Verity: checkVerity,
		Boot:     func() (Boot, error) { return b.boot, nil },
		Manifest: &image.Manifest{Name: "test", Version: "1.0", Arch: image.AMD64, Epoch: 100},
		Running:  attempt.System{Version: "1.0", Slot: image.SlotA},
	}
	b.Partition = func(name string) (string, error) { return b.partitions[name], nil }
	files := t.TempDir()
	btrfstest.Run(t, btrfstest.Make(t), state, func() {
		defer func() {
			for _, f := range b.devices {
				f.Close()
			}
		}()
		if err := b.fill(files); err != nil {
			t.Error(err)
			return
		}
		body(b)
	})
}

// fill writes the old content and makes the partitions.
func (b *box) fill(files string) error {
	old := oldContent()
	var hash bytes.Buffer
	root, err := verity.Format(bytes.NewReader(old.root), int64(len(old.root)), &hash)
	b.Running.RootHash = root
	err = errors.Join(err, os.MkdirAll(filepath.Join(b.State, "layers"), 0o755),
		os.MkdirAll(filepath.Join(Dir(b.State), "boot"), 0o755), os.Mkdir(filepath.Join(b.dir, "blobs"), 0o755),
		os.WriteFile(UKI(b.State, "1.0"), old.uki, 0o444))
	for _, name := range slices.Sorted(maps.Keys(old.layers)) {
		d, size, e := layer.Digest(bytes.NewReader(old.layers[name]))
		b.Manifest.Layers = append(b.Manifest.Layers, image.Layer{Name: name, Digest: d, Size: size})
		err = errors.Join(err, e, os.WriteFile(b.layerPath(d), old.layers[name], 0o444), btrfs.SetImmutable(b.layerPath(d), true))
	}
	older := noise(90, 1<<20)
	var olderHash bytes.Buffer
	_, e := verity.Format(bytes.NewReader(older), int64(len(older)), &olderHash)
	err = errors.Join(err, e)
	for name, text := range map[string][]byte{
		"root-a": old.root, "verity-a": hash.Bytes(), "root-b": older, "verity-b": olderHash.Bytes(),
	} {
		file := filepath.Join(files, name)
		err = errors.Join(err, os.WriteFile(file, text, 0o600), os.Truncate(file, 4<<20))
		loop, e := btrfstest.Attach(file)
		if err = errors.Join(err, e); err != nil {
			return err
		}
		b.devices = append(b.devices, loop)
		b.partitions[name] = loop.Name()
	}
	return err
}

func (b *box) blob(data []byte) (image.Blob, error) {
	d := image.NewDigest(sha256.Sum256(data))
	return image.Blob{Digest: d, Size: int64(len(data))}, os.WriteFile(filepath.Join(b.dir, "blobs", d.Hex()), data, 0o644)
}

func (b *box) part(name string, data []byte) (image.Part, error) {
	p := image.Part{Name: name, Digest: image.NewDigest(sha256.Sum256(data)), Size: int64(len(data))}
	var pack, index bytes.Buffer
	x, err := delta.Pack(context.Background(), &pack, bytes.NewReader(data), p.Size, 1)
	if err == nil {
		err = x.Write(&index)
	}
	var e1, e2 error
	p.Pack, e1 = b.blob(pack.Bytes())
	p.Index, e2 = b.blob(index.Bytes())
	return p, errors.Join(err, e1, e2)
}

// publish puts content into the repository as version 2.0, with a delta if that is wanted.
func (b *box) publish(t *testing.T, c content, withDelta bool) image.Release {
	t.Helper()
	r := image.Release{Format: image.ReleaseFormat, Name: "test", Version: "2.0", Arch: image.AMD64, Epoch: 200}
	var hash bytes.Buffer
	root, err := verity.Format(bytes.NewReader(c.root), int64(len(c.root)), &hash)
	r.RootHash = root.String()
	var e1, e2 error
	r.UKI, e1 = b.part("uki", c.uki)
	r.Root, e2 = b.part("root", c.root)
	err = errors.Join(err, e1, e2)
	for _, name := range slices.Sorted(maps.Keys(c.layers)) {
		p, e := b.part(name, c.layers[name])
		var e2 error
		p.Verity, _, e2 = layer.Digest(bytes.NewReader(c.layers[name]))
		r.Layers = append(r.Layers, p)
		err = errors.Join(err, e, e2)
	}
	if withDelta {
		d, e := b.blob(makeDelta(t, oldContent(), c))
		d.From = "1.0"
		r.Deltas = []image.Blob{{Digest: d.Digest, Size: d.Size, From: "0.8"}, d}
		err = errors.Join(err, e)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// makeDelta leads from old to what edit made of it, and gives what else is new as it is.
func makeDelta(t *testing.T, old, next content) []byte {
	t.Helper()
	file := func(name string, data []byte) delta.File {
		return delta.File{Name: name, Digest: image.NewDigest(sha256.Sum256(data)), Size: int64(len(data))}
	}
	h := delta.Header{Sources: []delta.File{file("uki", old.uki), file("root", old.root), file("base", old.layers["base"])},
		Outputs: []delta.File{file("uki", next.uki), file("root", next.root), file("base", next.layers["base"]),
			file("chat", next.layers["chat"])}}
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
	for i, data := range [][]byte{next.uki, next.root, next.layers["base"]} {
		rest := int64(len(data)) - 68<<10
		err = errors.Join(err, w.Copy(delta.Range{File: i, Size: 64 << 10}),
			w.Data(4096, z.EncodeAll(data[64<<10:68<<10], nil)),
			w.Copy(delta.Range{File: i, Offset: 64 << 10, Size: rest}))
	}
	err = errors.Join(err, w.Data(int64(len(next.layers["chat"])), z.EncodeAll(next.layers["chat"], nil)))
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func (b *box) stage(r image.Release) (attempt.System, error) {
	return Stage(context.Background(), b.Config, r, fetch.Dir(b.dir), nil)
}

// wantStaged checks that the release is where a start would find it.
func (b *box) wantStaged(t *testing.T, to attempt.System, r image.Release, c content) {
	t.Helper()
	if to.Version != "2.0" || to.Slot != image.SlotB || to.RootHash.String() != r.RootHash {
		t.Errorf("staged %+v", to)
	}
	root, e1 := os.Open(b.partitions["root-b"])
	hash, e2 := os.Open(b.partitions["verity-b"])
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
		if err := checkVerity(b.layerPath(l.Verity), l.Verity); err != nil {
			t.Error(err)
		}
		if err := os.Remove(b.layerPath(l.Verity)); err == nil {
			t.Errorf("layer %s can be removed", l.Name)
		}
	}
	uki, err := os.ReadFile(UKI(b.State, "2.0"))
	if err != nil || !bytes.Equal(uki, c.uki) || !bytes.Equal(b.boot.placed["2.0"], c.uki) {
		t.Errorf("the UKI differs, %v", err)
	}
	if len(b.boot.entries) != 1 || b.boot.entries[0] != "1.0" {
		t.Errorf("entries are %q", b.boot.entries)
	}
	if got, err := NeedsOf(b.State, "2.0"); err != nil || got.RootHash != to.RootHash || len(got.Layers) != len(r.Layers) {
		t.Errorf("it needs %+v, %v", got, err)
	}
	b.wantNothingLeft(t)
	b.wantRunningWhole(t)
}

// wantNothingLeft checks that no downloads and no half files are left.
func (b *box) wantNothingLeft(t *testing.T) {
	t.Helper()
	for _, pattern := range []string{"update/fetch/*", "layers/*" + unfinished, "update/boot/*" + unfinished} {
		if left, err := filepath.Glob(filepath.Join(b.State, pattern)); err != nil || len(left) > 0 {
			t.Errorf("left are %q, %v", left, err)
		}
	}
}

// wantRunningWhole checks that what runs is as it was.
func (b *box) wantRunningWhole(t *testing.T) {
	t.Helper()
	root, e1 := os.Open(b.partitions["root-a"])
	hash, e2 := os.Open(b.partitions["verity-a"])
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
		if err := checkVerity(b.layerPath(l.Digest), l.Digest); err != nil {
			t.Error(err)
		}
	}
}

// wantNoSystem checks that slot B is not one.
func (b *box) wantNoSystem(t *testing.T) {
	t.Helper()
	f, err := os.Open(b.partitions["verity-b"])
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	if super, err := verity.ReadSuperblock(f); !errors.Is(err, verity.ErrNoSuperblock) {
		t.Errorf("slot B has superblock %v, %v", super.UUID, err)
	}
	if len(b.boot.placed) > 0 {
		t.Errorf("boot files of %v are placed", slices.Collect(maps.Keys(b.boot.placed)))
	}
	b.wantRunningWhole(t)
}

func TestStage(t *testing.T) {
	for _, withDelta := range []bool{true, false} {
		t.Run(map[bool]string{true: "delta", false: "packs"}[withDelta], func(t *testing.T) {
			onBox(t, func(b *box) {
				c := newContent()
				r := b.publish(t, c, withDelta)
				if withDelta { // then packs are not even looked at
					for _, p := range allParts(r) {
						if err := os.Remove(filepath.Join(b.dir, fetch.Path(p.Pack))); err != nil {
							t.Error(err)
						}
					}
				}
				to, err := b.stage(r)
				if err != nil {
					t.Error(err)
					return
				}
				b.wantStaged(t, to, r, c)
				// Once more: layers that are there are taken as they are.
				if to, err = b.stage(r); err != nil {
					t.Error(err)
				}
				b.wantStaged(t, to, r, c)
			})
		})
	}
}

func TestProgress(t *testing.T) {
	onBox(t, func(b *box) {
		r := b.publish(t, newContent(), false)
		var last, sum int64
		_, err := Stage(context.Background(), b.Config, r, fetch.Dir(b.dir), func(done, total int64) {
			if done < last || done > total || total < sum {
				t.Errorf("%d of %d after %d of %d", done, total, last, sum)
			}
			last, sum = done, total
		})
		if err != nil || last != sum || sum < r.Root.Size {
			t.Errorf("ended at %d of %d, %v", last, sum, err)
		}
	})
}

// A delta that is damaged costs a detour.
func TestDamagedDelta(t *testing.T) {
	onBox(t, func(b *box) {
		c := newContent()
		good := b.publish(t, c, true)
		bad := makeDelta(t, oldContent(), c)
		bad[len(bad)/2] ^= 1
		d, err := b.blob(bad)
		if err != nil {
			t.Error(err)
		}
		d.From = "1.0"
		good.Deltas = []image.Blob{d}
		to, err := b.stage(good)
		if err != nil {
			t.Error(err)
			return
		}
		b.wantStaged(t, to, good, c)
	})
}

// liar gives every blob with a byte flipped the first time.
type liar struct {
	fetch.Source
	asked map[string]int
}

func (l liar) Get(ctx context.Context, path string, from, to int64) (io.ReadCloser, error) {
	r, err := l.Source.Get(ctx, path, from, to)
	if l.asked[path]++; err != nil || l.asked[path] > 1 {
		return r, err
	}
	b, err := io.ReadAll(r)
	b[len(b)/2] ^= 1
	return io.NopCloser(bytes.NewReader(b)), errors.Join(err, r.Close())
}

func TestLyingSource(t *testing.T) {
	for _, withDelta := range []bool{true, false} {
		onBox(t, func(b *box) {
			c := newContent()
			r := b.publish(t, c, withDelta)
			l := liar{fetch.Dir(b.dir), map[string]int{}}
			to, err := Stage(context.Background(), b.Config, r, l, nil)
			if err != nil || len(l.asked) == 0 {
				t.Errorf("asked for %d blobs, %v", len(l.asked), err)
				return
			}
			b.wantStaged(t, to, r, c)
		})
	}
}

// cutSource gives no more than n bytes in all.
type cutSource struct {
	fetch.Source
	left *int64
}

func (s cutSource) Get(ctx context.Context, path string, from, to int64) (io.ReadCloser, error) {
	r, err := s.Source.Get(ctx, path, from, to)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{&cutReader{r, s.left}, r}, nil
}

type cutReader struct {
	r    io.Reader
	left *int64
}

var errGone = errors.New("the server is gone")

func (c *cutReader) Read(p []byte) (int, error) {
	if *c.left <= 0 {
		return 0, errGone
	}
	n, err := c.r.Read(p[:min(int64(len(p)), *c.left)])
	*c.left -= int64(n)
	return n, err
}

// A download that breaks off is gone on from, so that each byte is fetched once.
func TestBrokenDownloadIsResumed(t *testing.T) {
	for _, withDelta := range []bool{true, false} {
		onBox(t, func(b *box) {
			c := newContent()
			r := b.publish(t, c, withDelta)
			whole := r.UKI.Pack.Size + r.UKI.Index.Size + r.Root.Pack.Size + r.Root.Index.Size
			for _, l := range r.Layers {
				whole += l.Pack.Size + l.Index.Size
			}
			const step = 300 << 10
			for n := int64(0); ; n++ {
				left := int64(step)
				to, err := Stage(context.Background(), b.Config, r, cutSource{fetch.Dir(b.dir), &left}, nil)
				if err == nil {
					b.wantStaged(t, to, r, c)
					return
				}
				if b.wantNoSystem(t); !errors.Is(err, errGone) || n*step > whole {
					t.Errorf("at try %d: %v", n, err)
					return
				}
			}
		})
	}
}

func TestSourceThatFails(t *testing.T) {
	onBox(t, func(b *box) {
		c := newContent()
		r := b.publish(t, c, false)
		path := filepath.Join(b.dir, fetch.Path(r.Layers[1].Pack))
		for _, p := range allParts(r) {
			if p.Name == "chat" {
				path = filepath.Join(b.dir, fetch.Path(p.Pack))
			}
		}
		pack, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		bad := slices.Clone(pack)
		bad[len(bad)/2] ^= 1
		for _, text := range [][]byte{bad, pack[:len(pack)-10], nil} {
			if err := os.WriteFile(path, text, 0o644); err != nil {
				t.Error(err)
			}
			if _, err := b.stage(r); err == nil {
				t.Error("staged what was damaged")
			}
			b.wantNoSystem(t)
		}
		if err := os.WriteFile(path, pack, 0o644); err != nil {
			t.Error(err)
		}
		to, err := b.stage(r)
		if err != nil {
			t.Error(err)
			return
		}
		b.wantStaged(t, to, r, c)
	})
}

func TestRefused(t *testing.T) {
	onBox(t, func(b *box) {
		r := b.publish(t, newContent(), false)
		for name, spoil := range map[string]func(r *image.Release){
			"format 9":             func(r *image.Release) { r.Format = 9 },
			`it is of "other"`:     func(r *image.Release) { r.Name = "other" },
			"arm64 machines":       func(r *image.Release) { r.Arch = image.ARM64 },
			"it runs already":      func(r *image.Release) { r.Version = "1.0" },
			"older than version":   func(r *image.Release) { r.Version = "0.9.9" },
			"contents are older":   func(r *image.Release) { r.Epoch = 99 },
			"root hash":            func(r *image.Release) { r.RootHash = "x" },
			"is the one that runs": func(r *image.Release) { r.RootHash = b.Running.RootHash.String() },
			"root of 5000 bytes":   func(r *image.Release) { r.Root.Size = 5000 },
			"of another one":       func(r *image.Release) { r.Layers = append(slices.Clone(r.Layers), r.Layers[0]) },
			"not those of a layer": func(r *image.Release) { r.Layers = []image.Part{{Name: "x", Size: 1, Verity: "../x"}} },
		} {
			bad := r
			spoil(&bad)
			_, err := b.stage(bad)
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		// What cannot be done here and now.
		for name, spoil := range map[string]func(r *image.Release){
			"the release needs 8": func(r *image.Release) { r.Root.Size = 8 << 20 },
			"MiB are missing":     func(r *image.Release) { r.UKI.Size = 1 << 30 },
		} {
			bad := r
			spoil(&bad)
			if _, err := b.stage(bad); err == nil || errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		if len(b.boot.entries) != 2 || len(b.boot.placed) != 0 {
			t.Errorf("refusals led to entries %q", b.boot.entries)
		}
		r.RootHash = "00" + r.RootHash[2:] // this shows only when all is written
		if _, err := b.stage(r); err == nil || !strings.Contains(err.Error(), "the release names 00") {
			t.Errorf("got %v", err)
		}
		b.wantNoSystem(t)
	})
}

func TestRunningSlotIsNeverWritten(t *testing.T) {
	onBox(t, func(b *box) {
		r := b.publish(t, newContent(), false)
		// Whatever names the partitions have: the tree shows which runs.
		swapped := b.Config
		swapped.Running.Slot = image.SlotB
		if _, err := Stage(context.Background(), swapped, r, fetch.Dir(b.dir), nil); err == nil ||
			!strings.Contains(err.Error(), "it holds what runs") {
			t.Errorf("got %v", err)
		}
		b.wantRunningWhole(t)
		if _, err := openTarget(b.Config, r, image.SlotA); err == nil || !strings.Contains(err.Error(), "it runs") {
			t.Errorf("got %v", err)
		}
		// What is in use is not given: as a mounted file system, so dm-verity claims its devices.
		f, err := os.OpenFile(b.partitions["root-b"], os.O_RDWR|os.O_EXCL, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		if _, err := b.stage(r); err == nil || !strings.Contains(err.Error(), "busy") {
			t.Errorf("got %v", err)
		}
	})
}
