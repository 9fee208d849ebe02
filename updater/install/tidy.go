package install

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"allotment/image"
	"allotment/image/layer"
	"allotment/init/durable"
	"allotment/init/state/btrfs"
)

// Tidy removes what neither the running system nor one of the other versions needs: layers, copies of UKIs, notes of needs,
// and all downloads. If it is not known what one of them needs, no layer is removed, and that is the error.
func Tidy(c Config, others ...image.Version) error {
	keep := map[string]bool{string(c.Running.Version): true}
	needed := c.runningLayers()
	var unknown error
	for _, v := range others {
		if keep[string(v)] = true; v == c.Running.Version {
			continue
		}
		n, err := NeedsOf(c.State, v)
		unknown = errors.Join(unknown, err)
		for _, l := range n.Layers {
			needed[layer.FileName(l.Digest)] = true
		}
	}
	err := unknown
	if unknown == nil {
		err = c.removeLayers(needed)
	}
	kept := func(suffix string) func(string) bool {
		return func(name string) bool {
			return keep[strings.TrimSuffix(name, suffix)] && strings.HasSuffix(name, suffix)
		}
	}
	return errors.Join(err, removeOthers(filepath.Dir(UKI(c.State, "")), kept(".efi")),
		removeOthers(filepath.Dir(needsFile(c.State, "")), kept(".json")), c.removeDownloads(nil))
}

// runningLayers are the files of the layers that the running system names.
func (c Config) runningLayers() map[string]bool {
	names := map[string]bool{}
	for _, l := range c.Manifest.Layers {
		names[layer.FileName(l.Digest)] = true
	}
	return names
}

// neededWith are the files of the layers that the running system and the release name.
func (c Config) neededWith(r image.Release) map[string]bool {
	names := c.runningLayers()
	for _, l := range r.Layers {
		names[layer.FileName(l.Verity)] = true
	}
	return names
}

// removeLayers removes all layers but those needed.
func (c Config) removeLayers(needed map[string]bool) error {
	return removeOthers(c.layers(), func(name string) bool { return needed[name] })
}

// unneeded is how many bytes the layers take that are not needed, as they lie on the disk. What they share with others counts
// too, so it is at most that.
func (c Config) unneeded(needed map[string]bool) (bytes int64, err error) {
	entries, err := os.ReadDir(c.layers())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	for _, e := range entries {
		var st unix.Stat_t
		if !needed[e.Name()] && unix.Lstat(filepath.Join(c.layers(), e.Name()), &st) == nil {
			bytes += st.Blocks * 512
		}
	}
	return bytes, nil
}

// removeDownloads removes all downloads but those of blobs of the release.
func (c Config) removeDownloads(r *image.Release) error {
	keep := map[string]bool{}
	if r != nil {
		for _, d := range r.Deltas {
			keep[d.Digest.Hex()] = true
		}
		for _, p := range allParts(*r) {
			keep[p.Pack.Digest.Hex()], keep[p.Index.Digest.Hex()] = true, true
		}
	}
	return removeOthers(FetchDir(c.State), func(name string) bool {
		digest, _, _ := strings.Cut(name, ".")
		return keep[digest]
	})
}

// removeOthers removes the files of a folder that are not kept.
func removeOthers(dir string, kept func(name string) bool) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if kept(e.Name()) || !e.Type().IsRegular() {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if e := makeWay(path); e != nil {
			err = errors.Join(err, e)
			continue
		}
		err = errors.Join(err, removeFile(path))
	}
	return err
}

// Describe sees to it that the needs and the UKI of the running system are kept, which a fresh image does not bring.
func Describe(c Config) error {
	if _, err := NeedsOf(c.State, c.Running.Version); err != nil {
		if err := c.KeepNeeds(c.Running.Version, Needs{c.Running.RootHash, c.Manifest.Layers}); err != nil {
			return err
		}
	}
	path := UKI(c.State, c.Running.Version)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := c.copyUKI(path); err != nil {
		return fmt.Errorf("cannot keep a copy of the running system's UKI: %w", err)
	}
	return nil
}

// copyUKI copies the running system's UKI from the ESP.
func (c Config) copyUKI(path string) error {
	if err := durable.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	b, err := c.Boot()
	if err != nil {
		return err
	}
	defer b.Close()
	from, err := b.UKI(c.Running.Version)
	if err != nil {
		return err
	}
	out, err := os.Create(path + unfinished)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, from)
	if err = errors.Join(err, out.Chmod(0o444), out.Sync(), out.Close()); err != nil {
		return errors.Join(err, os.Remove(path+unfinished))
	}
	return errors.Join(os.Rename(path+unfinished, path), btrfs.Sync(filepath.Dir(path)))
}
