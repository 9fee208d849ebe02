package disk

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"allotment/image"
	"allotment/image/disk/fat32"
	"allotment/image/secureboot"
	"allotment/image/verity"
	"allotment/internal/run"
)

// Spec says what goes onto a disk image.
type Spec struct {
	Output   string // raw image to make; it appears when it is whole
	Layout   Layout
	Version  image.Version
	RootHash verity.RootHash
	Time     time.Time // of the files on the ESP

	SystemdBoot []byte // signed
	UKI         []byte // signed
	Auth        map[secureboot.Variable][]byte

	// For BIOS, where the architecture has it.
	Kernel, Initrd []byte
	Cmdline        string
	GRUBModules    string // folder with boot.img and the modules of i386-pc

	Root, Verity string   // files
	Layers       []string // files in the order of Manifest.Layers

	Tools run.Runner        // has grub-mkimage
	Wrote func(bytes int64) // told as root, verity and layers are copied; may be nil
}

// Build makes a raw disk image.
func Build(ctx context.Context, s Spec) error {
	if err := build(ctx, s); err != nil {
		return fmt.Errorf("cannot make disk image %q: %w", s.Output, err)
	}
	return nil
}

func build(ctx context.Context, s Spec) error {
	files, err := espFiles(s)
	if err != nil {
		return err
	}
	if err := checkFit(s, files); err != nil {
		return err
	}
	dir, err := filepath.Abs(filepath.Dir(s.Output))
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp(dir, ".disk-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	f, err := os.OpenFile(filepath.Join(work, "raw"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(s.Layout.Size); err != nil {
		return err
	}
	if err := fill(ctx, s, f, files, work); err != nil {
		return err
	}
	return publish(f, s.Output)
}

// fill writes all parts into f, which holds zeros.
func fill(ctx context.Context, s Spec, f *os.File, files []fat32.File, work string) error {
	if err := writeGPT(f, s.Layout.Size, withGUIDs(s.Layout.Partitions, s.RootHash), derivedGUID(s.RootHash, "disk")); err != nil {
		return err
	}
	if s.Layout.Arch.BootsBIOS() {
		if err := addGRUB(ctx, s, f, work); err != nil {
			return err
		}
	}
	esp := s.Layout.Partition(ESP)
	if err := fat32.Write(io.NewOffsetWriter(f, esp.Start), esp.Size, files, fatOptions(s)); err != nil {
		return err
	}
	return copyParts(ctx, s, f)
}

func addGRUB(ctx context.Context, s Spec, f *os.File, work string) error {
	boot, err := os.ReadFile(filepath.Join(s.GRUBModules, "boot.img"))
	if err != nil {
		return err
	}
	const espIndex = 2 // behind the BIOS boot partition
	core, err := makeGRUBCore(ctx, s.Tools, s.GRUBModules, espIndex, work)
	if err != nil {
		return err
	}
	return installGRUB(f, boot, core, s.Layout.Partition(BIOS))
}

// copyParts copies root, verity and seed into their partitions.
func copyParts(ctx context.Context, s Spec, f *os.File) error {
	type part struct {
		source string
		at     int64
	}
	parts := []part{{s.Root, s.Layout.Partition(RootA).Start}, {s.Verity, s.Layout.Partition(VerityA).Start}}
	at := s.Layout.Partition(State).Start + s.Layout.Seed.Offset
	total := int64(0)
	for _, layer := range s.Layers {
		size, err := fileSize(layer)
		if err != nil {
			return err
		}
		parts = append(parts, part{layer, at})
		at += size
		total += size
	}
	if total != s.Layout.Seed.Size {
		return fmt.Errorf("layers have %d bytes, layout is for %d", total, s.Layout.Seed.Size)
	}
	for _, p := range parts {
		if err := copySparse(ctx, f, p.at, p.source, s.Wrote); err != nil {
			return err
		}
	}
	return nil
}

// copySparse copies a file to offset at of w, which holds zeros.
func copySparse(ctx context.Context, w io.WriterAt, at int64, source string, wrote func(int64)) error {
	src, err := os.Open(source)
	if err != nil {
		return err
	}
	defer src.Close()
	_, err = io.CopyBuffer(&sparseWriter{w, at}, &meter{ctx, src, wrote}, make([]byte, mib))
	if err != nil {
		return fmt.Errorf("cannot copy %q: %w", source, err)
	}
	return nil
}

// checkFit refuses what does not fit before anything is written.
func checkFit(s Spec, files []fat32.File) error {
	if err := checkESP(files, s.Layout.Partition(ESP).Size); err != nil {
		return err
	}
	for _, p := range []struct{ name, key, source string }{
		{RootA, "root", s.Root}, {VerityA, "verity", s.Verity},
	} {
		size, err := fileSize(p.source)
		if err != nil {
			return err
		}
		if room := s.Layout.Partition(p.name).Size; size > room {
			return fmt.Errorf("cannot fit %d MiB into partition %s of %d MiB; enlarge disk.%s in the profile",
				roundUp(size, mib)/mib, p.name, room/mib, p.key)
		}
	}
	return nil
}

func fileSize(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// publish makes the written file durable and gives it its name.
func publish(f *os.File, path string) error {
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
