package install

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"allotment/image"
	"allotment/image/layer"
	"allotment/image/verity"
)

// ErrRefused is what every reason leads back to for which a release is not for this box, whenever it is tried.
var ErrRefused = errors.New("it is not for this system")

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
}

// Check tells whether a release is one that can follow on what runs, and returns its root hash.
func Check(c Config, r image.Release) (verity.RootHash, error) {
	root, err := verity.ParseRootHash(r.RootHash)
	switch runs := c.Manifest; {
	case r.Format != image.ReleaseFormat:
		return root, refused("its description has format %d, and this system knows %d", r.Format, image.ReleaseFormat)
	case r.Name != runs.Name:
		return root, refused("it is of %q, and this is %q", r.Name, runs.Name)
	case r.Arch != runs.Arch:
		return root, refused("it is made for %s machines, and this is %s", r.Arch, runs.Arch)
	case r.Version.Compare(runs.Version) == 0:
		return root, refused("it runs already")
	case r.Version.Compare(runs.Version) < 0:
		return root, refused("it is older than version %s, which runs", runs.Version)
	case r.Epoch < runs.Epoch:
		return root, refused("its contents are older than those of version %s, which runs", runs.Version)
	case err != nil:
		return root, refused("%v", err)
	case root == c.Running.RootHash:
		return root, refused("its root is the one that runs")
	}
	return root, checkParts(r)
}

// checkParts refuses what could not be installed whatever the machine.
func checkParts(r image.Release) error {
	if r.Root.Size%verity.BlockSize != 0 || r.Root.Size < 2*verity.BlockSize || r.UKI.Size <= 0 {
		return refused("root of %d bytes, UKI of %d", r.Root.Size, r.UKI.Size)
	}
	seen := map[image.Digest]bool{r.Root.Digest: true, r.UKI.Digest: true}
	for _, l := range r.Layers {
		if _, err := image.ParseDigest(string(l.Verity)); err != nil || l.Size <= 0 || seen[l.Digest] || seen[l.Verity] {
			return refused("layer %q of %d bytes: its digests are not those of a layer, or of another one", l.Name, l.Size)
		}
		seen[l.Digest], seen[l.Verity] = true, true
	}
	return nil
}

const (
	mib = 1 << 20
	// room is what stays free on the state partition, in bytes: for logs, settings, and what btrfs needs itself.
	room = 64 * mib
	// growth is how many bytes a delta of one byte leads to at most, as a rule: 30 were measured. Where it is more, writing
	// fails and the release is not installed.
	growth = 40
)

// ErrNoSpace says that something has to be deleted first.
var ErrNoSpace = errors.New("there is not enough room")

// enoughSpace checks that the state partition can take layers, UKI and downloads.
func (c Config) enoughSpace(r image.Release) error {
	layers := int64(0)
	for _, l := range r.Layers {
		if _, err := os.Lstat(c.layerPath(l.Verity)); err != nil {
			layers += l.Size
		}
	}
	need := layers + r.UKI.Size + room
	if d := c.delta(r); d != nil {
		need = min(layers, growth*d.Size) + d.Size + r.UKI.Size + room
	}
	var st unix.Statfs_t
	if err := unix.Statfs(c.State, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: c.State, Err: err}
	}
	unneeded, err := c.unneeded(c.neededWith(r)) // which goes before the first byte is written
	if err != nil {
		return err
	}
	if free := int64(st.Bavail)*st.Bsize + unneeded; free < need {
		return fmt.Errorf("%w: %d MiB are missing on the state partition", ErrNoSpace, (need-free+mib-1)/mib)
	}
	return nil
}

// delta is the release's delta from what runs; nil if there is none.
func (c Config) delta(r image.Release) *image.Blob {
	for i, d := range r.Deltas {
		if d.From == c.Running.Version {
			return &r.Deltas[i]
		}
	}
	return nil
}

// layers is the folder of the store.
func (c Config) layers() string { return filepath.Join(c.State, "layers") }

func (c Config) layerPath(verity image.Digest) string {
	return filepath.Join(c.layers(), layer.FileName(verity))
}
