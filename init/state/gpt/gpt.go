// Package gpt grows the last partition of a GUID partition table to the end of its disk (UEFI specification 2.10, chapter
// 5). A power cut at any point leaves one of the two copies of the table whole, the backup at the disk's very end; firmware
// uses it then, and so does Linux with "gpt" on its command line.
package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

const (
	headerSize   = 92
	entrySize    = 128
	entryCount   = 128
	primaryLBA   = 1
	alignment    = 1 << 20 // of partitions, in bytes
	mbrEntry     = 446     // offset of the protective MBR's first entry
	mbrSignature = 510
)

// Disk is a whole disk. What was written before Sync is on the medium when it returns.
type Disk interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Extent is a partition's place, in bytes.
type Extent struct{ Start, Size int64 }

// header is the GPT header, little endian.
type header struct {
	Signature  [8]byte
	Revision   uint32
	HeaderSize uint32
	CRC        uint32
	_          uint32
	MyLBA      uint64
	OtherLBA   uint64
	FirstLBA   uint64 // of those that partitions may use
	LastLBA    uint64
	GUID       [16]byte
	EntriesLBA uint64
	Count      uint32
	EntrySize  uint32
	EntriesCRC uint32
}

// entry is one partition, little endian.
type entry struct {
	Type, GUID  [16]byte
	First, Last uint64 // LBAs, both inclusive
	Attributes  uint64
	Name        [36]uint16
}

type table struct {
	header
	entries [entryCount]entry
}

// geometry is a disk's size in sectors.
type geometry struct{ sector, count int64 }

// entrySectors is the length of the array of entries.
func (g geometry) entrySectors() int64 { return entryCount * entrySize / g.sector }

// Grow extends the partition of the given name over the free space behind it and returns where it lies then. The disk has
// size bytes in sectors of sectorSize bytes. It writes nothing if everything is as it should be.
func Grow(d Disk, size, sectorSize int64, name string) (Extent, error) {
	g := geometry{sectorSize, size / sectorSize}
	old, primaryErr := g.read(d, primaryLBA)
	if primaryErr != nil {
		var err error
		if old, err = g.read(d, g.count-1); err != nil {
			return Extent{}, fmt.Errorf("cannot read partition table: %w", errors.Join(primaryErr, err))
		}
	}
	grown := *old
	e, err := grown.find(name)
	if err != nil {
		return Extent{}, err
	}
	grown.LastLBA = uint64(g.count - 1 - g.entrySectors() - 1)
	perMiB := uint64(alignment / g.sector)
	if last := (grown.LastLBA+1)/perMiB*perMiB - 1; last > e.Last {
		e.Last = last
	}
	if e.Last > grown.LastLBA {
		return Extent{}, fmt.Errorf("cannot use partition %q: it ends behind the disk", name)
	}
	if err := g.write(d, grown); err != nil {
		return Extent{}, fmt.Errorf("cannot write partition table: %w", err)
	}
	return Extent{int64(e.First) * g.sector, int64(e.Last-e.First+1) * g.sector}, nil
}

// find returns the entry of a name, which must be the last one on the disk.
func (t *table) find(name string) (*entry, error) {
	var found *entry
	for i := range t.entries {
		e := &t.entries[i]
		if e.Type != [16]byte{} && e.name() == name {
			if found != nil {
				return nil, fmt.Errorf("cannot choose between two partitions %q", name)
			}
			found = e
		}
	}
	if found == nil {
		return nil, fmt.Errorf("cannot find partition %q", name)
	}
	for _, e := range t.entries {
		if e.Type != [16]byte{} && e.First > found.First {
			return nil, fmt.Errorf("cannot grow partition %q: partition %q lies behind it", name, e.name())
		}
	}
	return found, nil
}

func (e *entry) name() string {
	n := 0
	for n < len(e.Name) && e.Name[n] != 0 {
		n++
	}
	return string(utf16.Decode(e.Name[:n]))
}

// read reads the copy of the table whose header lies at lba, and refuses one that is not whole.
func (g geometry) read(d Disk, lba int64) (*table, error) {
	b := make([]byte, headerSize)
	if _, err := d.ReadAt(b, lba*g.sector); err != nil {
		return nil, err
	}
	var t table
	if _, err := binary.Decode(b, binary.LittleEndian, &t.header); err != nil {
		return nil, err
	}
	crc := t.CRC
	copy(b[16:20], []byte{0, 0, 0, 0})
	switch {
	case string(t.Signature[:]) != "EFI PART":
		return nil, fmt.Errorf("no GPT header in sector %d", lba)
	case t.HeaderSize != headerSize || t.EntrySize != entrySize || t.Count != entryCount:
		return nil, fmt.Errorf("GPT header in sector %d has sizes %d, %d and %d, want %d, %d and %d", lba,
			t.HeaderSize, t.EntrySize, t.Count, headerSize, entrySize, entryCount)
	case crc32.ChecksumIEEE(b) != crc || t.MyLBA != uint64(lba):
		return nil, fmt.Errorf("GPT header in sector %d is damaged", lba)
	case t.EntriesLBA < 2 || t.EntriesLBA > uint64(g.count-g.entrySectors()):
		return nil, fmt.Errorf("GPT header in sector %d puts the entries outside the disk", lba)
	}
	raw := make([]byte, entryCount*entrySize)
	if _, err := d.ReadAt(raw, int64(t.EntriesLBA)*g.sector); err != nil {
		return nil, err
	}
	if crc32.ChecksumIEEE(raw) != t.EntriesCRC {
		return nil, fmt.Errorf("GPT entries of the header in sector %d are damaged", lba)
	}
	_, err := binary.Decode(raw, binary.LittleEndian, &t.entries)
	return &t, err
}

// write brings both copies on the disk to t, one after the other: first the backup, at the end of the disk.
func (g geometry) write(d Disk, t table) error {
	backup := t
	backup.MyLBA, backup.OtherLBA = uint64(g.count-1), primaryLBA
	backup.EntriesLBA = uint64(g.count - 1 - g.entrySectors())
	if err := g.writeCopy(d, backup); err != nil {
		return err
	}
	primary := t
	primary.MyLBA, primary.OtherLBA, primary.EntriesLBA = primaryLBA, backup.MyLBA, primaryLBA+1
	if err := g.writeCopy(d, primary); err != nil {
		return err
	}
	return g.writeMBR(d)
}

func (g geometry) writeCopy(d Disk, t table) error {
	entries, err := binary.Append(nil, binary.LittleEndian, &t.entries)
	if err != nil {
		return err
	}
	t.EntriesCRC, t.CRC = crc32.ChecksumIEEE(entries), 0
	head, err := binary.Append(nil, binary.LittleEndian, &t.header)
	if err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(head[16:], crc32.ChecksumIEEE(head))
	head = append(head, make([]byte, int(g.sector)-len(head))...)
	return update(d, write{entries, int64(t.EntriesLBA) * g.sector}, write{head, int64(t.MyLBA) * g.sector})
}

// writeMBR makes the protective MBR cover the disk, as far as its 32 bits reach (UEFI 2.10, 5.2.3). The rest of the sector
// may be a boot loader's code.
func (g geometry) writeMBR(d Disk) error {
	b := make([]byte, g.sector)
	if _, err := d.ReadAt(b, 0); err != nil {
		return err
	}
	const typeOffset, sizeOffset, protective = 4, 12, 0xee
	if b[mbrEntry+typeOffset] != protective || b[mbrSignature] != 0x55 || b[mbrSignature+1] != 0xaa {
		return nil // not ours to change
	}
	binary.LittleEndian.PutUint32(b[mbrEntry+sizeOffset:], uint32(min(g.count-1, 1<<32-1)))
	return update(d, write{b, 0})
}

// write is bytes for a place on the disk.
type write struct {
	bytes  []byte
	offset int64
}

// update writes where the disk has something else, and syncs if there was such a place.
func update(d Disk, writes ...write) error {
	changed := false
	for _, w := range writes {
		have := make([]byte, len(w.bytes))
		if _, err := d.ReadAt(have, w.offset); err != nil {
			return err
		}
		if bytes.Equal(have, w.bytes) {
			continue
		}
		changed = true
		if _, err := d.WriteAt(w.bytes, w.offset); err != nil {
			return err
		}
	}
	if !changed {
		return nil
	}
	return d.Sync()
}
