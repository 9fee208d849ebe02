package delta

import (
	"context"
	"crypto/sha256"
	"io"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"allotment/image"
)

// Pack writes the pack of a part to w and returns its index. The pack is the part's extents, each one zstd frame, end to end:
// any program that unpacks zstd makes the whole part of it. The same part gives the same bytes. Workers is how many extents
// are packed at once.
func Pack(ctx context.Context, w io.Writer, part io.ReaderAt, size int64, workers int) (Index, error) {
	extents, err := Extents(part, size)
	if err != nil {
		return Index{}, err
	}
	extents = Cut(extents, maxExtent)
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(maxExtent),
		zstd.WithEncoderConcurrency(workers), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
	if err != nil {
		return Index{}, err
	}
	defer z.Close()
	x := Index{Size: size}
	whole := sha256.New()
	for len(extents) > 0 {
		batch := extents[:min(len(extents), 4*workers)]
		extents = extents[len(batch):]
		raw, packed, err := packAll(ctx, z, part, batch, workers)
		if err != nil {
			return Index{}, err
		}
		for i := range batch {
			whole.Write(raw[i])
			if _, err := w.Write(packed[i]); err != nil {
				return Index{}, err
			}
			x.Extents = append(x.Extents, Packed{sha256.Sum256(raw[i]), batch[i].Size, int64(len(packed[i]))})
		}
	}
	x.Digest = image.NewDigest([sha256.Size]byte(whole.Sum(nil)))
	return x, nil
}

// packAll reads and packs a few extents at once.
func packAll(
	ctx context.Context, z *zstd.Encoder, part io.ReaderAt, extents []Extent, workers int,
) (raw, packed [][]byte, err error) {
	raw, packed = make([][]byte, len(extents)), make([][]byte, len(extents))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	for i, e := range extents {
		group.Go(func() error {
			raw[i] = make([]byte, e.Size)
			if err := readAt(part, raw[i], e.Offset); err != nil {
				return err
			}
			packed[i] = z.EncodeAll(raw[i], nil)
			return ctx.Err()
		})
	}
	return raw, packed, group.Wait()
}
