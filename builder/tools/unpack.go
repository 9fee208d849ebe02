package tools

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"allotment/builder/deb"
	"allotment/builder/lock"
	"allotment/builder/npm"
	"allotment/internal/progress"
)

// unneeded are the folders and files of packages that no tool reads.
var unneeded = []string{
	"usr/include", "usr/lib/systemd/boot", "usr/lib/systemd/catalog", "usr/lib/udev",
	"usr/share/bash-completion", "usr/share/bug", "usr/share/doc", "usr/share/doc-base", "usr/share/fish",
	"usr/share/i18n", "usr/share/icons", "usr/share/info", "usr/share/lintian", "usr/share/locale", "usr/share/man",
	"usr/share/pixmaps", "usr/share/zsh",
	// firmware for machines that Allotment does not run on
	"usr/share/qemu/canyonlands.dtb", "usr/share/qemu/bamboo.dtb", "usr/share/qemu/hppa-firmware.img",
	"usr/share/qemu/hppa-firmware64.img", "usr/share/qemu/openbios-ppc", "usr/share/qemu/openbios-sparc32",
	"usr/share/qemu/openbios-sparc64", "usr/share/qemu/palcode-clipper", "usr/share/qemu/s390-ccw.img",
	"usr/share/qemu/skiboot.lid", "usr/share/qemu/slof.bin", "usr/share/qemu/trace-events-all",
	"usr/share/qemu/u-boot-sam460-20100605.bin", "usr/share/qemu/u-boot.e500",
}

// isUnneeded tells whether name or a folder above it is in unneeded.
func isUnneeded(name string) bool {
	for _, u := range unneeded {
		if name == u || strings.HasPrefix(name, u+"/") {
			return true
		}
	}
	return false
}

// unpack makes dir and unpacks the package files debs, those of packages, into it.
func unpack(ctx context.Context, dir string, packages []lock.Package, debs []string, step progress.Step) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	// base-files has the links of the merged /usr, such as /bin, which the others unpack through.
	for i, p := range packages {
		if p.Name == "base-files" {
			if err := unpackOne(ctx, root, debs[i]); err != nil {
				return err
			}
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	for i, p := range packages {
		group.Go(func() error {
			defer step.Add(p.Size)
			if p.Name == "base-files" {
				return nil
			}
			return unpackOne(ctx, root, debs[i])
		})
	}
	return group.Wait()
}

// unpackOne unpacks the package at path, Debian's or the npm registry's.
func unpackOne(ctx context.Context, root *os.Root, path string) error {
	is, err := npm.Is(path)
	switch {
	case err != nil:
		return err
	case is:
		return unpackNPM(ctx, root, path)
	}
	p, err := deb.Open(path)
	if err != nil {
		return err
	}
	defer p.Close()
	data, err := p.DataTar()
	if err != nil {
		return err
	}
	defer data.Close()
	if err := extract(ctx, root, tar.NewReader(data)); err != nil {
		return fmt.Errorf("cannot unpack %q: %w", path, err)
	}
	return nil
}

func unpackNPM(ctx context.Context, root *os.Root, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var data bytes.Buffer // some megabytes at most: these are files for browsers
	if err := npm.WriteTar(ctx, f, &data); err != nil {
		return err
	}
	if err := extract(ctx, root, tar.NewReader(&data)); err != nil {
		return fmt.Errorf("cannot unpack %q: %w", path, err)
	}
	return nil
}

// extract writes the entries of an archive below root. Owners are those of the caller, and files lose their set-user-ID
// and set-group-ID bits: no tool needs them, and a cache is no place for them.
func extract(ctx context.Context, root *os.Root, in *tar.Reader) error {
	for {
		h, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		name := path.Clean(strings.TrimPrefix(h.Name, "/"))
		if name == "." || isUnneeded(name) {
			continue
		}
		if err := extractEntry(root, name, h, in); err != nil {
			return err
		}
	}
}

func extractEntry(root *os.Root, name string, h *tar.Header, content io.Reader) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	perm := h.FileInfo().Mode().Perm()
	switch h.Typeflag {
	case tar.TypeDir:
		err := root.Mkdir(name, perm|0o700)
		if errors.Is(err, fs.ErrExist) { // of another package, or a link to a folder, which stays
			return nil
		}
		return err
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return root.Link(path.Clean(strings.TrimPrefix(h.Linkname, "/")), name)
	case tar.TypeReg:
		return extractFile(root, name, perm, h.Size, content)
	}
	return fmt.Errorf("cannot make %q: tar entry of type %q", name, h.Typeflag)
}

// extractFile writes a new file, leaving holes for zeros: firmware images are nearly all zeros.
func extractFile(root *os.Root, name string, perm fs.FileMode, size int64, content io.Reader) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyBuffer(sparseWriter{f}, struct{ io.Reader }{content}, make([]byte, 64<<10)); err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	if err := f.Chmod(perm | 0o600); err != nil { // the umask would take bits away from OpenFile's
		return err
	}
	return f.Close()
}

// sparseWriter skips what is written to it where that is zeros only.
type sparseWriter struct{ f *os.File }

var zeros = make([]byte, 64<<10)

func (w sparseWriter) Write(b []byte) (int, error) {
	if len(b) <= len(zeros) && bytes.Equal(b, zeros[:len(b)]) {
		_, err := w.f.Seek(int64(len(b)), io.SeekCurrent)
		return len(b), err
	}
	return w.f.Write(b)
}
