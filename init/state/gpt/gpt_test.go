package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf16"
)

const (
	sector  = 512
	imgSize = 4 << 20
	newSize = 6 << 20
)

// memory is a disk that notes what was written, sector by sector, and when it was synced.
type memory struct {
	bytes  []byte
	epochs [][]write // between two syncs
}

func (m *memory) ReadAt(b []byte, at int64) (int, error) {
	return bytes.NewReader(m.bytes).ReadAt(b, at)
}

func (m *memory) WriteAt(b []byte, at int64) (int, error) {
	copy(m.bytes[at:], b)
	if len(m.epochs) == 0 {
		m.epochs = [][]write{nil}
	}
	last := &m.epochs[len(m.epochs)-1]
	for i := 0; i < len(b); i += sector {
		*last = append(*last, write{bytes.Clone(b[i : i+sector]), at + int64(i)})
	}
	return len(b), nil
}

func (m *memory) Sync() error {
	m.epochs = append(m.epochs, nil)
	return nil
}

// image is a disk of the size of an image, put on a larger one.
func image(t *testing.T) []byte {
	t.Helper()
	m := &memory{bytes: make([]byte, imgSize)}
	var tab table
	copy(tab.Signature[:], "EFI PART")
	tab.Revision, tab.HeaderSize, tab.Count, tab.EntrySize = 0x10000, headerSize, entryCount, entrySize
	tab.FirstLBA, tab.LastLBA = 34, imgSize/sector-34
	for i, p := range []struct {
		name        string
		first, last uint64
	}{{"esp", 2048, 4095}, {"state", 4096, 6143}} {
		e := &tab.entries[i]
		e.Type[0], e.GUID[0], e.First, e.Last = 1, byte(i+1), p.first, p.last
		copy(e.Name[:], utf16.Encode([]rune(p.name)))
	}
	m.bytes[mbrEntry+4], m.bytes[510], m.bytes[511] = 0xee, 0x55, 0xaa
	copy(m.bytes, "boot code")
	g := geometry{sector, imgSize / sector}
	if err := g.write(m, tab); err != nil {
		t.Fatal(err)
	}
	return m.bytes
}

func onLargerDisk(img []byte) *memory {
	return &memory{bytes: append(bytes.Clone(img), make([]byte, newSize-len(img))...)}
}

func TestGrow(t *testing.T) {
	d := onLargerDisk(image(t))
	got, err := Grow(d, newSize, sector, "state")
	if want := (Extent{2 << 20, 3 << 20}); err != nil || got != want {
		t.Fatalf("got %v, %v, want %v", got, err, want)
	}
	if err := judge(d.bytes); err != nil {
		t.Error(err)
	}
	g := geometry{sector, newSize / sector}
	primary, err := g.read(d, 1)
	if err != nil {
		t.Fatal(err)
	}
	backup, err := g.read(d, g.count-1)
	if err != nil {
		t.Fatal(err)
	}
	if primary.entries != backup.entries || primary.OtherLBA != backup.MyLBA || backup.OtherLBA != primary.MyLBA {
		t.Error("the two copies differ")
	}
	if string(d.bytes[:9]) != "boot code" || binary.LittleEndian.Uint32(d.bytes[mbrEntry+12:]) != newSize/sector-1 {
		t.Error("the protective MBR is wrong")
	}
	d.epochs = nil
	if again, err := Grow(d, newSize, sector, "state"); err != nil || again != got || d.epochs != nil {
		t.Errorf("growing again wrote %d times and gave %v, %v", len(d.epochs), again, err)
	}
}

// judge sees a disk as firmware and the kernel do: the primary copy, or else the backup at the disk's end.
func judge(disk []byte) error {
	g := geometry{sector, int64(len(disk)) / sector}
	m := &memory{bytes: disk}
	tab, err := g.read(m, 1)
	if err != nil {
		if tab, err = g.read(m, g.count-1); err != nil {
			return errors.New("neither copy is whole")
		}
	}
	state, err := tab.find("state")
	if err != nil {
		return err
	}
	if tab.entries[0].First != 2048 || tab.entries[0].Last != 4095 || state.First != 4096 ||
		state.Last != 6143 && state.Last != 2048*5-1 {
		return errors.New("partitions are wrong")
	}
	return nil
}

// cuts calls use with every disk that a power cut can leave: whole epochs, and then of the next one every number of
// sectors in order, in reverse, and random choices of them.
func cuts(before []byte, epochs [][]write, use func([]byte)) {
	apply := func(disk []byte, writes []write) []byte {
		disk = bytes.Clone(disk)
		for _, w := range writes {
			copy(disk[w.offset:], w.bytes)
		}
		return disk
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, epoch := range epochs {
		for n := range epoch {
			use(apply(before, epoch[:n]))
			use(apply(before, epoch[n:]))
		}
		for range 20 {
			var some []write
			for _, w := range epoch {
				if random.IntN(2) == 0 {
					some = append(some, w)
				}
			}
			use(apply(before, some))
		}
		before = apply(before, epoch)
	}
}

func TestEveryCutCanBeTakenUp(t *testing.T) {
	img := image(t)
	whole := onLargerDisk(img)
	if _, err := Grow(whole, newSize, sector, "state"); err != nil {
		t.Fatal(err)
	}
	n := 0
	cuts(onLargerDisk(img).bytes, whole.epochs, func(disk []byte) {
		n++
		if err := judge(disk); err != nil {
			t.Fatalf("cut %d: %v", n, err)
		}
		again := &memory{bytes: disk}
		if _, err := Grow(again, newSize, sector, "state"); err != nil {
			t.Fatalf("cut %d: %v", n, err)
		}
		if !bytes.Equal(again.bytes, whole.bytes) {
			t.Fatalf("cut %d: taken up, it ends differently", n)
		}
	})
	if n < 100 {
		t.Errorf("only %d cuts were tried", n)
	}
}

// The twin of the test above: without the syncs between the copies, some cut leaves neither whole.
func TestSyncsAreNeeded(t *testing.T) {
	img := image(t)
	whole := onLargerDisk(img)
	if _, err := Grow(whole, newSize, sector, "state"); err != nil {
		t.Fatal(err)
	}
	var all []write
	for _, e := range whole.epochs {
		all = append(all, e...)
	}
	bad := 0
	cuts(onLargerDisk(img).bytes, [][]write{all}, func(disk []byte) {
		if judge(disk) != nil {
			bad++
		}
	})
	if bad == 0 {
		t.Error("the judge passes disks that were written in any order")
	}
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(*memory)
		want  string
	}{
		{"no table", func(m *memory) { clear(m.bytes) }, "no GPT header"},
		{"both damaged", func(m *memory) { m.bytes[sector+60] ^= 1 }, "damaged"},
		{"no such partition", func(m *memory) { rename(m, 1, "other") }, "cannot find partition"},
		{"two of them", func(m *memory) { rename(m, 0, "state") }, "two partitions"},
		{"not the last", func(m *memory) { rename(m, 0, "state"); rename(m, 1, "esp") }, "lies behind it"},
	}
	for _, test := range tests {
		d := onLargerDisk(image(t))
		test.spoil(d)
		before := bytes.Clone(d.bytes)
		if _, err := Grow(d, newSize, sector, "state"); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v", test.name, err)
		}
		if !bytes.Equal(before, d.bytes) {
			t.Errorf("%s: the disk was changed", test.name)
		}
	}
}

// rename renames an entry of a valid table.
func rename(m *memory, i int, name string) {
	g := geometry{sector, imgSize / sector}
	tab, err := g.read(m, 1)
	if err != nil {
		panic(err)
	}
	tab.entries[i].Name = [36]uint16{}
	copy(tab.entries[i].Name[:], utf16.Encode([]rune(name)))
	if err := g.writeCopy(m, *tab); err != nil {
		panic(err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(make([]byte, 40*sector))
	g := geometry{sector, imgSize / sector}
	f.Fuzz(func(t *testing.T, b []byte) {
		disk := make([]byte, imgSize)
		copy(disk, b)
		tab, err := g.read(&memory{bytes: disk}, 1)
		if err == nil {
			_, _ = tab.find("state")
		}
	})
}
