package fat32

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"allotment/image/disk/fat32/cutdisk"
)

// editFiles are as on the ESP of a device.
func editFiles() []File {
	return []File{
		{"EFI/BOOT/BOOTX64.EFI", bytes.Repeat([]byte("boot"), 500)},
		{"EFI/Linux/allotment-2026.11.3.efi", bytes.Repeat([]byte("uki"), 6000)},
		{"loader/loader.conf", []byte("timeout 0\n")},
		{"allotment/grubenv", bytes.Repeat([]byte("#"), 1024)},
	}
}

func newDisk(t testing.TB) *cutdisk.Disk {
	t.Helper()
	d := cutdisk.New()
	if err := Write(padded{d}, MinSize, editFiles(), testOptions); err != nil {
		t.Fatal(err)
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	d.Freeze()
	return d
}

// padded fills the last sector of what is written with zeros.
type padded struct{ d *cutdisk.Disk }

func (p padded) WriteAt(b []byte, off int64) (int, error) {
	if _, err := p.d.WriteAt(append(bytes.Clone(b), make([]byte, -len(b)&(sectorSize-1))...), off); err != nil {
		return 0, err
	}
	return len(b), nil
}

func edit(t testing.TB, d *cutdisk.Disk) *Editor {
	t.Helper()
	e, err := Edit(d, MinSize, testOptions.Time)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// paths lists every file of a volume, which the strict reader must like.
func paths(t testing.TB, d *cutdisk.Disk) []string {
	t.Helper()
	v, err := Read(d, MinSize)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range v.Files {
		out = append(out, f.Path)
	}
	slices.Sort(out)
	return out
}

func TestEdit(t *testing.T) {
	d := newDisk(t)
	e := edit(t, d)
	free := e.Free()
	content := bytes.Repeat([]byte("new "), 9000)
	var sector [sectorSize]byte
	copy(sector[:], "# GRUB Environment Block\n")
	for _, err := range []error{
		e.Create("EFI/Linux/allotment-2026.11.4.new", int64(len(content)), bytes.NewReader(content)),
		e.Rename("EFI/Linux/allotment-2026.11.4.new", "allotment-2026.11.4+3.efi"),
		e.Rename("efi/linux/ALLOTMENT-2026.11.4+3.efi", "allotment-2026.11.4.efi"),
		e.Mkdir("allotment/2026.11.4"),
		e.Create("allotment/2026.11.4/initrd", 5, strings.NewReader("12345")),
		e.Create("allotment/2026.11.4/empty", 0, strings.NewReader("")),
		e.WriteSector("allotment/grubenv", 0, sector),
		e.Remove("EFI/Linux/allotment-2026.11.3.efi"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"EFI/BOOT/BOOTX64.EFI", "EFI/Linux/allotment-2026.11.4.efi", "allotment/2026.11.4/empty",
		"allotment/2026.11.4/initrd", "allotment/grubenv", "loader/loader.conf"}
	if got := paths(t, d); !slices.Equal(got, want) {
		t.Errorf("files are %q, want %q", got, want)
	}
	v, err := Read(d, MinSize)
	if err != nil || v.Free != e.Free() {
		t.Fatalf("%d bytes are free, %v; the editor thinks %d", v.Free, err, e.Free())
	}
	if got, err := v.ReadFile("EFI/Linux/allotment-2026.11.4.efi"); err != nil || !bytes.Equal(got, content) {
		t.Errorf("new file has %d bytes, %v", len(got), err)
	}
	if got, err := v.ReadFile("allotment/grubenv"); err != nil || !bytes.Equal(got[:sectorSize], sector[:]) || got[sectorSize] != '#' {
		t.Errorf("grubenv: %v, %.40q", err, got)
	}
	for _, err := range []error{
		e.Remove("allotment/2026.11.4/initrd"), e.Remove("allotment/2026.11.4/empty"), e.Remove("allotment/2026.11.4"),
		e.Remove("EFI/Linux/allotment-2026.11.4.efi"),
		e.Create("EFI/Linux/again.efi", 18000, bytes.NewReader(make([]byte, 18000))),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if e.Free() != free {
		t.Errorf("%d bytes are free, want %d as before", e.Free(), free)
	}
}

func TestEditRefuses(t *testing.T) {
	d := newDisk(t)
	e := edit(t, d)
	before := d.Writes
	for name, c := range map[string]struct{ got, want error }{
		"exists":    {e.Create("efi/linux/ALLOTMENT-2026.11.3.EFI", 1, strings.NewReader("x")), fs.ErrExist},
		"no folder": {e.Create("none/x", 1, strings.NewReader("x")), fs.ErrNotExist},
		"in a file": {e.Create("allotment/grubenv/x", 1, strings.NewReader("x")), syscall.ENOTDIR},
		"too large": {e.Create("x", MinSize, strings.NewReader("x")), syscall.ENOSPC},
		"no file":   {e.Rename("x", "y"), fs.ErrNotExist},
		"taken":     {e.Rename("EFI/Linux/allotment-2026.11.3.efi", "ALLOTMENT-2026.11.3.EFI"), fs.ErrExist},
		"gone":      {e.Remove("x"), fs.ErrNotExist},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
	if e.Remove("EFI/Linux") == nil || e.Create("a:b", 0, nil) == nil || e.WriteSector("allotment/grubenv", 2, [512]byte{}) == nil {
		t.Error("a full folder was removed, or a bad name or a sector behind the end written")
	}
	if d.Writes != before {
		t.Error("something refused was written all the same")
	}
	if err := e.Create("short", 100, strings.NewReader("too few")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("content that ends early: %v", err)
	}
	if got := len(paths(t, d)); got != len(editFiles()) {
		t.Errorf("%d files, want %d", got, len(editFiles()))
	}
}

// everyCut runs do on copies of d, cut after each number of sectors, and gives what may be found then to check.
func everyCut(t *testing.T, d *cutdisk.Disk, do func(*Editor) error, check func(found *cutdisk.Disk)) {
	t.Helper()
	for n := 1; ; n++ {
		cut := d.Copy()
		e := edit(t, cut)
		cut.CutAfter(n)
		err := do(e)
		if err != nil && !cut.IsCut() {
			t.Fatal(err)
		}
		for _, found := range cut.Found() {
			check(found)
		}
		if err == nil {
			return
		}
	}
}

// TestRenameIsAtomic cuts a rename everywhere: there is the old name or the new one, never both or none. The twin renames
// a file whose entries lie in two sectors; its content is never lost either, but both names are seen.
func TestRenameIsAtomic(t *testing.T) {
	d := newDisk(t)
	e := edit(t, d)
	const placed, armed = "allotment-2026.11.4.new", "allotment-2026.11.4+3.efi"
	if err := e.Create("EFI/Linux/"+placed, 3, strings.NewReader("uki")); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	everyCut(t, d, func(e *Editor) error { return e.Rename("EFI/Linux/"+placed, armed) }, func(found *cutdisk.Disk) {
		seen[names(t, found)]++
	})
	if len(seen) != 2 || seen[placed] == 0 || seen[armed] == 0 {
		t.Errorf("after a cut there is: %v", seen)
	}

	f, item, err := e.find("EFI/Linux/" + placed)
	if err != nil {
		t.Fatal(err)
	}
	moveAcross(t, e, f, item)
	seen = map[string]int{}
	everyCut(t, d, func(e *Editor) error { return e.Rename("EFI/Linux/"+placed, armed) }, func(found *cutdisk.Disk) {
		seen[names(t, found)]++
	})
	if seen[""] > 0 || seen[armed+" "+placed] == 0 || seen[placed] == 0 || seen[armed] == 0 {
		t.Errorf("after a cut, of a name in two sectors, there is: %v", seen)
	}
}

// moveAcross moves the entries of an item to where they lie in two sectors, as firmware may put them.
func moveAcross(t *testing.T, e *Editor, f *folder, item *Item) {
	t.Helper()
	entries := bytes.Clone(f.raw[item.from*entrySize : item.to*entrySize])
	f.erase(f.end, 5*entriesPerSector)
	f.erase(item.from, item.to)
	copy(f.raw[(5*entriesPerSector-1)*entrySize:], entries)
	if err := e.writeSectors(f, 0, len(f.raw)/sectorSize-1); err != nil {
		t.Fatal(err)
	}
}

// names are the names in EFI/Linux but for that of the running release, all of which must lead to the file.
func names(t *testing.T, d *cutdisk.Disk) string {
	t.Helper()
	e := edit(t, d)
	items, err := e.List("EFI/Linux")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	running := false
	for _, item := range items {
		if item.Name == "allotment-2026.11.3.efi" {
			running = true
			continue
		}
		out = append(out, item.Name)
		r, err := e.Open("EFI/Linux/" + item.Name)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil || string(b) != "uki" {
			t.Errorf("%s has %q, %v", item.Name, b, err)
		}
	}
	if !running {
		t.Error("the running release is gone")
	}
	return strings.Join(out, " ")
}

// TestCutChanges cuts the other changes everywhere: a file is there whole or not at all, the others stay, and no room is
// lost.
func TestCutChanges(t *testing.T) {
	d := newDisk(t)
	content := bytes.Repeat([]byte("content "), 1000)
	free := edit(t, d).Free()
	for name, do := range map[string]func(*Editor) error{
		"create": func(e *Editor) error { return e.Create("EFI/Linux/new", int64(len(content)), bytes.NewReader(content)) },
		"folder": func(e *Editor) error { return e.Mkdir("allotment/2026.11.4") },
		"remove": func(e *Editor) error { return e.Remove("EFI/Linux/allotment-2026.11.3.efi") },
		"sector": func(e *Editor) error { return e.WriteSector("allotment/grubenv", 0, [512]byte{1}) },
	} {
		outcomes := map[int64]int{}
		everyCut(t, d, do, func(found *cutdisk.Disk) {
			e := edit(t, found)
			outcomes[(e.Free()-free)/ClusterSize]++
			for _, f := range append(editFiles(), File{"EFI/Linux/new", content}) {
				r, err := e.Open(f.Path)
				if errors.Is(err, fs.ErrNotExist) && (name == "remove" || strings.HasSuffix(f.Path, "new")) {
					continue
				}
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, f.Data) && f.Path != "allotment/grubenv" {
					t.Errorf("%s: %s has %d bytes, %v", name, f.Path, len(b), err)
				}
			}
			if err := e.Create("after", 3, strings.NewReader("uki")); err != nil {
				t.Errorf("%s: after the cut: %v", name, err)
			}
			paths(t, found) // FATs are equal again
		})
		if want := map[string]int{"sector": 1}[name]; len(outcomes) != max(want, 2-want) {
			t.Errorf("%s: clusters more than before: %v", name, outcomes)
		}
	}
}

// TestEditFolderFillsUp makes files until the folder is full, removes them, and has room again.
func TestEditFolderFillsUp(t *testing.T) {
	d := newDisk(t)
	e := edit(t, d)
	for round := range 3 {
		var made []string
		for {
			name := "EFI/Linux/allotment-" + strings.Repeat("x", len(made)%20) + string(rune('a'+len(made)/20)) + ".efi"
			err := e.Create(name, 0, nil)
			if errors.Is(err, syscall.ENOSPC) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			made = append(made, name)
		}
		if len(made) < 50 {
			t.Fatalf("round %d: full after %d files", round, len(made))
		}
		for _, name := range made {
			if err := e.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
		if got := len(paths(t, d)); got != len(editFiles()) {
			t.Fatalf("round %d: %d files are left", round, got)
		}
	}
}

// FuzzEdit opens volumes that are damaged in one place and changes them: no panic, no endless loop.
func FuzzEdit(f *testing.F) {
	base := newDisk(f)
	g, err := newGeometry(MinSize)
	if err != nil {
		f.Fatal(err)
	}
	start := make([]byte, g.offset(20)) // boot sectors, FATs and folders
	if _, err := base.ReadAt(start, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0), []byte{})
	f.Add(uint32(510), []byte{0})
	f.Add(uint32(g.reserved*sectorSize+8), []byte{2, 0, 0, 0, 3})
	f.Add(uint32(g.offset(3)), bytes.Repeat([]byte{0x41}, 100))
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		volume := bytes.Clone(start)
		copy(volume[at%uint32(len(volume)):], patch)
		d := base.Copy()
		if _, err := (padded{d}).WriteAt(volume, 0); err != nil {
			t.Fatal(err)
		}
		e, err := Edit(d, MinSize, testOptions.Time)
		if err != nil {
			return
		}
		// Of a damaged volume, anything may fail.
		_ = e.Create("EFI/Linux/new", 3, strings.NewReader("uki"))
		_ = e.Rename("EFI/Linux/new", "allotment-2026.11.4+3.efi")
		_ = e.Remove("EFI/Linux/allotment-2026.11.3.efi")
	})
}
