package builder

import (
	"context"
	"path/filepath"

	"allotment/builder/profile"
	"allotment/builder/registry"
	"allotment/builder/rootfs"
	"allotment/builder/tools"
)

// registryFolder is the folder with the policy that admits images of registries.
func (b *build) registryFolder() string {
	if b.Registry != "" {
		return b.Registry
	}
	return filepath.Join(string(b.Source), "registry")
}

// imageTree makes the tree of a declaration that is an OCI image.
func (b *build) imageTree(ctx context.Context, decl *profile.Tree) (*rootfs.Tree, error) {
	root, err := tools.OpenRegistry(ctx, b.Cache, b.archive, b.Progress)
	if err != nil {
		return nil, err
	}
	from := registry.Source{
		Cache: b.Cache, Policy: b.registryFolder(), Report: b.Progress, Tools: root.With(b.registryFolder()),
	}
	img, err := from.Fetch(ctx, decl.Image, b.Arch)
	if err != nil {
		return nil, err
	}
	tree, err := rootfs.ReadImage(ctx, img.Layers...)
	if err != nil {
		return nil, err
	}
	if tree, err = rootfs.BuildImage(tree, decl); err != nil {
		return nil, err
	}
	b.warnings = append(b.warnings, tree.Warnings...)
	return tree, nil
}
