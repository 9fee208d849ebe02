package release

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/erofs/go-erofs"

	"allotment/builder/delta"
	"allotment/image"
	"allotment/image/disk"
	"allotment/image/disk/fat32"
	"allotment/image/validate"
	"allotment/image/verity"
)

// Image is a finished disk image, taken apart.
type Image struct {
	Manifest image.Manifest
	RootHash string
	UKI      delta.Part
	Root     delta.Part
	Layers   []delta.Part // in the order of Manifest.Layers
}

// ReadImage judges the raw disk of size bytes in r, as allot inspect does, and takes it apart. The parts read from r.
func ReadImage(ctx context.Context, r io.ReaderAt, size int64, o validate.Options) (*Image, error) {
	report, err := validate.Image(r, size, o)
	if err != nil {
		return nil, fmt.Errorf("it is no image that a device could run: %w", err)
	}
	partition := map[string]*io.SectionReader{}
	for _, p := range report.Partitions {
		partition[p.Name] = io.NewSectionReader(r, p.Start, p.Size)
	}
	img := &Image{RootHash: report.RootHash}
	sb, err := verity.ReadSuperblock(partition[disk.VerityA])
	if err != nil {
		return nil, err
	}
	root := io.NewSectionReader(partition[disk.RootA], 0, sb.DataSize())
	if err := img.readManifest(root); err != nil {
		return nil, err
	}
	if img.Root, err = part(ctx, "root", root, root.Size()); err != nil {
		return nil, err
	}
	esp, err := fat32.Read(partition[disk.ESP], partition[disk.ESP].Size())
	if err != nil {
		return nil, err
	}
	uki, err := esp.ReadFile(disk.UKIPath(report.Version))
	if err != nil {
		return nil, err
	}
	if img.UKI, err = part(ctx, "uki", bytes.NewReader(uki), int64(len(uki))); err != nil {
		return nil, err
	}
	at := img.Manifest.Seed.Offset
	for _, l := range img.Manifest.Layers {
		p, err := part(ctx, l.Name, io.NewSectionReader(partition[disk.State], at, l.Size), l.Size)
		if err != nil {
			return nil, err
		}
		img.Layers = append(img.Layers, p)
		at += l.Size
	}
	return img, nil
}

func (img *Image) readManifest(root io.ReaderAt) error {
	files, err := erofs.Open(root)
	if err != nil {
		return err
	}
	b, err := fs.ReadFile(files, strings.TrimPrefix(image.ManifestPath, "/"))
	if err != nil {
		return err
	}
	return decode(b, &img.Manifest)
}

// part names bytes by their digest.
func part(ctx context.Context, name string, r io.ReaderAt, size int64) (delta.Part, error) {
	d, _, err := image.DigestOf(io.TeeReader(io.NewSectionReader(r, 0, size), contextWriter{ctx, io.Discard}))
	if err != nil {
		return delta.Part{}, err
	}
	p := delta.Part{ReaderAt: r}
	p.Name, p.Digest, p.Size = name, d, size
	return p, nil
}

// parts lists UKI, root and layers.
func (img *Image) parts() []delta.Part { return append([]delta.Part{img.UKI, img.Root}, img.Layers...) }
