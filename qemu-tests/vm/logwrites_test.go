package vm

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
)

// request is an entry of a log to be made.
type request struct {
	sector, count, flags uint64
	fill                 byte
}

// logOf writes a log as QEMU does, with sectors of 512 bytes.
func logOf(requests ...request) []byte {
	b := make([]byte, 512)
	binary.LittleEndian.PutUint64(b[0:], logMagic)
	binary.LittleEndian.PutUint64(b[8:], logVersion)
	binary.LittleEndian.PutUint64(b[16:], uint64(len(requests)))
	binary.LittleEndian.PutUint32(b[24:], 512)
	for _, r := range requests {
		head := make([]byte, 512)
		binary.LittleEndian.PutUint64(head[0:], r.sector)
		binary.LittleEndian.PutUint64(head[8:], r.count)
		binary.LittleEndian.PutUint64(head[16:], r.flags)
		b = append(b, head...)
		if r.flags&logDiscard == 0 {
			b = append(b, bytes.Repeat([]byte{r.fill}, int(r.count)*512)...)
		}
	}
	return b
}

// disk is a disk in memory.
type disk []byte

func (d disk) WriteAt(p []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(p)) > int64(len(d)) {
		return 0, io.ErrShortWrite
	}
	return copy(d[at:], p), nil
}

// sectors are the first bytes of the disk's sectors; '?' where a sector is not of one kind.
func (d disk) sectors() string {
	var b []byte
	for s := range slices.Chunk(d, 512) {
		if c := s[0]; bytes.Count(s, s[:1]) == len(s) {
			b = append(b, max(c, '.'))
		} else {
			b = append(b, '?')
		}
	}
	return string(b)
}

func TestReplay(t *testing.T) {
	log := logOf(
		request{sector: 0, count: 2, fill: 'a'},
		request{flags: logFlush},
		request{sector: 1, count: 2, fill: 'b'},
		request{count: 3, flags: logMark, fill: 'm'},
		request{sector: 5, count: 1, flags: logFlush | logFUA, fill: 'c'},
		request{sector: 0, count: 1, flags: logDiscard},
		request{flags: logFlush},
	)
	l, err := ReadWriteLog(bytes.NewReader(log))
	if err != nil {
		t.Fatal(err)
	}
	if l.Flushes() != 4 {
		t.Fatalf("%d flushes, want 4", l.Flushes())
	}
	for n, want := range []string{"......", "aa....", "abb...", "abb..c", ".bb..c"} {
		d := make(disk, 6*512)
		if err := l.Replay(d, 0, n); err != nil {
			t.Fatal(err)
		}
		if got := d.sectors(); got != want {
			t.Errorf("disk of flush %d is %q, want %q", n, got, want)
		}
	}
	if got := l.Written(2); got != 1024 {
		t.Errorf("%d bytes written before flush 2, want 1024", got)
	}
	if err := l.Replay(make(disk, 512), 0, 1); err == nil {
		t.Error("a disk that is too small took the log")
	}
}

// TestCut makes many cuts in the middle of two writes of two sectors each and looks that each thing that can happen does,
// and nothing else.
func TestCut(t *testing.T) {
	l, err := ReadWriteLog(bytes.NewReader(logOf(
		request{sector: 0, count: 1, fill: 'a'}, request{flags: logFlush},
		request{sector: 1, count: 2, fill: 'b'}, request{sector: 2, count: 2, fill: 'c'}, request{flags: logFlush},
		request{sector: 4, count: 1, fill: 'd'}, request{flags: logFlush})))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for seed := range uint64(400) {
		d := make(disk, 5*512)
		if err := l.Replay(d, 0, 1); err != nil {
			t.Fatal(err)
		}
		if err := l.Cut(d, 1, 512, rand.New(rand.NewPCG(1, seed))); err != nil {
			t.Fatal(err)
		}
		seen[d.sectors()] = true
	}
	for disk := range seen {
		if disk[0] != 'a' || disk[4] != '.' {
			t.Errorf("%q lost a flushed write or has one of after the next flush", disk)
		}
	}
	whole := make(disk, 5*512)
	for seed := range uint64(100) {
		if err := l.Cut(whole, 1, 1024, rand.New(rand.NewPCG(1, seed))); err != nil {
			t.Fatal(err)
		}
		if got := whole.sectors()[1:3]; got == ".b" || got == "b." {
			t.Errorf("%q: a write of one atomic unit is torn", got)
		}
		clear(whole)
	}
	for _, want := range []string{"a....", "abb..", "a.cc.", "abcc.", "abbc.", "a.b..", "ab.c.", "a.c.."} {
		if !seen[want] {
			t.Errorf("no cut left %q", want)
		}
	}
}

func TestReadWriteLogRefuses(t *testing.T) {
	good := logOf(request{sector: 1, count: 1, fill: 'x'}, request{flags: logFlush})
	for name, change := range map[string]func([]byte) []byte{
		"magic":       func(b []byte) []byte { b[0]++; return b },
		"version":     func(b []byte) []byte { b[8]++; return b },
		"sector size": func(b []byte) []byte { b[24]++; return b },
		"flags":       func(b []byte) []byte { b[512+17] = 1; return b },
		"length":      func(b []byte) []byte { b[512+15] = 0xff; return b },
		"truncated":   func(b []byte) []byte { return b[:1200] },
		"empty":       func(b []byte) []byte { return nil },
	} {
		if _, err := ReadWriteLog(bytes.NewReader(change(bytes.Clone(good)))); err == nil {
			t.Errorf("%s: a broken log was read", name)
		}
	}
}

func FuzzReadWriteLog(f *testing.F) {
	f.Add(logOf(request{sector: 1, count: 2, fill: 'x'}, request{flags: logFlush}, request{count: 1, flags: logDiscard}))
	f.Add(logOf(request{count: 1, flags: logMark}, request{flags: logFUA, count: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ReadWriteLog(bytes.NewReader(b))
		if err != nil {
			return
		}
		l.Replay(make(disk, 4096), 0, l.Flushes())
		l.Cut(make(disk, 4096), 0, 512, rand.New(rand.NewPCG(1, 2)))
	})
}
