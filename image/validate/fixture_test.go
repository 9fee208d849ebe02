package validate

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/erofs/go-erofs"

	"allotment/image"
	"allotment/image/disk"
	"allotment/image/layer"
	"allotment/image/secureboot"
	"allotment/image/uki"
	"allotment/image/uki/ukitest"
	"allotment/image/verity"
	"allotment/internal/run"
)

// parts is everything that an image is made of. A twin changes something before the image is built.
type parts struct {
	arch     image.Arch
	version  image.Version
	keys     *secureboot.Keys
	layers   [][]byte
	manifest image.Manifest
	programs []string
	ukiEdit  func(*uki.Image) // before it is signed
	edit     func(*disk.Spec) // before the disk is built
}

// testKeys are made once: RSA keys cost time.
var testKeys = sync.OnceValues(func() (keys [2]*secureboot.Keys, err error) {
	for i := range keys {
		dir, err := os.MkdirTemp("", "keys")
		if err != nil {
			return keys, err
		}
		defer os.RemoveAll(dir)
		if err := secureboot.NewKeys(dir, time.Unix(1795000000, 0)); err != nil {
			return keys, err
		}
		if keys[i], err = secureboot.LoadKeys(dir); err != nil {
			return keys, err
		}
	}
	return keys, nil
})

func newParts(t testing.TB) *parts {
	t.Helper()
	keys, err := testKeys()
	if err != nil {
		t.Fatal(err)
	}
	p := &parts{
		arch: image.AMD64, version: "2026.11.3", keys: keys[0], programs: programs,
		layers: [][]byte{bytes.Repeat([]byte("layer one "), 4096), bytes.Repeat([]byte("layer two "), 8192)},
		manifest: image.Manifest{
			Format: image.ManifestFormat, Name: "test", Title: "Test", Version: "2026.11.3", Arch: image.AMD64,
			Epoch: 1795000000, Kernel: "6.12.1-test",
		},
	}
	for i, data := range p.layers {
		d, size, err := layer.Digest(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		p.manifest.Layers = append(p.manifest.Layers, image.Layer{Name: "layer" + string(rune('1'+i)), Digest: d, Size: size})
		p.manifest.Seed.Size += size
	}
	p.manifest.Seed.Offset = disk.SeedOffset(p.manifest.Seed.Size)
	p.manifest.Modules = []image.Module{{Name: "web", Layers: []image.Digest{p.manifest.Layers[0].Digest}}}
	return p
}

// build makes the image and opens it.
func (p *parts) build(t testing.TB) *disk.File {
	t.Helper()
	dir := t.TempDir()
	s := disk.Spec{
		Output: filepath.Join(dir, "disk.raw"), Version: p.version, Time: time.Unix(1795000000, 0),
		Auth: p.keys.Auth, GRUBModules: dir, Tools: fakeGRUB{},
		Kernel: testPE(p.arch, 100), Initrd: bytes.Repeat([]byte("initrd"), 5000),
		Root: filepath.Join(dir, "root"), Verity: filepath.Join(dir, "verity"),
	}
	var sizes []int64
	for i, data := range p.layers {
		path := filepath.Join(dir, p.manifest.Layers[i].Name)
		write(t, path, data)
		s.Layers = append(s.Layers, path)
		sizes = append(sizes, int64(len(data)))
	}
	var err error
	if s.Layout, err = disk.NewLayout(p.arch, disk.Sizes{Root: 8 * mib, Verity: mib}, sizes); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "boot.img"), append([]byte{0xeb, 0x63, 0x90}, make([]byte, 509)...))
	s.RootHash = p.writeRoot(t, s.Root, s.Verity)
	s.Cmdline = "roothash=" + s.RootHash.String() + " panic=5 console=tty0"
	m := uki.Image{
		OSRelease: "IMAGE_VERSION=" + string(p.version) + "\n", Cmdline: s.Cmdline, Uname: p.manifest.Kernel,
		Initrd: s.Initrd, Linux: s.Kernel,
	}
	if p.ukiEdit != nil {
		p.ukiEdit(&m)
	}
	unsigned, err := uki.Assemble(testPE(p.arch, 50), m)
	if err != nil {
		t.Fatal(err)
	}
	s.UKI, s.SystemdBoot = p.sign(t, unsigned), p.sign(t, testPE(p.arch, 10))
	if p.edit != nil {
		p.edit(&s)
	}
	if err := disk.Build(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	f, err := disk.Open(context.Background(), nil, s.Output)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func (p *parts) sign(t testing.TB, pe []byte) []byte {
	t.Helper()
	b, err := secureboot.SignPE(pe, p.keys.DB)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// writeRoot makes a root file system with the manifest and its verity tree.
func (p *parts) writeRoot(t testing.TB, root, hash string) verity.RootHash {
	t.Helper()
	f, err := os.Create(root)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := erofs.Create(f, erofs.WithBuildTime(0, 0))
	manifest, err := json.Marshal(p.manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/usr", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib/allotment"} {
		if err := w.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	add := func(path string, mode os.FileMode, data []byte) {
		e, err := w.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := e.Chmod(mode); err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	add(image.ManifestPath, 0o644, manifest)
	for _, path := range p.programs {
		add("/"+path, 0o755, bytes.Repeat([]byte("program"), 1000))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	size := (info.Size() + verity.BlockSize - 1) / verity.BlockSize * verity.BlockSize
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	var tree bytes.Buffer
	h, err := verity.Format(f, size, &tree)
	if err != nil {
		t.Fatal(err)
	}
	write(t, hash, tree.Bytes())
	return h
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// fakeGRUB stands in for grub-mkimage, which only the tool root has; builder/judge runs the real one.
type fakeGRUB struct{}

func (fakeGRUB) Run(_ context.Context, c run.Command) error {
	for _, a := range c.Args {
		if path, ok := strings.CutPrefix(a, "--output="); ok {
			return os.WriteFile(path, bytes.Repeat([]byte{0xcc}, 2000), 0o644)
		}
	}
	return nil
}

// testPE is a stub with n KiB of text.
func testPE(arch image.Arch, n int) []byte {
	text := make([]byte, n<<10)
	for i := range text {
		text[i] = byte(i)
	}
	return ukitest.PE(arch, text)
}

// flipped is a disk with one byte changed.
type flipped struct {
	*disk.File
	at int64
}

func (f flipped) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(b, off)
	if i := f.at - off; i >= 0 && i < int64(n) {
		b[i] ^= 0x40
	}
	return n, err
}

func (f flipped) NextData(off int64) int64 {
	next := f.File.NextData(off)
	if f.at >= off {
		next = min(next, f.at)
	}
	return next
}
