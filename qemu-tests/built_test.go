package qemutests

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"allotment/builder"
	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/builder/tools"
	"allotment/image"
	"allotment/image/secureboot"
	"allotment/internal/cache"
	"allotment/internal/progress"
	"allotment/internal/run"
	"allotment/qemu-tests/vm"
)

// built is the image of the profile minimal for one architecture.
type built struct {
	tools    *tools.Root
	arch     image.Arch
	result   *builder.Result
	keys     string               // folder
	raw      string               // path of the raw image
	parts    map[string]partition // by GPT name
	manifest image.Manifest       // as the image's root has it
	page     *regexp.Regexp       // what "/" shows: the module's file, with the web server's version in it
	style    []byte               // the file that "/style.css" shows
}

// partition is where a partition lies, in bytes, and its GUID.
type partition struct {
	start, size int64
	uuid        string
}

var (
	buildAMD64 = sync.OnceValues(func() (*built, error) { return build(image.AMD64) })
	buildARM64 = sync.OnceValues(func() (*built, error) { return build(image.ARM64) })
)

// minimal returns the image of the profile minimal, which is built once for each run of the tests, through the cache.
func minimal(t testing.TB, arch image.Arch) *built {
	t.Helper()
	needMachines(t)
	get := buildAMD64
	if arch == image.ARM64 {
		get = buildARM64
	}
	b, err := get()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func build(arch image.Arch) (*built, error) {
	ctx := context.Background()
	dir, err := cache.Default()
	if err != nil {
		return nil, err
	}
	b := &built{arch: arch}
	if b.tools, err = openTools(); err != nil {
		return nil, err
	}
	source, err := builder.FindSource(".")
	if err != nil {
		return nil, err
	}
	if b.keys, err = testKeys(ctx, dir, "keys"); err != nil {
		return nil, err
	}
	file := filepath.Join(string(source), "profiles", "minimal.toml")
	p, err := profile.Load(file)
	if err != nil {
		return nil, err
	}
	if arch == image.AMD64 { // for the judges
		p.Outputs = []string{"raw.zst", "qcow2", "vmdk", "vhd"}
	}
	l, err := lock.Read(strings.TrimSuffix(file, ".toml") + ".lock")
	if err != nil {
		return nil, err
	}
	out := dir.Path("qemu-tests", "out")
	if err := b.readPages(filepath.Join(string(source), "modules/page/www")); err != nil {
		return nil, err
	}
	b.result, err = builder.Build(ctx, builder.Options{Profile: p, Lock: l, Source: source, Arch: arch, Keys: b.keys,
		Out: out, Cache: dir, Progress: progress.Silent{}})
	if err != nil {
		return nil, err
	}
	packed, err := b.result.Image("raw.zst")
	if err != nil {
		return nil, err
	}
	b.raw = filepath.Join(scratch, string(arch)+".raw")
	if err := unpack(packed, b.raw); err != nil {
		return nil, err
	}
	return b, b.look(ctx)
}

// readPages reads what the web server has to show.
func (b *built) readPages(dir string) error {
	page, err := os.ReadFile(filepath.Join(dir, "index.html"))
	if err != nil {
		return err
	}
	before, after, ok := bytes.Cut(page, []byte(`<!--# echo var="nginx_version" -->`))
	if !ok {
		return fmt.Errorf("the page in %q does not ask for the web server's version", dir)
	}
	b.page, err = regexp.Compile("^" + regexp.QuoteMeta(string(before)) + `[0-9.]+` + regexp.QuoteMeta(string(after)) + "$")
	if err != nil {
		return err
	}
	b.style, err = os.ReadFile(filepath.Join(dir, "style.css"))
	return err
}

// testKeys makes keys in the cache once: with new keys the image would never be up to date.
func testKeys(ctx context.Context, dir cache.Dir, name string) (string, error) {
	return dir.Make(ctx, "qemu-tests", name, func(tmp string) error { return secureboot.NewKeys(tmp, time.Now()) })
}

// unpack writes a raw.zst as a raw image with holes.
func unpack(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	z, err := zstd.NewReader(in)
	if err != nil {
		return err
	}
	defer z.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	size, err := z.WriteTo(&sparseWriter{f: out})
	if err != nil {
		return fmt.Errorf("cannot unpack %q: %w", from, err)
	}
	return out.Truncate(size)
}

// sparseWriter writes one piece after another to a file and leaves out those of zeros.
type sparseWriter struct {
	f  *os.File
	at int64
}

var zeroBlock [64 << 10]byte

func (w *sparseWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		piece := rest[:min(len(rest), len(zeroBlock))]
		if !bytes.Equal(piece, zeroBlock[:len(piece)]) {
			if _, err := w.f.WriteAt(piece, w.at); err != nil {
				return 0, err
			}
		}
		w.at += int64(len(piece))
		rest = rest[len(piece):]
	}
	return len(p), nil
}

// look reads partitions and manifest with other people's tools, so that a mistake of ours does not hide itself.
func (b *built) look(ctx context.Context) error {
	var err error
	if b.parts, err = partitions(ctx, b.tools, b.raw); err != nil {
		return err
	}
	text, err := output(ctx, b.tools, "dump.erofs", b.rootOffset(), "--path="+image.ManifestPath, "--cat", b.raw)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, &b.manifest)
}

// partitions reads the partition table of a raw disk.
func partitions(ctx context.Context, root *tools.Root, disk string) (map[string]partition, error) {
	table, err := output(ctx, root.With(filepath.Dir(disk)), "sfdisk", "--json", disk)
	if err != nil {
		return nil, err
	}
	var gpt struct {
		Table struct {
			Partitions []struct {
				Name, UUID  string
				Start, Size int64 // sectors
			}
		} `json:"partitiontable"`
	}
	if err := json.Unmarshal(table, &gpt); err != nil {
		return nil, err
	}
	parts := map[string]partition{}
	for _, p := range gpt.Table.Partitions {
		parts[p.Name] = partition{p.Start * 512, p.Size * 512, p.UUID}
	}
	return parts, nil
}

// rootOffset is the argument that lets the EROFS tools read the root file system in the image.
func (b *built) rootOffset() string { return fmt.Sprintf("--offset=%d", b.parts["root-a"].start) }

// inRoot is where in the image the byte in the middle of a file of the root file system lies.
func (b *built) inRoot(t testing.TB, path string) int64 {
	t.Helper()
	text, err := output(t.Context(), b.tools, "dump.erofs", b.rootOffset(), "--path="+path, "-e", b.raw)
	if err != nil {
		t.Fatal(err)
	}
	length, at := firstExtent(t, text)
	return b.parts["root-a"].start + at + length/2
}

// firstExtent reads length and physical offset of a file's first extent out of what dump.erofs prints:
//
//	0:        0..  299008 |  299008 :       4096..    303104 |  299008
func firstExtent(t testing.TB, text []byte) (length, at int64) {
	t.Helper()
	extent := regexp.MustCompile(`(?m)^\s+0:\s+0\.\.\s*\d+\s*\|\s*(\d+)\s*:\s*(\d+)\.\.`).FindSubmatch(text)
	if extent == nil {
		t.Fatalf("cannot find an extent in:\n%s", text)
	}
	length, _ = strconv.ParseInt(string(extent[1]), 10, 64)
	at, _ = strconv.ParseInt(string(extent[2]), 10, 64)
	return length, at
}

// cluster is the allocation unit of the ESP, in bytes.
const cluster = 8192

// inESP is where in the image the middle of a file of the ESP lies.
func (b *built) inESP(t testing.TB, name string) int64 {
	t.Helper()
	esp := b.parts["esp"]
	content, err := output(t.Context(), b.tools, "mtype", "-i", fmt.Sprintf("%s@@%d", b.raw, esp.start), "::/"+name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(b.raw)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at, err := findCluster(io.NewSectionReader(f, esp.start, esp.size), content[len(content)/2/cluster*cluster:][:cluster])
	if err != nil {
		t.Fatalf("cannot find %s in the ESP: %v", name, err)
	}
	return esp.start + at + cluster/2
}

// findCluster looks for the one cluster of a FAT32 file system with that content.
func findCluster(fat *io.SectionReader, want []byte) (int64, error) {
	var boot [64]byte // Microsoft FAT specification, BPB_RsvdSecCnt, BPB_NumFATs and BPB_FATSz32
	if _, err := fat.ReadAt(boot[:], 0); err != nil {
		return 0, err
	}
	reserved, tables := int64(binary.LittleEndian.Uint16(boot[14:])), int64(boot[16])
	first := (reserved + tables*int64(binary.LittleEndian.Uint32(boot[36:]))) * 512
	found := int64(-1)
	got := make([]byte, len(want))
	for at := first; at+cluster <= fat.Size(); at += cluster {
		if _, err := fat.ReadAt(got, at); err != nil {
			return 0, err
		}
		if bytes.Equal(got, want) {
			if found >= 0 {
				return 0, fmt.Errorf("the clusters at %d and %d are the same", found, at)
			}
			found = at
		}
	}
	if found < 0 {
		return 0, errors.New("no such cluster")
	}
	return found, nil
}

// output runs a tool and returns what it wrote.
func output(ctx context.Context, root *tools.Root, name string, args ...string) ([]byte, error) {
	var out bytes.Buffer
	err := root.Run(ctx, run.Command{Name: name, Args: args, Stdout: &out})
	return out.Bytes(), err
}

// copyImage copies the raw image, to be spoilt.
func (b *built) copyImage(t testing.TB) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "disk.raw")
	if err := vm.CopySparse(b.raw, to); err != nil {
		t.Fatal(err)
	}
	return to
}

// flipped is a copy of the image with one byte changed.
func (b *built) flipped(t testing.TB, at int64) string {
	t.Helper()
	to := b.copyImage(t)
	if err := vm.FlipByte(to, at); err != nil {
		t.Fatal(err)
	}
	return to
}
