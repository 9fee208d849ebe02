package builder

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sync/errgroup"

	"allotment/builder/deb"
	"allotment/builder/lock"
	"allotment/builder/rootfs"
)

// debs fetches and unpacks packages, as far as the cache does not have them unpacked.
func (b *build) debs(ctx context.Context, packages []lock.Package) ([]rootfs.Deb, error) {
	var missing []lock.Package
	debs := make([]rootfs.Deb, len(packages))
	for i, p := range packages {
		tar := b.Cache.Path("data", p.SHA256.Hex())
		debs[i] = rootfs.Deb{Name: p.Name, Version: p.Version, DataTar: tar}
		if _, err := os.Stat(tar); err != nil {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return debs, nil
	}
	return debs, b.unpack(ctx, missing)
}

// unpack fetches packages and unpacks them into the cache.
func (b *build) unpack(ctx context.Context, packages []lock.Package) error {
	paths, err := b.archive.Fetch(ctx, packages, b.Progress)
	if err != nil {
		return err
	}
	var bytes int64
	for _, p := range packages {
		bytes += p.Size
	}
	step := b.Progress.Step(fmt.Sprintf("unpack %d packages", len(packages)), bytes)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, p := range packages {
		group.Go(func() error {
			if _, err := deb.DataTarCached(ctx, b.Cache, paths[i], p.SHA256); err != nil {
				return fmt.Errorf("cannot unpack package %s: %w", p, err)
			}
			step.Add(p.Size)
			return nil
		})
	}
	err = group.Wait()
	step.Done(err)
	return err
}

// bootTree names the tree of packages that boot files are taken from. It never becomes a file system.
const bootTree = "boot"

// bootPackage is the one package of the boot tree whose name fits.
func (b *build) bootPackage(fits func(name string) bool) (lock.Package, error) {
	for _, p := range b.Lock.Trees[bootTree][b.Arch] {
		if fits(p.Name) {
			return p, nil
		}
	}
	return lock.Package{}, fmt.Errorf("cannot find a package for booting %s in the lock of %q; see trees/boot.toml", b.Arch, b.Profile.Name)
}
