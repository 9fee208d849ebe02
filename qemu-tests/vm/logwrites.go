package vm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
)

// The log that QEMU's blklogwrites driver writes has the format of the kernel's dm-log-writes target (Linux,
// Documentation/admin-guide/device-mapper/log-writes.rst and drivers/md/dm-log-writes.c): sectors of one size, the first
// of which is the superblock; then each entry is a sector with its header, followed by the data that it wrote. All numbers
// are little endian.
const (
	logMagic   = 0x6a736677736872
	logVersion = 1

	logFlush   = 1 << 0
	logFUA     = 1 << 1
	logDiscard = 1 << 2
	logMark    = 1 << 3
)

// WriteLog is a recording of what a machine wrote to its disk, up to its last flush.
type WriteLog struct {
	data    io.ReaderAt
	entries []logEntry
}

// logEntry is one request to the disk.
type logEntry struct {
	flush, zero bool  // zero: length bytes of zeros, without data in the log
	offset      int64 // on the disk, bytes
	length      int64 // bytes
	at          int64 // of the data in the log
}

var errLogFormat = errors.New("not a log of writes")

// ReadWriteLog reads the headers of a log; the log is read again when a disk is rebuilt, so it must stay open.
func ReadWriteLog(log io.ReaderAt) (*WriteLog, error) {
	var super [28]byte
	if _, err := log.ReadAt(super[:], 0); err != nil {
		return nil, fmt.Errorf("cannot read superblock of write log: %w", err)
	}
	count := binary.LittleEndian.Uint64(super[16:])
	sector := int64(binary.LittleEndian.Uint32(super[24:]))
	if binary.LittleEndian.Uint64(super[0:]) != logMagic || binary.LittleEndian.Uint64(super[8:]) != logVersion ||
		sector < 512 || sector > 1<<16 || sector&(sector-1) != 0 {
		return nil, fmt.Errorf("cannot read superblock of write log: %w", errLogFormat)
	}
	l := &WriteLog{data: log}
	at := sector
	for i := range count {
		e, next, err := readEntry(log, at, sector)
		if err != nil {
			return nil, fmt.Errorf("cannot read entry %d of write log: %w", i, err)
		}
		l.entries, at = append(l.entries, e...), next
	}
	return l, nil
}

// readEntry reads the entry whose header is at an offset of the log, and returns the offset of the next. An entry that is
// both write and flush becomes two.
func readEntry(log io.ReaderAt, at, sector int64) ([]logEntry, int64, error) {
	var head [24]byte
	if _, err := log.ReadAt(head[:], at); err != nil {
		return nil, 0, err
	}
	start, count := binary.LittleEndian.Uint64(head[0:]), binary.LittleEndian.Uint64(head[8:])
	flags := binary.LittleEndian.Uint64(head[16:])
	const most = 1 << 40 // sectors; more is no disk of ours, and would overflow
	if start > most || count > most || flags&^(logFlush|logFUA|logDiscard|logMark) != 0 {
		return nil, 0, errLogFormat
	}
	next := at + sector
	if flags&logMark != 0 {
		return nil, next + int64(count)*sector, nil
	}
	e := logEntry{offset: int64(start) * sector, length: int64(count) * sector, at: next, zero: flags&logDiscard != 0}
	if !e.zero {
		next += e.length
	}
	var entries []logEntry
	if flags&logFlush != 0 { // of what came before
		entries = append(entries, logEntry{flush: true})
	}
	if count > 0 {
		entries = append(entries, e)
	}
	if flags&logFUA != 0 { // of this write; taken as a flush, as QEMU does
		entries = append(entries, logEntry{flush: true})
	}
	return entries, next, nil
}

// Flushes is the number of flushes in the log. The disk of flush n (from 1) has all that was written before it.
func (l *WriteLog) Flushes() int {
	n := 0
	for _, e := range l.entries {
		if e.flush {
			n++
		}
	}
	return n
}

// Written is the number of bytes written before flush n, and after the flush before it.
func (l *WriteLog) Written(n int) int64 {
	var sum int64
	for _, e := range l.between(n-1, n) {
		sum += e.length
	}
	return sum
}

// between are the writes after flush a and before flush b; flush 0 is the start of the log.
func (l *WriteLog) between(a, b int) []logEntry {
	var writes []logEntry
	flushes := 0
	for _, e := range l.entries {
		switch {
		case e.flush:
			flushes++
		case flushes >= b:
			return writes
		case flushes >= a:
			writes = append(writes, e)
		}
	}
	return writes
}

// Replay writes to disk, which must be as flush from left it, what came until flush to: a power cut right after that
// flush. Flush 0 is the start of the log.
func (l *WriteLog) Replay(disk io.WriterAt, from, to int) error {
	for _, e := range l.between(from, to) {
		if err := l.apply(disk, e, 0, e.length); err != nil {
			return err
		}
	}
	return nil
}

// Cut makes, from the disk that flush n left, what a power cut some time before flush n+1 can leave: of the writes between
// them, some are missing, some torn, and they arrive in any order. The random numbers choose. Atomic is how much the disk
// writes as a whole, in bytes: the size of its physical sectors.
func (l *WriteLog) Cut(disk io.WriterAt, n int, atomic int64, random *rand.Rand) error {
	writes := slices.Clone(l.between(n, n+1))
	random.Shuffle(len(writes), func(i, j int) { writes[i], writes[j] = writes[j], writes[i] })
	for _, e := range writes {
		switch random.IntN(3) {
		case 0: // whole
			if err := l.apply(disk, e, 0, e.length); err != nil {
				return err
			}
		case 1: // torn
			cut := random.Int64N((e.length+atomic-1)/atomic) * atomic
			if random.IntN(2) == 0 { // the first part is there
				if err := l.apply(disk, e, 0, cut); err != nil {
					return err
				}
			} else if err := l.apply(disk, e, cut, e.length); err != nil {
				return err
			}
		} // else missing
	}
	return nil
}

// apply writes the part of an entry from byte a to byte b.
func (l *WriteLog) apply(disk io.WriterAt, e logEntry, a, b int64) error {
	var from io.Reader = zeros{}
	if !e.zero {
		from = io.NewSectionReader(l.data, e.at+a, b-a)
	}
	n, err := io.Copy(io.NewOffsetWriter(disk, e.offset+a), io.LimitReader(from, b-a))
	if err == nil && n < b-a {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("cannot replay the write of %d bytes at %d: %w", e.length, e.offset, err)
	}
	return nil
}

// zeros is an endless source of zeros.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
