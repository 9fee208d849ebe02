package judge

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"allotment/image"
	"allotment/image/disk"
	"allotment/image/disk/fat32"
	"allotment/image/verity"
)

// TestFAT32 lets fsck.vfat and mtools read a volume with names and sizes of all kinds.
func TestFAT32(t *testing.T) {
	files := []fat32.File{
		{Path: "EFI/BOOT/BOOTX64.EFI", Data: random(100001, 1)},
		{Path: "EFI/Linux/allotment-2026.11.3+3.efi", Data: random(3*fat32.ClusterSize, 2)},
		{Path: "EFI/Linux/allotment-2026.11.2.efi", Data: random(1, 3)},
		{Path: "empty", Data: nil},
		{Path: "exactly13char", Data: random(13, 4)},
	}
	for i := range 700 { // folder entries for more than one cluster, and short names up to ~700
		files = append(files, fat32.File{Path: fmt.Sprintf("many/a long name, number %d.txt", i), Data: random(i, byte(i))})
	}
	path := filepath.Join(t.TempDir(), "esp")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 520 << 20
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	options := fat32.Options{Label: "ALLOTMENT", Serial: 0x1234abcd, Time: time.Unix(1795000000, 0)}
	if err := fat32.Write(f, size, files, options); err != nil {
		t.Fatal(err)
	}
	approve(t, fmt.Sprintf("%d files", len(files)+5), "fsck.vfat", "-n", path) // folders and label count as files
	approve(t, "1234-ABCD", "mdir", "-i", path, "::")
	for _, file := range append(files[:5:5], files[len(files)-1]) {
		out := filepath.Join(t.TempDir(), "out")
		approve(t, "", "mcopy", "-i", path, "::"+file.Path, out)
		if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, file.Data) {
			t.Errorf("mcopy reads %d bytes of %s (%v), want %d", len(got), file.Path, err, len(file.Data))
		}
	}
	editFAT32(t, f, size)
	approve(t, fmt.Sprintf("%d files", len(files)+6), "fsck.vfat", "-n", path)
	out := filepath.Join(t.TempDir(), "out")
	approve(t, "", "mcopy", "-i", path, "::EFI/Linux/allotment-2026.12.1+2-1.efi", out)
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, random(50000, 7)) {
		t.Errorf("mcopy reads %d bytes of what was changed (%v)", len(got), err)
	}
	flip(t, path, 32*512+40) // a link in the first FAT
	refuse(t, "fsck.vfat", "-n", path)
}

// editFAT32 changes the volume as an update does; there is one folder more then.
func editFAT32(t *testing.T, f *os.File, size int64) {
	t.Helper()
	e, err := fat32.Edit(f, size, time.Unix(1795000000, 0))
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		e.Create("EFI/Linux/allotment-2026.12.1.new", 50000, bytes.NewReader(random(50000, 7))),
		e.Rename("EFI/Linux/allotment-2026.12.1.new", "allotment-2026.12.1+3.efi"),
		e.Rename("EFI/Linux/allotment-2026.12.1+3.efi", "allotment-2026.12.1+2-1.efi"),
		e.Remove("EFI/Linux/allotment-2026.11.2.efi"),
		e.Mkdir("2026.12.1"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// newImage makes an image with GRUB for real and files of random bytes.
func newImage(t *testing.T, dir string) (disk.Spec, error) {
	t.Helper()
	root := random(1<<20, 1)
	var tree bytes.Buffer
	hash, err := verity.Format(bytes.NewReader(root), int64(len(root)), &tree)
	if err != nil {
		t.Fatal(err)
	}
	layout, err := disk.NewLayout(image.AMD64, disk.Sizes{}, []int64{1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	s := disk.Spec{
		Output: filepath.Join(dir, "disk.raw"), Layout: layout, Version: "1.0", RootHash: hash, Time: time.Unix(1795000000, 0),
		SystemdBoot: random(1000, 2), UKI: random(1000, 3), Kernel: random(3000, 4), Initrd: random(4000, 5),
		Cmdline: "roothash=" + hash.String(), GRUBModules: filepath.Join(toolRoot(t).Dir(), "usr/lib/grub/i386-pc"),
		Root: write(t, filepath.Join(dir, "root"), root), Verity: write(t, filepath.Join(dir, "verity"), tree.Bytes()),
		Layers: []string{write(t, filepath.Join(dir, "layer"), random(1<<20, 6))}, Tools: toolRoot(t),
	}
	return s, disk.Build(t.Context(), s)
}

func TestImage(t *testing.T) {
	s, err := newImage(t, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f := open(t, s.Output)
	if err := disk.CheckGRUB(f, s.Layout.Partition(disk.BIOS)); err != nil {
		t.Error(err)
	}
	approve(t, "No problems found", "sgdisk", "--verify", s.Output)
	again, err := newImage(t, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const heads = 4 << 20 // partition table, GRUB, and the start of the ESP
	a, b := make([]byte, heads), make([]byte, heads)
	if _, err := f.ReadAt(a, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, again.Output).ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("the same image in another folder has another table, GRUB or ESP")
	}
	flip(t, s.Output, 1024+60)
	if said, ok := ask(t, "sgdisk", "--verify", s.Output); ok && bytes.Contains([]byte(said), []byte("No problems found")) {
		t.Error("sgdisk approves of a damaged table")
	}
}

// TestFormats converts a disk twice into each format and wants equal files, and the same disk when they are read.
func TestFormats(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	const size = 64 << 20
	raw := write(t, filepath.Join(a, "disk.raw"), append(make([]byte, 40<<20), random(3<<20, 1)...))
	if err := os.Truncate(raw, size); err != nil {
		t.Fatal(err)
	}
	approve(t, "", "sgdisk", "--new=1:2048:+1M", raw)
	for format, driver := range map[disk.Format]string{disk.Zstd: "", disk.QCOW2: "qcow2", disk.VMDK: "vmdk", disk.VHD: "vpc"} {
		first, second := filepath.Join(a, "disk."+string(format)), filepath.Join(b, "disk."+string(format))
		for _, out := range []string{first, second} {
			if err := disk.Convert(t.Context(), toolRoot(t), raw, out, format, nil); err != nil {
				t.Fatal(err)
			}
		}
		if !same(t, first, second) {
			t.Errorf("%s: two conversions gave different files", format)
		}
		f, err := disk.Open(t.Context(), toolRoot(t), first)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if f.Format != format || f.Size != size {
			t.Errorf("opened %s with %d bytes, want %s with %d", f.Format, f.Size, format, size)
		}
		if parts, err := disk.ReadGPT(f, f.Size); err != nil || len(parts) != 1 {
			t.Errorf("%s: %d partitions, %v", format, len(parts), err)
		}
		if driver != "" {
			approve(t, "file format: "+driver, "qemu-img", "info", "-f", driver, first)
			approve(t, "identical", "qemu-img", "compare", "-f", "raw", "-F", driver, raw, first)
		}
		if format == disk.QCOW2 || format == disk.VMDK {
			approve(t, "No errors", "qemu-img", "check", "-f", driver, first)
		}
	}
}

// TestVHDFooter checks the footer's sum as Microsoft's specification gives it, since qemu-img only warns of a wrong one.
func TestVHDFooter(t *testing.T) {
	dir := t.TempDir()
	raw := write(t, filepath.Join(dir, "disk.raw"), make([]byte, 4<<20))
	approve(t, "", "sgdisk", "--new=1:2048:+1M", raw)
	out := filepath.Join(dir, "disk.vhd")
	if err := disk.Convert(t.Context(), toolRoot(t), raw, out, disk.VHD, nil); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil || len(b) != 4<<20+512 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	footer := b[4<<20:]
	var sum uint32
	for i, x := range footer {
		if i < 64 || i >= 68 {
			sum += uint32(x)
		}
	}
	if got := binary.BigEndian.Uint32(footer[64:]); got != ^sum {
		t.Errorf("checksum is %#x, want %#x", got, ^sum)
	}
	if !bytes.Equal(footer[24:28], make([]byte, 4)) || !bytes.Equal(footer[68:84], b[512+56:512+72]) {
		t.Error("time stamp or unique ID is not what follows from the disk")
	}
}
