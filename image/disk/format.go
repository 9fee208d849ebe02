package disk

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// Format is a file format of disk images, by the end of its files' names.
type Format string

// The formats that images are published in.
const (
	Raw   Format = "raw"
	Zstd  Format = "raw.zst"
	QCOW2 Format = "qcow2"
	VMDK  Format = "vmdk"
	VHD   Format = "vhd"
)

// ParseFormat returns the format named s, or an error that lists the known ones.
func ParseFormat(s string) (Format, error) {
	switch f := Format(s); f {
	case Raw, Zstd, QCOW2, VMDK, VHD:
		return f, nil
	}
	return "", fmt.Errorf("cannot use image format %q: want raw, raw.zst, qcow2, vmdk or vhd", s)
}

// NeedsTools tells whether reading or writing the format takes qemu-img.
func (f Format) NeedsTools() bool { return f == QCOW2 || f == VMDK || f == VHD }

// vhdCookie begins the footer of a VHD file.
const vhdCookie = "conectix"

// Detect tells the format of an image file by its content. What it does not know is raw.
func Detect(path string) (Format, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("cannot read image: %w", err)
	}
	defer f.Close()
	head := make([]byte, 8)
	if _, err := io.ReadFull(f, head); err != nil {
		return "", fmt.Errorf("cannot read image %q: %w", path, err)
	}
	for _, m := range []struct {
		magic  string
		format Format
	}{{"\x28\xb5\x2f\xfd", Zstd}, {"QFI\xfb", QCOW2}, {"KDMV", VMDK}, {"# Disk D", VMDK}, {vhdCookie, VHD}} {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.format, nil
		}
	}
	tail := make([]byte, 8)
	if end, err := f.Seek(-512, io.SeekEnd); err == nil {
		if _, err := f.ReadAt(tail, end); err != nil {
			return "", fmt.Errorf("cannot read image %q: %w", path, err)
		}
	}
	if string(tail) == vhdCookie { // a fixed VHD has a footer only
		return VHD, nil
	}
	return Raw, nil
}
