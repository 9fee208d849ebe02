package tools

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// archive is a tar archive of the given entries; regular files have their Linkname as content.
func archive(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content, h.Linkname = h.Linkname, ""
			h.Size = int64(len(content))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// extractTo extracts an archive to dir.
func extractTo(ctx context.Context, t testing.TB, dir string, b []byte) error {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	return extract(ctx, root, tar.NewReader(bytes.NewReader(b)))
}

func TestExtract(t *testing.T) {
	dir := t.TempDir()
	zeros := strings.Repeat("\x00", 1<<20)
	b := archive(t,
		tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeDir, Name: "./usr/bin/", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "./bin", Linkname: "usr/bin"},
		tar.Header{Typeflag: tar.TypeDir, Name: "./bin/", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeReg, Name: "./bin/tool", Linkname: "program", Mode: 0o4755, Uid: 12345},
		tar.Header{Typeflag: tar.TypeLink, Name: "./bin/alias", Linkname: "./bin/tool"},
		tar.Header{Typeflag: tar.TypeReg, Name: "./missing/folder/file", Linkname: zeros + "x" + zeros, Mode: 0o640},
		tar.Header{Typeflag: tar.TypeReg, Name: "./usr/share/doc/tool/README", Linkname: "read me", Mode: 0o644},
	)
	if err := extractTo(t.Context(), t, dir, b); err != nil {
		t.Fatal(err)
	}
	tool := stat(t, filepath.Join(dir, "usr/bin/tool"))
	if tool.Mode() != 0o755 {
		t.Errorf("mode of tool is %v, want 0755 without the set-user-ID bit", tool.Mode())
	}
	if !os.SameFile(tool, stat(t, filepath.Join(dir, "bin/alias"))) {
		t.Error("a hard link has become a file of its own")
	}
	if got := read(t, filepath.Join(dir, "missing/folder/file")); got != zeros+"x"+zeros {
		t.Error("a file with holes is not what it was")
	}
	sparse := stat(t, filepath.Join(dir, "missing/folder/file")).Sys().(*syscall.Stat_t)
	if used := sparse.Blocks * 512; used >= 1<<20 {
		t.Errorf("a file of zeros takes %d bytes on disk", used)
	}
	if _, err := os.Lstat(filepath.Join(dir, "usr/share/doc")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("documentation was unpacked: %v", err)
	}
}

func TestExtractRefuses(t *testing.T) {
	outside := t.TempDir()
	for name, headers := range map[string][]tar.Header{
		"a way out":        {{Typeflag: tar.TypeReg, Name: "../escaped", Linkname: "x"}},
		"a link out":       {{Typeflag: tar.TypeSymlink, Name: "out", Linkname: outside}, {Typeflag: tar.TypeReg, Name: "out/escaped"}},
		"a hard link out":  {{Typeflag: tar.TypeLink, Name: "shadow", Linkname: "../../../etc/shadow"}},
		"a device":         {{Typeflag: tar.TypeBlock, Name: "disk", Devmajor: 8}},
		"a file two times": {{Typeflag: tar.TypeReg, Name: "a"}, {Typeflag: tar.TypeReg, Name: "a"}},
	} {
		if err := extractTo(t.Context(), t, t.TempDir(), archive(t, headers...)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside the folder there is now %v, error %v", left, err)
	}
}

func TestExtractStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := extractTo(ctx, t, t.TempDir(), archive(t, tar.Header{Typeflag: tar.TypeReg, Name: "a"}))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that it was cancelled", err)
	}
}

// FuzzExtract has any archive extracted to a folder, beside which nothing must appear.
func FuzzExtract(f *testing.F) {
	f.Add(archive(f, tar.Header{Typeflag: tar.TypeReg, Name: "./a/b", Linkname: "content"}))
	f.Add(archive(f, tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: ".."},
		tar.Header{Typeflag: tar.TypeReg, Name: "l/x", Linkname: "content"}))
	f.Add(archive(f, tar.Header{Typeflag: tar.TypeLink, Name: "l", Linkname: "../x"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		parent := t.TempDir()
		dir := filepath.Join(parent, "in")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		extractTo(t.Context(), t, dir, b) // whether it fails does not matter here
		entries, err := os.ReadDir(parent)
		if err != nil || len(entries) != 1 {
			t.Errorf("beside the folder there is %v, error %v", entries, err)
		}
	})
}

func stat(t *testing.T, path string) fs.FileInfo {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}
