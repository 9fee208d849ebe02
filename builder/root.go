package builder

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"allotment/builder/rootfs"
	"allotment/builder/tools"
	"allotment/image"
	"allotment/image/disk"
	"allotment/image/verity"
	"allotment/internal/cache"
)

// rootTree names the tree that the device's root file system starts from.
const rootTree = "root"

// rootCode is the code that decides the bytes of the root, the initial RAM file system and the boot files.
var rootCode = []string{"go.mod", "builder", "image"}

// rootFS is a finished root file system: an EROFS file, its verity hash device, and what they say.
type rootFS struct {
	manifest image.Manifest
	erofs    string
	verity   string
	hash     verity.RootHash
}

// root makes the root file system: the declared tree, kernel modules, our programs and the manifest, which names
// every layer by digest.
func (b *build) root(ctx context.Context, t *tools.Root, p *parts) (*rootFS, error) {
	r := &rootFS{manifest: b.manifest(p)}
	chain, err := b.Profile.Chain(b.Profile.Trees[rootTree])
	if err != nil {
		return nil, err
	}
	treeKey, err := b.treeKey(chain)
	if err != nil {
		return nil, err
	}
	key := cache.Key(treeKey, b.rootCode, p.kernel, p.programs, r.manifest)
	dir, err := b.Cache.Make(ctx, "roots", key, func(tmp string) error {
		step := b.Progress.Step("make the root file system", 0)
		err := b.fillRoot(ctx, t, r, p, tmp)
		step.Done(err)
		return err
	})
	if err != nil {
		return nil, err
	}
	r.erofs, r.verity = filepath.Join(dir, "root.erofs"), filepath.Join(dir, "root.verity")
	hash, err := os.ReadFile(filepath.Join(dir, "roothash"))
	if err != nil {
		return nil, err
	}
	r.hash, err = verity.ParseRootHash(string(hash))
	return r, err
}

// manifest describes the system to the device.
func (b *build) manifest(p *parts) image.Manifest {
	m := image.Manifest{
		Format: image.ManifestFormat, Name: b.Profile.Name, Title: b.Profile.Title, Version: b.Profile.Version,
		Arch: b.Arch, Epoch: b.epoch, Kernel: p.kernel.Release, Network: b.Profile.Network, Time: b.Profile.Time,
		Layers: []image.Layer{}, Modules: []image.Module{}, Organisation: b.Profile.Organisation,
		Settings: b.Profile.Settings, Developer: b.Profile.Developer, Update: b.Profile.Update,
		Gateway: b.Profile.Gateway,
	}
	for _, l := range p.layers {
		m.Layers = append(m.Layers, l.Layer)
		m.Seed.Size += l.Size
	}
	m.Seed.Offset = disk.SeedOffset(m.Seed.Size)
	for _, mod := range p.modules {
		m.Modules = append(m.Modules, mod.Module)
	}
	return m
}

func (b *build) fillRoot(ctx context.Context, t *tools.Root, r *rootFS, p *parts, dir string) error {
	chain, err := b.Profile.Chain(b.Profile.Trees[rootTree])
	if err != nil {
		return err
	}
	tree, _, err := b.tree(ctx, chain)
	if err != nil {
		return err
	}
	if err := addFolder(tree, p.kernel.Root); err != nil {
		return err
	}
	if err := addPrograms(tree, p.programs); err != nil {
		return err
	}
	if err := addOSRelease(tree, b.osRelease()); err != nil {
		return err
	}
	manifest, err := json.MarshalIndent(r.manifest, "", "  ")
	if err != nil {
		return err
	}
	if err := tree.PutFile(image.ManifestPath, 0o644, rootfs.Content{Bytes: append(manifest, '\n')}); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	out, tar := filepath.Join(dir, "root.erofs"), filepath.Join(dir, "root.tar")
	if err := b.writeEROFS(ctx, t, tree, tar, out); err != nil {
		return err
	}
	os.Remove(tar) // only layers are needed as tar files later on
	return formatVerity(out, filepath.Join(dir, "root.verity"), filepath.Join(dir, "roothash"))
}

// addPrograms adds the device's programs, and /usr/sbin/init, which stage 1 starts.
func addPrograms(tree *rootfs.Tree, folder string) error {
	const lib = "/usr/lib/allotment"
	for _, name := range devicePrograms {
		c, err := rootfs.HostFile(filepath.Join(folder, name))
		if err != nil {
			return err
		}
		if err := tree.PutFile(path.Join(lib, name), 0o755, c); err != nil {
			return err
		}
	}
	return tree.PutLink("/usr/sbin/init", path.Join(lib, "allot-init"))
}

// addOSRelease adds os-release(5), by which tools that look at a disk know what it holds.
func addOSRelease(tree *rootfs.Tree, text string) error {
	if err := tree.PutFile("/usr/lib/os-release", 0o644, rootfs.Content{Bytes: []byte(text)}); err != nil {
		return err
	}
	return tree.PutLink("/etc/os-release", "../usr/lib/os-release")
}

// addFolder adds the folders and regular files below dir to the root of tree.
func addFolder(tree *rootfs.Tree, dir string) error {
	return filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		in := path.Join("/", filepath.ToSlash(rel))
		switch {
		case e.IsDir():
			if n := tree.Lookup(in); n != nil {
				return nil
			}
			return tree.PutDir(in, 0o755)
		case e.Type().IsRegular():
			c, err := rootfs.HostFile(name)
			if err != nil {
				return err
			}
			return tree.PutFile(in, 0o644, c)
		}
		return fmt.Errorf("cannot add %q to the root file system: neither a folder nor a regular file", name)
	})
}

// formatVerity writes the verity hash device of the file data, and its root hash beside it.
func formatVerity(data, hashDevice, hashFile string) error {
	in, err := os.Open(data)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.Create(hashDevice)
	if err != nil {
		return err
	}
	defer out.Close()
	w := bufio.NewWriterSize(out, 1<<20)
	hash, err := verity.Format(in, st.Size(), w)
	if err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return os.WriteFile(hashFile, []byte(hash.String()), 0o644)
}
