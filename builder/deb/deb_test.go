package deb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"allotment/image"
	"allotment/internal/cache"
)

const controlText = "Package: hello\nVersion: 2.10-5\nArchitecture: amd64\nDescription: greets\n at length\n"

// makeTar returns a tar archive with one file.
func makeTar(t testing.TB, name, content string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}
	if err := w.WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, content)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// compress packs b by a file name's extension.
func compress(t testing.TB, b []byte, ext string) []byte {
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch ext {
	case ".xz":
		w, err = xz.NewWriter(&out)
	case ".zst":
		w, err = zstd.NewWriter(&out)
	case ".gz":
		w = gzip.NewWriter(&out)
	default:
		return b
	}
	if err != nil {
		t.Fatal(err)
	}
	w.Write(b)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// part is a member of an archive to be made.
type part struct {
	name    string
	content []byte
}

// makeArchive returns an ar archive.
func makeArchive(parts ...part) []byte {
	b := bytes.NewBufferString(arMagic)
	for _, p := range parts {
		fmt.Fprintf(b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", p.name, 0, 0, 0, 0o644, len(p.content))
		b.Write(p.content)
		if len(p.content)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

// makeDeb returns a package whose tar archives are packed as ext says, and what its data.tar is.
func makeDeb(t testing.TB, ext string) (file, data []byte) {
	data = makeTar(t, "./usr/bin/hello", strings.Repeat("hello ", 500))
	return makeArchive(
		part{"debian-binary", []byte("2.0\n")},
		part{"control.tar" + ext, compress(t, makeTar(t, "./control", controlText), ext)},
		part{"data.tar" + ext, compress(t, data, ext)},
	), data
}

func write(t testing.TB, b []byte) string {
	path := filepath.Join(t.TempDir(), "hello.deb")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// readAll opens the package in b and returns its data.tar.
func readAll(t testing.TB, b []byte) ([]byte, error) {
	p, err := Open(write(t, b))
	if err != nil {
		return nil, err
	}
	defer p.Close()
	r, err := p.DataTar()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func TestOpen(t *testing.T) {
	for _, ext := range []string{"", ".gz", ".xz", ".zst"} {
		t.Run("tar"+ext, func(t *testing.T) {
			file, data := makeDeb(t, ext)
			p, err := Open(write(t, file))
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if got := p.Control.Get("package"); got != "hello" {
				t.Errorf("Package is %q", got)
			}
			if got := p.Control.Get("Description"); got != "greets\nat length" {
				t.Errorf("Description is %q", got)
			}
			if got := string(p.Files["control"]); got != controlText {
				t.Errorf("control is %q", got)
			}
			for range 2 { // every call starts anew
				r, err := p.DataTar()
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(r)
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("data.tar has %d bytes, want %d; error %v", len(got), len(data), err)
				}
				r.Close()
			}
		})
	}
}

func TestEveryTruncationIsNoticed(t *testing.T) {
	for _, ext := range []string{"", ".gz", ".xz", ".zst"} {
		file, _ := makeDeb(t, ext)
		end := len(file)
		if file[end-1] == '\n' && ext != "" {
			end-- // only padding
		}
		step := 1
		if ext == "" {
			step = 97
		}
		for n := 0; n < end; n += step {
			_, err := readAll(t, file[:n])
			if err == nil {
				t.Fatalf("tar%s: cut to %d of %d bytes, and read without error", ext, n, len(file))
			}
			if !strings.Contains(err.Error(), "hello.deb") {
				t.Fatalf("error does not name the file: %v", err)
			}
		}
	}
}

func TestFlippedBytes(t *testing.T) {
	for _, ext := range []string{".gz", ".xz", ".zst"} {
		file, data := makeDeb(t, ext)
		noticed := 0
		for i := 0; i < len(file); i += 5 {
			damaged := bytes.Clone(file)
			damaged[i] ^= 0x10
			got, err := readAll(t, damaged)
			if err != nil {
				noticed++
			} else if !bytes.Equal(got, data) {
				t.Errorf("tar%s: byte %d flipped, and other data read without error", ext, i)
			}
		}
		if noticed < len(file)/10 {
			t.Errorf("tar%s: only %d flipped bytes of %d noticed", ext, noticed, len(file)/5)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	version := part{"debian-binary", []byte("2.0\n")}
	control := part{"control.tar", makeTar(t, "./control", controlText)}
	data := part{"data.tar", makeTar(t, "./a", "a")}
	good := makeArchive(version, control, data)
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "not an ar archive"},
		{"other magic", append([]byte("!<arcH>\n"), good[8:]...), "not an ar archive"},
		{"no data", makeArchive(version, control), "not a Debian package"},
		{"no version", makeArchive(control, control, data), "not a Debian package"},
		{"other version", makeArchive(part{"debian-binary", []byte("3.0\n")}, control, data), `format "3.0"`},
		{"other order", makeArchive(version, data, control), "where control.tar and data.tar are due"},
		{"no control", makeArchive(version, part{"control.tar", makeTar(t, "./md5sums", "")}, data), "no file control"},
		{"empty control", makeArchive(version, part{"control.tar", makeTar(t, "./control", "\n")}, data), "is empty"},
		{"bad control", makeArchive(version, part{"control.tar", makeTar(t, "./control", "x\n")}, data), "line 1"},
		{"bad compression", makeArchive(version, part{"control.tar.lzma", nil}, data), "cannot unpack compression"},
		{"bad size", bytes.Replace(good, []byte("4         `"), []byte("-4        `"), 1), "size"},
		{"no header", append(bytes.Clone(good), bytes.Repeat([]byte("x"), 60)...), "no member header"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := readAll(t, c.file)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want it to say %q", err, c.want)
			}
		})
	}
	if _, err := readAll(t, good); err != nil {
		t.Errorf("the archive that the others are made from: %v", err)
	}
}

func TestDataTarCached(t *testing.T) {
	c := cache.Dir(t.TempDir())
	file, data := makeDeb(t, ".xz")
	key, _, _ := image.DigestOf(bytes.NewReader(file))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := DataTarCached(ctx, c, write(t, file), key); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: error is %v", err)
	}
	if _, err := DataTarCached(t.Context(), c, write(t, file[:len(file)-20]), key); err == nil {
		t.Error("a truncated package was unpacked")
	}
	if left, _ := filepath.Glob(c.Path("data", key.Hex()+"*")); len(left) > 1 { // the lock
		t.Errorf("failed runs left %v", left)
	}
	path, err := DataTarCached(t.Context(), c, write(t, file), key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
		t.Errorf("data.tar has %d bytes, want %d; error %v", len(got), len(data), err)
	}
	if _, err := DataTarCached(t.Context(), c, "/nowhere", key); err != nil {
		t.Errorf("the cached file was not used: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	for _, ext := range []string{"", ".gz", ".xz", ".zst"} {
		file, _ := makeDeb(f, ext)
		f.Add(file)
		f.Add(file[:len(file)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Open(write(t, b))
		if err != nil {
			return
		}
		defer p.Close()
		if len(p.Control) == 0 {
			t.Error("opened without control fields")
		}
		r, err := p.DataTar()
		if err != nil {
			return
		}
		defer r.Close()
		io.Copy(io.Discard, io.LimitReader(r, 1<<20))
	})
}
