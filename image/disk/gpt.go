package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf16"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"allotment/image/verity"
)

// withGUIDs returns the partitions with their GUIDs: those of slot A are the halves of the root hash, as the
// Discoverable Partitions Specification asks; the others follow from the root hash and the partition's name.
func withGUIDs(parts []Partition, root verity.RootHash) []Partition {
	parts = append([]Partition{}, parts...)
	for i := range parts {
		switch p := &parts[i]; p.Name {
		case RootA:
			p.GUID = root.DataUUID().String()
		case VerityA:
			p.GUID = root.HashUUID().String()
		default:
			p.GUID = derivedGUID(root, p.Name)
		}
	}
	return parts
}

// derivedGUID is a GUID of version 8 (RFC 9562, 5.8) that follows from a root hash and a name.
func derivedGUID(root verity.RootHash, name string) string {
	sum := sha256.Sum256(append(root[:], name...))
	id := verity.UUID(sum[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id.String()
}

// writeGPT writes both copies of the partition table, and the protective MBR's one entry.
func writeGPT(f backend.WritableFile, size int64, parts []Partition, guid string) error {
	table := &gpt.Table{LogicalSectorSize: sectorSize, PhysicalSectorSize: sectorSize, ProtectiveMBR: true, GUID: guid}
	for i, p := range parts {
		table.Partitions = append(table.Partitions, &gpt.Partition{
			Index: i + 1, Start: uint64(p.Start / sectorSize), Size: uint64(p.Size), Type: gpt.Type(p.Type),
			Name: p.Name, GUID: p.GUID, Attributes: p.Attributes,
		})
	}
	if err := table.Write(f, size); err != nil {
		return fmt.Errorf("cannot write partition table: %w", err)
	}
	return nil
}

// GPT header fields (UEFI 2.10, 5.3.2): sizes that this reader insists on.
const (
	gptHeaderSize = 92
	gptEntrySize  = 128
	gptEntries    = 128
)

// gptHeader is the GPT header.
type gptHeader struct {
	Signature  [8]byte
	Revision   uint32
	HeaderSize uint32
	CRC        uint32
	_          uint32
	MyLBA      uint64
	OtherLBA   uint64
	FirstLBA   uint64
	LastLBA    uint64
	GUID       [16]byte
	EntriesLBA uint64
	Entries    uint32
	EntrySize  uint32
	EntriesCRC uint32
}

// ReadGPT reads both copies of the partition table of the disk of size bytes in r. The error joins everything that is
// wrong; the partitions are those of the first copy that can be read, nil if none.
func ReadGPT(r io.ReaderAt, size int64) ([]Partition, error) {
	var errs []error
	if err := checkProtectiveMBR(r, size); err != nil {
		errs = append(errs, err)
	}
	last := size/sectorSize - 1
	first, entries, err1 := readTable(r, size, 1, last)
	if err1 != nil {
		errs = append(errs, fmt.Errorf("primary partition table: %w", err1))
	}
	second, backup, err2 := readTable(r, size, last, 1)
	if err2 != nil {
		errs = append(errs, fmt.Errorf("backup partition table: %w", err2))
	}
	switch {
	case err1 != nil && err2 != nil:
		return nil, errors.Join(errs...)
	case err1 != nil:
		first, entries = second, backup
	case err2 == nil && (!bytes.Equal(entries, backup) || first.GUID != second.GUID):
		errs = append(errs, errors.New("the two partition tables differ"))
	}
	parts, err := parseEntries(entries, first)
	return parts, errors.Join(append(errs, err)...)
}

// checkProtectiveMBR wants one entry of type 0xee over the whole disk (UEFI 2.10, 5.2.3).
func checkProtectiveMBR(r io.ReaderAt, size int64) error {
	b := make([]byte, sectorSize)
	if _, err := r.ReadAt(b, 0); err != nil {
		return fmt.Errorf("protective MBR: %w", err)
	}
	sectors := uint32(min(size/sectorSize-1, 1<<32-1))
	if b[510] != 0x55 || b[511] != 0xaa || b[450] != 0xee || binary.LittleEndian.Uint32(b[454:]) != 1 ||
		binary.LittleEndian.Uint32(b[458:]) != sectors || !bytes.Equal(b[462:510], make([]byte, 48)) {
		return errors.New("protective MBR: not one partition of type ee over the whole disk")
	}
	return nil
}

// readTable reads the header at sector lba and its entries.
func readTable(r io.ReaderAt, size, lba, other int64) (gptHeader, []byte, error) {
	var h gptHeader
	b := make([]byte, gptHeaderSize)
	if _, err := r.ReadAt(b, lba*sectorSize); err != nil {
		return h, nil, err
	}
	if err := binary.Read(bytes.NewReader(b), binary.LittleEndian, &h); err != nil {
		return h, nil, err
	}
	clear(b[16:20]) // the checksum counts as zero
	entriesSize := int64(gptEntries * gptEntrySize)
	switch {
	case string(h.Signature[:]) != "EFI PART":
		return h, nil, errors.New("no signature")
	case h.Revision != 0x10000 || h.HeaderSize != gptHeaderSize || h.Entries != gptEntries || h.EntrySize != gptEntrySize:
		return h, nil, errors.New("unusual revision, header size or number of entries")
	case h.CRC != crc32.ChecksumIEEE(b):
		return h, nil, errors.New("wrong checksum of the header")
	case h.MyLBA != uint64(lba) || h.OtherLBA != uint64(other):
		return h, nil, fmt.Errorf("header says it is at sector %d and the other at %d, want %d and %d",
			h.MyLBA, h.OtherLBA, lba, other)
	case h.EntriesLBA > uint64(size/sectorSize) || int64(h.EntriesLBA)*sectorSize+entriesSize > size:
		return h, nil, errors.New("entries are behind the disk's end")
	case h.FirstLBA > h.LastLBA || h.LastLBA >= uint64(size/sectorSize):
		return h, nil, errors.New("usable sectors are not on the disk")
	}
	entries := make([]byte, entriesSize)
	if _, err := r.ReadAt(entries, int64(h.EntriesLBA)*sectorSize); err != nil {
		return h, nil, err
	}
	if h.EntriesCRC != crc32.ChecksumIEEE(entries) {
		return h, nil, errors.New("wrong checksum of the entries")
	}
	return h, entries, nil
}

// parseEntries returns the used entries. They must lie on the usable sectors, in order and apart.
func parseEntries(b []byte, h gptHeader) ([]Partition, error) {
	var parts []Partition
	var errs []error
	end := h.FirstLBA
	for ; len(b) > 0; b = b[gptEntrySize:] {
		if [16]byte(b) == [16]byte{} {
			continue
		}
		first, last := binary.LittleEndian.Uint64(b[32:]), binary.LittleEndian.Uint64(b[40:])
		name := make([]uint16, 36)
		for i := range name {
			name[i] = binary.LittleEndian.Uint16(b[56+2*i:])
		}
		p := Partition{
			Name: strings.TrimRight(string(utf16.Decode(name)), "\x00"),
			Type: guidText([16]byte(b)), GUID: guidText([16]byte(b[16:])), Attributes: binary.LittleEndian.Uint64(b[48:]),
		}
		if first < end || last < first || last > h.LastLBA {
			errs = append(errs, fmt.Errorf("partition %q lies on sectors %d to %d, free are those from %d to %d",
				p.Name, first, last, end, h.LastLBA))
			continue
		}
		p.Start, p.Size, end = int64(first)*sectorSize, int64(last-first+1)*sectorSize, last+1
		parts = append(parts, p)
	}
	return parts, errors.Join(errs...)
}

// guidText is the text of a GUID whose first three fields are little endian.
func guidText(b [16]byte) string {
	return verity.UUID{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]}.String()
}
