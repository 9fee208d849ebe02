package builder

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/builder/registry"
	"allotment/builder/rootfs"
	"allotment/builder/tools"
	"allotment/image"
	"allotment/image/erofs"
	"allotment/image/layer"
	"allotment/image/verity"
	"allotment/internal/cache"
)

// treeCode is the code that decides the bytes of a tree, and of the tar and EROFS files made of it.
var treeCode = []string{
	"go.mod", "builder/bytecode.go", "builder/layers.go", "builder/image.go", "builder/registry", "builder/deb", "builder/profile",
	"builder/rootfs", "image/erofs", "image/layer",
	"image/verity/verity.go",
}

// Layer is a finished layer on the host.
type Layer struct {
	image.Layer
	Tar      string // canonical tar file of the layer's own paths
	EROFS    string
	Packages []lock.Package
	Image    string // of a registry that it is made of; empty: none
}

// module is a module whose layers are made.
type module struct {
	image.Module
	layers []*Layer // lowest first
}

// layers makes the layers of every module, each once.
func (b *build) layers(ctx context.Context, t *tools.Root) ([]*Layer, []module, error) {
	var layers []*Layer
	made := map[string]*Layer{}
	var modules []module
	for _, spec := range b.Profile.Modules {
		m := module{Module: spec.Module}
		chain, err := b.Profile.Chain(&spec.Tree)
		if err != nil {
			return nil, nil, err
		}
		for i, decl := range chain {
			l := made[decl.Name]
			if l == nil {
				if l, err = b.layer(ctx, t, chain[:i+1]); err != nil {
					return nil, nil, err
				}
				if i := slices.IndexFunc(layers, func(o *Layer) bool { return o.Digest == l.Digest }); i >= 0 {
					l = layers[i] // of another tree with the same content
				} else {
					layers = append(layers, l)
				}
				made[decl.Name] = l
			}
			m.layers = append(m.layers, l)
			m.Layers = append(m.Layers, l.Digest)
		}
		modules = append(modules, m)
	}
	return layers, modules, nil
}

// layer returns the layer of the last declaration of a chain, made if the cache does not have it. One that it has is
// measured again: bytes that have changed since it was made must not become part of what we sign.
func (b *build) layer(ctx context.Context, t *tools.Root, chain []*profile.Tree) (*Layer, error) {
	decl := chain[len(chain)-1]
	key, err := b.treeKey(chain)
	if err != nil {
		return nil, err
	}
	damaged := func(dir string) bool {
		_, err := measureLayer(dir)
		return err != nil && !errors.Is(err, fs.ErrNotExist)
	}
	if damaged(b.Cache.Path("layers", key)) {
		if err := b.Cache.Discard(ctx, "layers", key, damaged); err != nil {
			return nil, err
		}
	}
	dir, err := b.Cache.Make(ctx, "layers", key, func(tmp string) error {
		step := b.Progress.Step(fmt.Sprintf("make layer %s", decl.Name), 0)
		err := b.makeLayer(ctx, t, chain, tmp)
		step.Done(err)
		return err
	})
	if err != nil {
		return nil, err
	}
	l, err := measureLayer(dir)
	if err != nil {
		return nil, err
	}
	l.Name, l.Packages, l.Image = decl.Name, b.Lock.Trees[decl.Name][b.Arch], decl.Image
	return l, nil
}

// The files of a layer in the cache.
const (
	layerTar    = "layer.tar"
	layerEROFS  = "layer.erofs"
	layerDigest = "digest" // fs-verity digest of the EROFS file when it was made
)

// measureLayer reads the layer in the cache's folder dir and checks that it is as it was made.
func measureLayer(dir string) (*Layer, error) {
	l := &Layer{Tar: filepath.Join(dir, layerTar), EROFS: filepath.Join(dir, layerEROFS)}
	made, err := os.ReadFile(filepath.Join(dir, layerDigest))
	if err != nil {
		return nil, err
	}
	if l.Digest, l.Size, err = erofsDigest(l.EROFS); err != nil {
		return nil, err
	}
	if string(made) != string(l.Digest) {
		return nil, fmt.Errorf("cannot use layer %q: its digest is %s, and was %s when it was made", l.EROFS, l.Digest, made)
	}
	return l, nil
}

func erofsDigest(path string) (image.Digest, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	return layer.Digest(bufio.NewReaderSize(f, 1<<20))
}

func (b *build) makeLayer(ctx context.Context, t *tools.Root, chain []*profile.Tree, dir string) error {
	tree, base, err := b.tree(ctx, chain)
	if err != nil {
		return err
	}
	if base != nil {
		if tree, err = tree.Subtract(base); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	compiled := filepath.Join(dir, "python")
	if err := addBytecode(ctx, t, tree, compiled); err != nil {
		return err
	}
	out := filepath.Join(dir, layerEROFS)
	if err := b.writeEROFS(ctx, t, tree, filepath.Join(dir, layerTar), out); err != nil {
		return err
	}
	if err := os.RemoveAll(compiled); err != nil {
		return err
	}
	digest, _, err := erofsDigest(out)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, layerDigest), []byte(digest), 0o644)
}

// tree assembles the tree of the last declaration of a chain, on top of the one below it, which is returned as well.
func (b *build) tree(ctx context.Context, chain []*profile.Tree) (tree, base *rootfs.Tree, err error) {
	for _, decl := range chain {
		if decl.Image != "" { // which lies on nothing
			tree, err = b.imageTree(ctx, decl)
			return tree, nil, err
		}
		debs, err := b.debs(ctx, b.Lock.Trees[decl.Name][b.Arch])
		if err != nil {
			return nil, nil, err
		}
		base = tree
		if tree, err = rootfs.Build(ctx, debs, decl, base); err != nil {
			return nil, nil, err
		}
	}
	b.warnings = append(b.warnings, tree.Warnings...)
	return tree, base, nil
}

// writeEROFS writes tree to a tar file and turns that into an EROFS file, whose UUID follows from the tar file's bytes.
func (b *build) writeEROFS(ctx context.Context, t *tools.Root, tree *rootfs.Tree, tar, out string) error {
	digest, err := writeTar(tree, tar, b.time())
	if err != nil {
		return fmt.Errorf("cannot write %q: %w", tar, err)
	}
	id := verity.UUID(digest.Bytes()[:16])
	return erofs.Make(ctx, t, tar, out, erofs.Options{UUID: id.String(), Epoch: b.time()})
}

// writeTar writes tree to a new file and returns the file's digest.
func writeTar(tree *rootfs.Tree, path string, epoch time.Time) (image.Digest, error) {
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(f, hash), 1<<20)
	if err := tree.WriteTar(w, epoch); err != nil {
		return "", err
	}
	if err := w.Flush(); err != nil {
		return "", err
	}
	return image.NewDigest([sha256.Size]byte(hash.Sum(nil))), f.Close()
}

// treeKey hashes all that decides the bytes of the last tree of a chain: packages, declarations, the files beside them,
// our code and the tools.
func (b *build) treeKey(chain []*profile.Tree) (string, error) {
	parts := []any{b.treeCode, b.toolsID, b.epoch}
	for _, decl := range chain {
		files, err := sourceFiles(decl)
		if err != nil {
			return "", err
		}
		without := *decl
		without.Dir = "" // where a clone lies does not matter
		parts = append(parts, without, files, b.Lock.Trees[decl.Name][b.Arch])
		if decl.Image != "" { // so that an image is judged anew when the policy has changed
			policy, err := registry.Policy(b.registryFolder())
			if err != nil {
				return "", err
			}
			parts = append(parts, policy)
		}
	}
	return cache.Key(parts...), nil
}

// sourceFiles returns the digests of the files beside a declaration that it takes contents from.
func sourceFiles(decl *profile.Tree) (map[string]image.Digest, error) {
	files := map[string]image.Digest{}
	for _, f := range decl.Files {
		if f.Source == "" {
			continue
		}
		r, err := os.Open(filepath.Join(decl.Dir, f.Source))
		if err != nil {
			return nil, fmt.Errorf("cannot read a file of tree %q: %w", decl.Name, err)
		}
		files[f.Source], _, err = image.DigestOf(r)
		r.Close()
		if err != nil {
			return nil, fmt.Errorf("cannot read %q: %w", f.Source, err)
		}
	}
	return files, nil
}
