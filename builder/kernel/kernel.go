// Package kernel takes out of a Debian linux-image package what an image needs: the kernel, and of its thousands of
// modules the few that modules.toml names, unpacked, with the indexes by which the device finds them.
package kernel

import (
	"archive/tar"
	"bytes"
	"context"
	_ "embed" // modules.toml
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/ulikunitz/xz"

	"allotment/image"
	"allotment/internal/cache"
)

//go:embed modules.toml
var modulesTOML []byte

// revision is part of the cache key: it changes when this package makes other files of the same input.
const revision = 1

// Kernel is an unpacked kernel on the host. The folders' contents belong at the root of the two file systems.
type Kernel struct {
	Release   string // as uname -r prints it
	Image     string // path of vmlinuz, on arm64 an uncompressed Image
	Initramfs string // folder with usr/lib/modules/RELEASE: what stage 1 needs
	Root      string // the same for the root: all curated modules, stage 1's too
}

// Extract takes the kernel out of dataTar, the path of the plain data.tar of a linux-image package. The package's hash
// sha256 is the key under which the cache keeps the result.
func Extract(ctx context.Context, c cache.Dir, dataTar string, sha256 image.Digest) (*Kernel, error) {
	key := cache.Key(revision, sha256, string(modulesTOML))
	dir, err := c.Make(ctx, "kernel", key, func(tmp string) error {
		f, err := os.Open(dataTar)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := extract(ctx, f, modulesTOML, tmp); err != nil {
			return fmt.Errorf("cannot take the kernel out of %q: %w", dataTar, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	release, err := os.ReadFile(filepath.Join(dir, "release"))
	if err != nil {
		return nil, err
	}
	return &Kernel{
		Release:   string(release),
		Image:     filepath.Join(dir, "vmlinuz"),
		Initramfs: filepath.Join(dir, "initramfs"),
		Root:      filepath.Join(dir, "root"),
	}, nil
}

// lists is the form of modules.toml.
type lists struct {
	Initramfs []string `toml:"initramfs"`
	Root      []string `toml:"root"`
}

// extract fills dir with the files that Kernel names.
func extract(ctx context.Context, data io.Reader, wanted []byte, dir string) error {
	var want lists
	if err := toml.NewDecoder(bytes.NewReader(wanted)).DisallowUnknownFields().Decode(&want); err != nil {
		return fmt.Errorf("cannot read the list of modules: %w", err)
	}
	p, err := readPackage(data)
	if err != nil {
		return err
	}
	initramfs, err := p.choose(ctx, want.Initramfs)
	if err != nil {
		return err
	}
	root, err := p.choose(ctx, slices.Concat(want.Initramfs, want.Root))
	if err != nil {
		return err
	}
	base := path.Join("usr/lib/modules", p.release)
	if err := writeModules(filepath.Join(dir, "root", base), root, nil); err != nil {
		return err
	}
	sameFile := func(name string) string { return filepath.Join(dir, "root", base, name) }
	if err := writeModules(filepath.Join(dir, "initramfs", base), initramfs, sameFile); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "vmlinuz"), p.vmlinuz, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "release"), []byte(p.release), 0o644)
}

// kernelPackage is what was read of a package. Modules are kept packed, and unpacked when they are chosen.
type kernelPackage struct {
	release  string
	vmlinuz  []byte
	packed   map[string][]byte // .ko or .ko.xz by path below /usr/lib/modules/RELEASE
	byName   map[string]string // path by module name
	unpacked map[string]*module
}

func readPackage(data io.Reader) (*kernelPackage, error) {
	p := &kernelPackage{packed: map[string][]byte{}, byName: map[string]string{}, unpacked: map[string]*module{}}
	tr := tar.NewReader(data)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := p.take(path.Clean("/"+h.Name), tr); err != nil {
			return nil, err
		}
	}
	if p.vmlinuz == nil || len(p.packed) == 0 {
		return nil, fmt.Errorf("the package has no /boot/vmlinuz-* or no modules of that release")
	}
	return p, nil
}

// take keeps one file if it is of use.
func (p *kernelPackage) take(name string, r io.Reader) (err error) {
	if release, ok := strings.CutPrefix(name, "/boot/vmlinuz-"); ok {
		if p.release != "" && p.release != release {
			return fmt.Errorf("the package has two kernels, %q and %q", p.release, release)
		}
		p.release = release
		p.vmlinuz, err = io.ReadAll(r)
		return err
	}
	rest, ok := strings.CutPrefix(strings.TrimPrefix(name, "/usr"), "/lib/modules/")
	if !ok || !strings.HasSuffix(name, ".ko") && !strings.HasSuffix(name, ".ko.xz") {
		return nil
	}
	release, below, _ := strings.Cut(rest, "/")
	if p.release != "" && p.release != release {
		return fmt.Errorf("the package has modules of %q beside kernel %q", release, p.release)
	}
	p.release = release
	if p.packed[below], err = io.ReadAll(r); err != nil {
		return err
	}
	p.byName[moduleName(below)] = below
	return nil
}

// module unpacks and reads a module, once.
func (p *kernelPackage) module(file string) (*module, error) {
	if m := p.unpacked[file]; m != nil {
		return m, nil
	}
	b := p.packed[file]
	if strings.HasSuffix(file, ".xz") {
		r, err := xz.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, fmt.Errorf("cannot unpack %q: %w", file, err)
		}
		if b, err = io.ReadAll(r); err != nil {
			return nil, fmt.Errorf("cannot unpack %q: %w", file, err)
		}
	}
	m, err := parseModule(strings.TrimSuffix(file, ".xz"), b)
	if err != nil {
		return nil, err
	}
	p.unpacked[file] = m
	return m, nil
}
