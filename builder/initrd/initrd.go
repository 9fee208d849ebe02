// Package initrd makes initial RAM file systems: a cpio archive in the "newc" form (kernel documentation,
// driver-api/early-userspace/buffer-format), compressed with zstd. The same input gives the same bytes.
package initrd

import (
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Spec is what stage 1 finds.
type Spec struct {
	Init  []byte // the program that becomes /init
	Tree  fs.FS  // folders and regular files that belong at the root: the kernel's modules
	Epoch int64  // modification time of everything, Unix time in seconds
}

// folders exist in every initramfs: mount points, and the root that stage 1 switches to.
var folders = []string{"dev", "proc", "run", "sys", "sysroot"}

// Write writes the archive that spec describes.
func Write(w io.Writer, spec Spec) error {
	z, err := zstd.NewWriter(w,
		zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithEncoderConcurrency(1),
	)
	if err != nil {
		return err
	}
	c := &cpio{w: z, epoch: spec.Epoch}
	if err := writeTree(c, spec); err != nil {
		return fmt.Errorf("cannot write the initrd: %w", err)
	}
	return z.Close()
}

// entry is one member of the archive.
type entry struct {
	path string    // without a leading slash
	mode uint32    // with the file type bits of stat(2)
	data []byte    // of a file
	dev  [2]uint32 // major and minor number of a device node
}

func writeTree(c *cpio, spec Spec) error {
	entries := []entry{
		{path: "init", mode: modeFile | 0o755, data: spec.Init},
		// The kernel opens the console for init, and Go's runtime /dev/null, before anything is mounted.
		{path: "dev/console", mode: modeChar | 0o600, dev: [2]uint32{5, 1}},
		{path: "dev/null", mode: modeChar | 0o666, dev: [2]uint32{1, 3}},
	}
	for _, name := range folders {
		entries = append(entries, entry{path: name, mode: modeDir | 0o755})
	}
	err := fs.WalkDir(spec.Tree, ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil || name == ".":
			return err
		case e.IsDir():
			entries = append(entries, entry{path: name, mode: modeDir | 0o755})
		case e.Type().IsRegular():
			data, err := fs.ReadFile(spec.Tree, name)
			if err != nil {
				return err
			}
			entries = append(entries, entry{path: name, mode: modeFile | 0o644, data: data})
		default:
			return fmt.Errorf("cannot pack %q: neither a folder nor a regular file", name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	// Parents come before their children, as the kernel wants it.
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.path, b.path) })
	for i, e := range entries {
		if i > 0 && e.path == entries[i-1].path {
			return fmt.Errorf("cannot pack %q twice", e.path)
		}
		if err := c.write(e); err != nil {
			return fmt.Errorf("cannot pack %q: %w", e.path, err)
		}
	}
	return c.end()
}
