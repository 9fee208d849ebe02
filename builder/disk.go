package builder

import (
	"context"
	"fmt"
	"os"

	"allotment/builder/tools"
	"allotment/image/disk"
)

// layout computes where everything goes on the disk.
func (b *build) layout(layers []*Layer) (disk.Layout, error) {
	const mib = 1 << 20
	d := b.Profile.Disk
	sizes := disk.Sizes{ESP: int64(d.ESP) * mib, Root: int64(d.Root) * mib, Verity: int64(d.Verity) * mib, State: int64(d.State) * mib}
	var layerSizes []int64
	for _, l := range layers {
		layerSizes = append(layerSizes, l.Size)
	}
	layout, err := disk.NewLayout(b.Arch, sizes, layerSizes)
	if err != nil {
		return layout, fmt.Errorf("cannot lay out the disk of %q: %w", b.Profile.Name, err)
	}
	return layout, nil
}

// disk makes the raw disk image path.
func (b *build) disk(ctx context.Context, t *tools.Root, path string, p *parts) error {
	layout, err := b.layout(p.layers)
	if err != nil {
		return err
	}
	spec := disk.Spec{
		Output: path, Layout: layout, Version: b.Profile.Version, RootHash: p.root.hash, Time: b.time(),
		SystemdBoot: p.boot.loader, UKI: p.boot.uki, Auth: b.keys.Auth,
		Kernel: p.boot.kernel, Initrd: p.boot.initrd, Cmdline: p.boot.cmdline, GRUBModules: p.boot.grubModules,
		Root: p.root.erofs, Verity: p.root.verity,
		Tools: t,
	}
	total := int64(0)
	for _, file := range []string{p.root.erofs, p.root.verity} {
		st, err := os.Stat(file)
		if err != nil {
			return err
		}
		total += st.Size()
	}
	for _, l := range p.layers {
		spec.Layers = append(spec.Layers, l.EROFS)
		total += l.Size
	}
	step := b.Progress.Step("write the disk image", total)
	spec.Wrote = step.Add
	err = disk.Build(ctx, spec)
	step.Done(err)
	return err
}
