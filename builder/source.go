package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"allotment/image"
	"allotment/internal/cache"
	"allotment/internal/run"
)

// Source is the folder of Allotment's own source code, which a build takes its device programs, trees and modules from.
type Source string

// FindSource looks for the source folder from dir upwards: the one with the go.mod of module allotment.
func FindSource(dir string) (Source, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		b, err := os.ReadFile(filepath.Join(d, "go.mod"))
		if err == nil && strings.HasPrefix(string(b), "module allotment\n") {
			return Source(d), nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("cannot find Allotment's source code in %q or above; run this inside a clone or use --source", dir)
		}
	}
}

// Key hashes the named files and all files below the named folders (relative to the source), so that a result is made anew
// when the code that makes it has changed. Tests do not count.
func (s Source) Key(names ...string) (string, error) {
	h := sha256.New()
	for _, name := range names {
		err := filepath.WalkDir(filepath.Join(string(s), name), func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if e.IsDir() && e.Name() == "testdata" {
				return fs.SkipDir
			}
			if !e.Type().IsRegular() || strings.HasSuffix(path, "_test.go") {
				return nil
			}
			return hashFile(h, string(s), path)
		})
		if err != nil {
			return "", fmt.Errorf("cannot read the source code %q: %w", name, err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// hashFile adds a file's name below base and its content to h.
func hashFile(h io.Writer, base, path string) error {
	rel, err := filepath.Rel(base, path)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	fmt.Fprintf(h, "%q %d\n", rel, len(b))
	_, err = h.Write(b)
	return err
}

// devicePrograms are the commands of ours that the root file system holds.
var devicePrograms = []string{"allot-init", "allot-supervisor", "allot-gateway", "allot-portal", "allot-resolver", "allot-updater"}

// deviceCode is the code that they are made of.
var deviceCode = []string{
	"go.mod", "go.sum", "api", "cmd/allot-init", "cmd/allot-supervisor", "cmd/allot-gateway", "cmd/allot-portal",
	"cmd/allot-resolver", "cmd/allot-updater", "gateway", "image", "init", "internal", "portal", "updater",
}

// programs compiles the device's programs and returns the folder that they lie in. The same code and Go release give the
// same bytes on any host: no cgo, no paths, no build ids, no version control stamps.
func (b *build) programs(ctx context.Context) (string, error) {
	code, err := b.Source.Key(deviceCode...)
	if err != nil {
		return "", err
	}
	return b.Cache.Make(ctx, "programs", cache.Key(code, b.goVersion, b.Arch), func(tmp string) error {
		step := b.Progress.Step("compile the device's programs", 0)
		err := b.compile(ctx, tmp)
		step.Done(err)
		return err
	})
}

func (b *build) compile(ctx context.Context, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", dir + "/"}
	for _, p := range devicePrograms {
		args = append(args, "./cmd/"+p)
	}
	work := filepath.Join(dir, ".work") // here it goes with dir when the compiler is stopped
	if err := os.Mkdir(work, 0o755); err != nil {
		return err
	}
	env := append(goEnv(b.Arch), "GOTMPDIR="+work)
	if err := (run.Host{}).Run(ctx, run.Command{Name: "go", Args: args, Dir: string(b.Source), Env: env}); err != nil {
		return err
	}
	return os.RemoveAll(work)
}

// goEnv sets everything that changes what the Go compiler makes.
func goEnv(arch image.Arch) []string {
	return []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + string(arch), "GOAMD64=v1", "GOARM64=v8.0",
		"GOFLAGS=-mod=readonly", "GOEXPERIMENT=", "GOFIPS140=off", "GODEBUG=", "GOWORK=off"}
}

// goVersion asks the Go tool for its release, such as go1.26.8.
func goVersion(ctx context.Context, source Source, arch image.Arch) (string, error) {
	var out strings.Builder
	c := run.Command{Name: "go", Args: []string{"env", "GOVERSION"}, Dir: string(source), Env: goEnv(arch), Stdout: &out}
	if err := (run.Host{}).Run(ctx, c); err != nil {
		return "", fmt.Errorf("cannot find a Go compiler: %w; install Go 1.26 or newer", err)
	}
	return strings.TrimSpace(out.String()), nil
}
