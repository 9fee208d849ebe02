// Package ukitest makes PE files for tests of unified kernel images.
package ukitest

import (
	"debug/pe"
	"encoding/binary"

	"allotment/image"
)

const (
	headers   = 1536 // bytes
	fileAlign = 512
	pageAlign = 4096
)

// PE is a 64-bit PE file of the shape of systemd's stub: headers with room for further sections, and one section of the text.
// The format is that of Microsoft's "PE Format".
func PE(arch image.Arch, text []byte) []byte {
	size := (len(text) + fileAlign - 1) &^ (fileAlign - 1)
	b := make([]byte, headers+size)
	copy(b, "MZ")
	b[0x3c] = 64
	copy(b[64:], "PE\x00\x00")
	put16 := func(off int, v uint16) { binary.LittleEndian.PutUint16(b[off:], v) }
	put32 := func(off, v int) { binary.LittleEndian.PutUint32(b[off:], uint32(v)) }
	put16(68, pe.IMAGE_FILE_MACHINE_AMD64)
	if arch == image.ARM64 {
		put16(68, pe.IMAGE_FILE_MACHINE_ARM64)
	}
	put16(70, 1)            // sections
	put16(84, 240)          // size of the optional header
	put16(86, 0x22e)        // executable, without relocations and symbols
	put16(88, 0x20b)        // magic
	put32(88+32, pageAlign) // SectionAlignment
	put32(88+36, fileAlign)
	put32(88+56, (pageAlign+size+pageAlign-1)&^(pageAlign-1)) // SizeOfImage
	put32(88+60, headers)
	put16(88+68, pe.IMAGE_SUBSYSTEM_EFI_APPLICATION)
	put32(88+108, 16) // data directories
	table := 88 + 240
	copy(b[table:], ".text")
	put32(table+8, len(text))
	put32(table+12, pageAlign)
	put32(table+16, size)
	put32(table+20, headers)
	put32(table+36, pe.IMAGE_SCN_CNT_CODE|pe.IMAGE_SCN_MEM_EXECUTE|pe.IMAGE_SCN_MEM_READ)
	copy(b[headers:], text)
	return b
}
