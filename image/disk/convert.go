package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/klauspost/compress/zstd"

	"allotment/internal/run"
)

// Convert makes the file out in another format from a raw disk image. The same image and file name give the same bytes.
// Tools has qemu-img; wrote, which may be nil, is told how many bytes of the raw image are done, where that is known.
func Convert(ctx context.Context, tools run.Runner, raw, out string, to Format, wrote func(bytes int64)) error {
	if err := convert(ctx, tools, raw, out, to, wrote); err != nil {
		return fmt.Errorf("cannot make %q: %w", out, err)
	}
	return nil
}

func convert(ctx context.Context, tools run.Runner, raw, out string, to Format, wrote func(int64)) error {
	out, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	// A vmdk file names itself inside, so the work is done under the final name in another folder.
	work, err := os.MkdirTemp(filepath.Dir(out), ".convert-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	tmp := filepath.Join(work, filepath.Base(out))
	switch to {
	case Zstd:
		err = compress(ctx, raw, tmp, wrote)
	case QCOW2:
		err = qemuConvert(ctx, tools, raw, tmp, "qcow2", "-c", "-o", "compat=1.1,compression_type=zstd")
	case VMDK:
		err = qemuConvert(ctx, tools, raw, tmp, "vmdk", "-o", "subformat=streamOptimized")
	case VHD:
		err = qemuConvert(ctx, tools, raw, tmp, "vpc", "-o", "subformat=fixed,force_size=on")
	default:
		err = fmt.Errorf("image format %q cannot be made from raw", to)
	}
	if err != nil {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := settle(f, to, raw); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	return publish(f, out)
}

// settle puts what follows from the raw disk in place of what qemu-img draws at random or takes from the clock.
func settle(f *os.File, format Format, raw string) error {
	if format != VMDK && format != VHD {
		return nil
	}
	id, err := diskGUID(raw)
	if err != nil {
		return err
	}
	if format == VMDK {
		return settleVMDK(f, id)
	}
	return settleVHD(f, id)
}

func qemuConvert(ctx context.Context, tools run.Runner, raw, out, driver string, args ...string) error {
	raw, err := filepath.Abs(raw)
	if err != nil {
		return err
	}
	args = append([]string{"convert", "-q", "-f", "raw", "-O", driver}, args...)
	return tools.Run(ctx, run.Command{Name: "qemu-img", Args: append(args, raw, out)})
}

// compress writes raw with zstd. Level, window and number of goroutines are fixed: the output depends on them.
//
// Most of a disk is zeros. They are not passed through the encoder: a zstd file is any number of frames end to end (RFC
// 8878, section 3.1), and a frame of zeros is the same few bytes each time.
func compress(ctx context.Context, raw, out string, wrote func(int64)) error {
	src, err := OpenPlain(raw)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(out)
	if err != nil {
		return err
	}
	defer dst.Close()
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(2),
		zstd.WithWindowSize(8*mib))
	if err != nil {
		return err
	}
	if err := compressBlocks(ctx, dst, z, src, wrote); err != nil {
		return err
	}
	return dst.Close()
}

// compressBlocks writes each run of blocks that are not all zeros as one frame, and each block of zeros as a frame. Whether
// zeros lie in a hole of the file or are written out makes no difference but in speed.
func compressBlocks(ctx context.Context, dst io.Writer, z *zstd.Encoder, src *File, wrote func(int64)) error {
	const size = 4 * mib
	block, empty := make([]byte, size), make([]byte, size)
	zeroFrame := z.EncodeAll(empty, nil)
	inFrame := false
	for at := int64(0); at < src.Size; at += size {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := src.readBlock(block, at)
		if err != nil {
			return err
		}
		isZero := bytes.Equal(b, empty)
		if inFrame && isZero {
			if err := z.Close(); err != nil {
				return err
			}
		}
		switch {
		case isZero:
			_, err = dst.Write(zeroFrame)
		case !inFrame:
			z.Reset(dst)
			fallthrough
		default:
			_, err = z.Write(b)
		}
		if err != nil {
			return err
		}
		inFrame = !isZero
		if wrote != nil {
			wrote(int64(len(b)))
		}
	}
	if !inFrame {
		return nil
	}
	return z.Close()
}

var contentID = regexp.MustCompile(`(?m)^CID=[0-9a-f]{1,8}$`)

// settleVMDK makes the content ID the first bytes of the disk's GUID.
func settleVMDK(f *os.File, id [16]byte) error {
	head := make([]byte, 4096) // the descriptor begins at byte 512
	if _, err := io.ReadFull(f, head); err != nil {
		return err
	}
	head, err := withContentID(head, binary.LittleEndian.Uint32(id[:]))
	if err != nil {
		return err
	}
	_, err = f.WriteAt(head, 0)
	return err
}

// withContentID puts id in place of the content ID in the head of a VMDK file, which ends with the zeros behind the
// descriptor's text. The length stays the same.
func withContentID(head []byte, id uint32) ([]byte, error) {
	at := contentID.FindIndex(head)
	if at == nil {
		return nil, errors.New("vmdk file has no content ID")
	}
	text := slices.Concat(head[:at[0]], fmt.Appendf(nil, "CID=%08x", id), head[at[1]:])
	if len(bytes.Trim(text[len(head):], "\x00")) > 0 {
		return nil, errors.New("vmdk file has no room for its content ID")
	}
	return text[:len(head)], nil
}

// settleVHD makes the unique ID the disk's GUID and the time the format's first second. The footer is that of Microsoft's
// "Virtual Hard Disk Image Format Specification".
func settleVHD(f *os.File, id [16]byte) error {
	const timeStamp, checksum, uniqueID, footerSize = 24, 64, 68, 512
	end, err := f.Seek(-footerSize, io.SeekEnd)
	if err != nil {
		return err
	}
	footer := make([]byte, footerSize)
	if _, err := io.ReadFull(f, footer); err != nil {
		return err
	}
	if string(footer[:8]) != vhdCookie {
		return errors.New("vhd file has no footer")
	}
	clear(footer[timeStamp : timeStamp+4])
	clear(footer[checksum : checksum+4])
	copy(footer[uniqueID:], id[:])
	var sum uint32
	for _, b := range footer {
		sum += uint32(b)
	}
	binary.BigEndian.PutUint32(footer[checksum:], ^sum)
	_, err = f.WriteAt(footer, end)
	return err
}

// diskGUID is the GUID in the partition table of a raw image, in its binary form.
func diskGUID(raw string) ([16]byte, error) {
	f, err := os.Open(raw)
	if err != nil {
		return [16]byte{}, err
	}
	defer f.Close()
	b := make([]byte, gptHeaderSize)
	if _, err := f.ReadAt(b, sectorSize); err != nil {
		return [16]byte{}, err
	}
	if string(b[:8]) != "EFI PART" {
		return [16]byte{}, fmt.Errorf("%q has no partition table", raw)
	}
	return [16]byte(b[56:]), nil
}
