// Package uki assembles unified kernel images: systemd's EFI stub with the kernel, its initramfs and its command line
// as further sections of one PE file, so that one signature covers them all. It reads such files back, too.
//
// Source: the UAPI Group's Unified Kernel Image specification, and Microsoft's PE format.
package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Image is the content of the sections that this package writes.
type Image struct {
	OSRelease string // .osrel: os-release(5); systemd-boot shows and sorts the entry by it
	Cmdline   string // .cmdline
	Uname     string // .uname: the kernel's release
	Initrd    []byte // .initrd: cpio archives, compressed or not
	Linux     []byte // .linux: a kernel with EFI stub
}

// sections lists the image's sections in file order. The kernel is last: the stub may let it run in place, and then it
// needs the memory behind it that its own header asks for.
func (m Image) sections() []section {
	return []section{
		{".osrel", []byte(m.OSRelease)},
		{".cmdline", []byte(m.Cmdline)},
		{".uname", []byte(m.Uname)},
		{".initrd", m.Initrd},
		{".linux", m.Linux},
	}
}

type section struct {
	name string
	data []byte
}

const (
	sectionHeaderSize = 40
	readOnlyData      = 0x40000040 // IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ
)

// Assemble returns stub with the image's sections appended, not signed. The same inputs give the same bytes.
func Assemble(stub []byte, m Image) ([]byte, error) {
	out, err := assemble(stub, m)
	if err != nil {
		return nil, fmt.Errorf("cannot assemble unified kernel image: %w", err)
	}
	return out, nil
}

func assemble(stub []byte, m Image) ([]byte, error) {
	h, err := parseHeaders(stub)
	if err != nil {
		return nil, fmt.Errorf("stub: %w", err)
	}
	if certificates := stub[h.optional+144:][:8]; !bytes.Equal(certificates, make([]byte, 8)) {
		return nil, errors.New("stub is signed: sections cannot be added behind a signature")
	}
	kernel, err := parseHeaders(m.Linux)
	if err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	if kernel.machine != h.machine {
		return nil, fmt.Errorf("kernel is for machine %#x, stub for %#x", kernel.machine, h.machine)
	}
	add := m.sections()
	if room := (h.sizeOfHeaders - h.tableEnd) / sectionHeaderSize; room < len(add) {
		return nil, fmt.Errorf("stub has room for %d more sections, want %d", room, len(add))
	}
	out := append(make([]byte, 0, len(stub)+len(m.Initrd)+len(m.Linux)+1<<16), stub...)
	out = pad(out, h.fileAlignment)
	address := h.sizeOfImage
	for i, s := range add {
		if len(s.data) == 0 {
			return nil, fmt.Errorf("section %s is empty", s.name)
		}
		address = roundUp(address, h.sectionAlignment)
		virtual := len(s.data)
		if s.name == ".linux" {
			virtual = max(virtual, kernel.sizeOfImage)
		}
		header := out[h.tableEnd+i*sectionHeaderSize:][:sectionHeaderSize]
		clear(header)
		copy(header, s.name)
		binary.LittleEndian.PutUint32(header[8:], uint32(virtual))
		binary.LittleEndian.PutUint32(header[12:], uint32(address))
		binary.LittleEndian.PutUint32(header[16:], uint32(roundUp(len(s.data), h.fileAlignment)))
		binary.LittleEndian.PutUint32(header[20:], uint32(len(out)))
		binary.LittleEndian.PutUint32(header[36:], readOnlyData)
		out = pad(append(out, s.data...), h.fileAlignment)
		address += virtual
	}
	binary.LittleEndian.PutUint16(out[h.coff+2:], uint16(h.numberOfSections+len(add)))
	binary.LittleEndian.PutUint32(out[h.optional+56:], uint32(roundUp(address, h.sectionAlignment)))
	return out, nil
}

// headers are the fields of a PE file's headers that matter for adding sections, with offsets of those to change.
type headers struct {
	coff, optional   int // offsets of the COFF header and of the optional header
	tableEnd         int // offset behind the section table
	machine          uint16
	numberOfSections int
	sectionAlignment int
	fileAlignment    int
	sizeOfImage      int
	sizeOfHeaders    int
}

func parseHeaders(b []byte) (headers, error) {
	if len(b) < 64 || string(b[:2]) != "MZ" {
		return headers{}, errors.New("no PE file")
	}
	at := int64(binary.LittleEndian.Uint32(b[0x3c:]))
	if at+24+152 > int64(len(b)) || string(b[at:at+4]) != "PE\x00\x00" {
		return headers{}, errors.New("no PE file")
	}
	h := headers{coff: int(at) + 4, optional: int(at) + 24}
	word := func(off int) int { return int(binary.LittleEndian.Uint16(b[off:])) }
	long := func(off int) int { return int(binary.LittleEndian.Uint32(b[off:])) }
	if magic := word(h.optional); magic != 0x20b {
		return headers{}, fmt.Errorf("PE file has magic %#x, want a 64-bit one", magic)
	}
	h.machine = uint16(word(h.coff))
	h.numberOfSections = word(h.coff + 2)
	h.tableEnd = h.optional + word(h.coff+16) + h.numberOfSections*sectionHeaderSize
	h.sectionAlignment = max(long(h.optional+32), 4096)
	h.fileAlignment = long(h.optional + 36)
	h.sizeOfImage = long(h.optional + 56)
	h.sizeOfHeaders = long(h.optional + 60)
	if h.fileAlignment < 1 || h.fileAlignment&(h.fileAlignment-1) != 0 || h.sectionAlignment&(h.sectionAlignment-1) != 0 {
		return headers{}, fmt.Errorf("PE file has alignments %d and %d, want powers of two", h.sectionAlignment, h.fileAlignment)
	}
	if h.sizeOfHeaders > len(b) || h.tableEnd > h.sizeOfHeaders {
		return headers{}, errors.New("PE file's headers are larger than it says")
	}
	return h, nil
}

// Read returns the sections of a unified kernel image. A file without a kernel is an error.
func Read(r io.ReaderAt) (Image, error) {
	f, err := pe.NewFile(r)
	if err != nil {
		return Image{}, fmt.Errorf("cannot read unified kernel image: %w", err)
	}
	defer f.Close()
	content := map[string][]byte{}
	for _, s := range f.Sections {
		if _, twice := content[s.Name]; twice {
			return Image{}, fmt.Errorf("cannot read unified kernel image: section %s is there twice", s.Name)
		}
		b, err := s.Data()
		if err != nil {
			return Image{}, fmt.Errorf("cannot read unified kernel image: section %s: %w", s.Name, err)
		}
		content[s.Name] = b[:min(len(b), int(s.VirtualSize))] // without the padding
	}
	if len(content[".linux"]) == 0 {
		return Image{}, errors.New("cannot read unified kernel image: it has no section .linux")
	}
	return Image{
		OSRelease: string(content[".osrel"]),
		Cmdline:   string(bytes.TrimRight(content[".cmdline"], "\x00\n")),
		Uname:     string(content[".uname"]),
		Initrd:    content[".initrd"],
		Linux:     content[".linux"],
	}, nil
}

// Section returns the content of one section of a unified kernel image, such as .linux, without reading it into memory.
func Section(r io.ReaderAt, name string) (*io.SectionReader, error) {
	f, err := pe.NewFile(r)
	if err != nil {
		return nil, fmt.Errorf("cannot read unified kernel image: %w", err)
	}
	defer f.Close()
	s := f.Section(name)
	if s == nil {
		return nil, fmt.Errorf("cannot read unified kernel image: it has no section %s", name)
	}
	return io.NewSectionReader(r, int64(s.Offset), int64(min(s.Size, s.VirtualSize))), nil // without the padding
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

func pad(b []byte, to int) []byte { return append(b, make([]byte, roundUp(len(b), to)-len(b))...) }
