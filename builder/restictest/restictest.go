// Package restictest gives tests the program restic that a device has: that of the root tree's lock.
package restictest

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"allotment/builder"
	"allotment/builder/apt"
	"allotment/builder/deb"
	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/image"
	"allotment/internal/cache"
	"allotment/internal/progress"
)

// Program returns the path of restic, for this machine.
func Program(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("runs restic: not in -short mode")
	}
	path := filepath.Join(t.TempDir(), "restic")
	content, err := program()
	if err == nil {
		err = os.WriteFile(path, content, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// program is unpacked once.
var program = sync.OnceValues(func() ([]byte, error) {
	ctx := context.Background()
	source, err := builder.FindSource(".")
	if err != nil {
		return nil, err
	}
	l, err := lock.Read(filepath.Join(string(source), "profiles", "minimal.lock"))
	if err != nil {
		return nil, err
	}
	arch, err := image.ParseArch(runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	dir, err := cache.Default()
	if err != nil {
		return nil, err
	}
	for _, p := range l.Trees["root"][arch] {
		if p.Name != "restic" {
			continue
		}
		files, err := apt.New(dir, profile.Debian{}, l.Epoch).Fetch(ctx, []lock.Package{p}, progress.Silent{})
		if err != nil {
			return nil, err
		}
		data, err := deb.DataTarCached(ctx, dir, files[0], p.SHA256)
		if err != nil {
			return nil, err
		}
		return find(data, "usr/bin/restic")
	}
	return nil, errors.New("profiles/minimal.lock has no restic")
})

// find reads a file of a tar file.
func find(archive, name string) ([]byte, error) {
	f, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err != nil {
			return nil, fmt.Errorf("cannot find %q in %q: %w", name, archive, err)
		}
		if filepath.Clean(h.Name) == name {
			return io.ReadAll(r)
		}
	}
}
