package slot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"allotment/image"
	"allotment/image/disk/fat32"
	"allotment/image/disk/fat32/cutdisk"
	"allotment/image/esp"
)

// show is what the boot loader in use chooses from, and whether the other would do the same.
func show(t *testing.T, m machine, d fat32.Device) string {
	t.Helper()
	line := func(m machine) string {
		entries, err := m.open(t, d).Entries()
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, e := range entries {
			text := string(e.Version)
			if e.Trial {
				text += fmt.Sprintf("+%d-%d", e.Left, e.Done)
			}
			out = append(out, text)
		}
		return strings.Join(out, " ")
	}
	got := line(m)
	if m.arch.BootsBIOS() {
		if other := line(machine{m.arch, !m.uefi}); other != got {
			t.Errorf("%v: one boot loader has %q, the other %q", m, got, other)
		}
	}
	return got
}

// TestLife takes a release through its whole life on every kind of machine.
func TestLife(t *testing.T) {
	two, three := ukiFile(t, "2.0"), ukiFile(t, "3.0")
	for _, m := range machines {
		d := newESP(t, m.arch)
		step := func(what string, err error, want string) {
			t.Helper()
			if err != nil {
				t.Fatalf("%v: %s: %v", m, what, err)
			}
			if got := show(t, m, d); got != want {
				t.Fatalf("%v: after %s there is %q, want %q", m, what, got, want)
			}
		}
		step("nothing", nil, "1.0")
		step("place", m.open(t, d).Place("2.0", two), "1.0")
		step("place again", m.open(t, d).Place("2.0", two), "1.0")
		step("arm", m.open(t, d).Arm("2.0"), "2.0+3-0 1.0")
		step("disarm", m.open(t, d).Drop("2.0"), "1.0")
		step("arm again", m.open(t, d).Arm("2.0"), "2.0+3-0 1.0")
		step("start", start(t, m, d), "2.0+2-1 1.0")
		step("start", start(t, m, d), "2.0+1-2 1.0")
		step("arm while on trial", m.open(t, d).Arm("2.0"), "2.0+3-0 1.0")
		for _, want := range []string{"2.0+2-1 1.0", "2.0+1-2 1.0", "1.0 2.0+0-3"} {
			step("start", start(t, m, d), want)
		}
		step("commit", m.open(t, d).Commit("2.0", two), "2.0 1.0")
		step("commit again", m.open(t, d).Commit("2.0", two), "2.0 1.0")
		if err := m.open(t, d).Place("2.0", two); err == nil {
			t.Errorf("%v: a release that runs was placed", m)
		}
		step("drop the one before", m.open(t, d).Drop("1.0"), "2.0")
		if err := m.open(t, d).Drop("2.0"); !errors.Is(err, ErrLast) {
			t.Errorf("%v: the last release was dropped: %v", m, err)
		}
		step("place", m.open(t, d).Place("3.0", three), "2.0")
		step("arm", m.open(t, d).Arm("3.0"), "3.0+3-0 2.0")
		step("start", start(t, m, d), "3.0+2-1 2.0")
		step("commit", m.open(t, d).Commit("3.0", "none"), "3.0 2.0")
		step("go back", m.open(t, d).Drop("3.0"), "2.0")
		versions, err := m.open(t, d).Versions()
		if err != nil || !slices.Equal(versions, []image.Version{"2.0"}) {
			t.Errorf("%v: versions %v, %v", m, versions, err)
		}
		if _, err := fat32.Read(d, fat32.MinSize); err != nil {
			t.Errorf("%v: %v", m, err)
		}
	}
}

// start counts a start as the boot loaders do, on both of them.
func start(t *testing.T, m machine, d *cutdisk.Disk) error {
	t.Helper()
	s := m.open(t, d)
	files, err := s.ukis()
	if err != nil {
		t.Fatal(err)
	}
	if f := files[0].UKI; f.Counted && f.Left > 0 {
		f.Left, f.Done = f.Left-1, f.Done+1
		if err := s.ed.Rename(files[0].Path(), f.Name()); err != nil {
			return err
		}
	}
	if !m.arch.BootsBIOS() {
		return nil
	}
	e, err := s.environment()
	if err == nil && e.Trial != "" && e.Tries > 0 {
		e.Tries--
		err = s.ed.WriteSector(esp.EnvironmentPath, 0, e.Sector())
	}
	return err
}

// TestNothingUnverifiedIsPlaced wants a refusal of each file that firmware would not start, or would start too early, and no
// trace of it that could be armed. What decayed since it was placed is mended by placing it again.
func TestNothingUnverifiedIsPlaced(t *testing.T) {
	good := makeUKI(t, "2.0", 0)
	damaged := bytes.Clone(good)
	damaged[len(damaged)/2] ^= 1
	for _, m := range machines {
		for name, c := range map[string]struct {
			uki  []byte
			want string
		}{
			"damaged":            {damaged, "signature"},
			"cut":                {good[:len(good)-8], "signature"},
			"signed by others":   {makeUKI(t, "2.0", 1), "signature"},
			"of another version": {makeUKI(t, "2.1", 0), `version "2.1"`},
			"empty":              {nil, "signature"},
		} {
			d := newESP(t, m.arch)
			s := m.open(t, d)
			free := s.ed.Free()
			if err := s.Place("2.0", write(t, c.uki)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v: %s: %v, want an error with %q", m, name, err, c.want)
			}
			if err := s.Arm("2.0"); err == nil {
				t.Errorf("%v: %s: armed", m, name)
			}
			if s.ed.Free() != free {
				t.Errorf("%v: %s: %d bytes are left behind", m, name, free-s.ed.Free())
			}
		}
		d := newESP(t, m.arch)
		if err := m.open(t, d).Place("2.0", write(t, good)); err != nil {
			t.Fatal(err)
		}
		path := esp.UKI{Version: "2.0", Placed: true}.Path()
		if !m.uefi {
			path = esp.GRUBPath("2.0", esp.Initrd)
		}
		spoil(t, m, d, path)
		s := m.open(t, d)
		if m.starts(s, "2.0") == nil {
			t.Errorf("%v: nothing decayed", m)
		}
		if err := s.Place("2.0", write(t, good)); err != nil {
			t.Errorf("%v: placed again: %v", m, err)
		}
		if err := errors.Join(m.starts(s, "2.0"), s.Arm("2.0")); err != nil {
			t.Errorf("%v: placed again after it decayed: %v", m, err)
		}
	}
}

// starts tells why the machine would not start a placed version.
func (m machine) starts(s *Store, v image.Version) error {
	if !m.uefi {
		return s.checkSums(v)
	}
	r, err := s.ed.Open(esp.UKI{Version: v, Placed: true}.Path())
	if err != nil {
		return err
	}
	return s.check(r, r.Size(), v)
}

// spoil changes a byte of a file.
func spoil(t *testing.T, m machine, d *cutdisk.Disk, path string) {
	t.Helper()
	s := m.open(t, d)
	r, err := s.ed.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, r.Size())
	if _, err := r.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := errors.Join(s.ed.Remove(path), s.ed.Create(path, int64(len(b)), bytes.NewReader(b))); err != nil {
		t.Fatal(err)
	}
}

// TestCommitMends commits a release whose files decayed or are gone, from the copy; without a copy it refuses and changes
// nothing.
func TestCommitMends(t *testing.T) {
	two := ukiFile(t, "2.0")
	for _, m := range machines {
		for _, name := range []string{"uki", "kernel", "all"} {
			d := newESP(t, m.arch)
			s := m.open(t, d)
			if err := errors.Join(s.Place("2.0", two), s.Arm("2.0"), start(t, m, d)); err != nil {
				t.Fatal(err)
			}
			switch name {
			case "uki":
				spoil(t, m, d, esp.UKI{Version: "2.0", Counted: true, Left: 2, Done: 1}.Path())
			case "kernel":
				if !m.arch.BootsBIOS() {
					continue
				}
				spoil(t, m, d, esp.GRUBPath("2.0", esp.Kernel))
			case "all":
				s := m.open(t, d)
				if err := s.ed.Remove(esp.UKI{Version: "2.0", Counted: true, Left: 2, Done: 1}.Path()); err != nil {
					t.Fatal(err)
				}
				if err := s.removeFolder("2.0"); err != nil {
					t.Fatal(err)
				}
			}
			if inUse := name == "all" || (name == "uki") == m.uefi; inUse {
				without := d.Copy()
				if err := m.open(t, without).Commit("2.0", "none"); err == nil {
					t.Errorf("%v: %s: committed without a copy", m, name)
				}
			}
			if err := m.open(t, d).Commit("2.0", two); err != nil {
				t.Errorf("%v: %s: %v", m, name, err)
			}
			if got := show(t, m, d); got != "2.0 1.0" {
				t.Errorf("%v: %s: there is %q", m, name, got)
			}
			s = m.open(t, d)
			if err := s.armUKI("2.0"); err == nil || !strings.Contains(err.Error(), "committed") {
				t.Errorf("%v: %s: %v", m, name, err)
			}
			if m.arch.BootsBIOS() {
				if err := s.checkSums("2.0"); err != nil {
					t.Errorf("%v: %s: %v", m, name, err)
				}
			}
		}
	}
}

// TestPlaceNeedsRoom has a partition that is nearly full: the error says so, nothing is left behind, and boot files that are
// not started from make room.
func TestPlaceNeedsRoom(t *testing.T) {
	two := ukiFile(t, "2.0")
	for _, m := range machines {
		d := newESP(t, m.arch)
		if err := m.open(t, d).Place("1.5", ukiFile(t, "1.5")); err != nil {
			t.Fatal(err)
		}
		fillUp(t, d, 0)
		s := m.open(t, d)
		if err := s.Place("2.0", two); err != nil {
			t.Errorf("%v: in place of another one: %v", m, err)
		}
		full := newESP(t, m.arch)
		fillUp(t, full, 0)
		s = m.open(t, full)
		free := s.ed.Free()
		if err := s.Place("2.0", two); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "MiB") {
			t.Errorf("%v: full: %v", m, err)
		}
		if got := show(t, m, full); got != "1.0" || m.open(t, full).ed.Free() != free {
			t.Errorf("%v: full: there is %q, and %d bytes less", m, got, free-m.open(t, full).ed.Free())
		}
	}
}

// fillUp marks all clusters but the first ones, and room more, as bad.
func fillUp(t *testing.T, d *cutdisk.Disk, room uint32) {
	t.Helper()
	boot := make([]byte, 512)
	if _, err := d.ReadAt(boot, 0); err != nil {
		t.Fatal(err)
	}
	start := int64(binary.LittleEndian.Uint16(boot[14:])) * 512
	size := int64(binary.LittleEndian.Uint32(boot[36:])) * 512
	fat := make([]byte, size)
	if _, err := d.ReadAt(fat, start); err != nil {
		t.Fatal(err)
	}
	for at := 8; at < len(fat); at += 4 {
		if binary.LittleEndian.Uint32(fat[at:]) != 0 {
			continue
		}
		if room > 0 {
			room--
			continue
		}
		binary.LittleEndian.PutUint32(fat[at:], 0x0ffffff7)
	}
	for _, off := range []int64{start, start + size} {
		if _, err := d.WriteAt(fat, off); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
}

// TestRepair looks at what a cut within firmware's renaming leaves.
func TestRepair(t *testing.T) {
	m := machine{image.ARM64, true}
	two := ukiFile(t, "2.0")
	armed := newESP(t, m.arch)
	s := m.open(t, armed)
	if err := errors.Join(s.Place("2.0", two), s.Arm("2.0")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		names []string // of the armed UKI
		want  string
	}{
		"both":             {[]string{"allotment-2.0+3.efi", "allotment-2.0+2-1.efi"}, "2.0+2-1 1.0"},
		"none":             {nil, "1.0"},
		"the short form":   {[]string{"ALLOTM~9.EFI"}, "1.0"},
		"commit, twice":    {[]string{"allotment-2.0+2-1.efi", "allotment-2.0.efi"}, "2.0+2-1 1.0"},
		"placed and armed": {[]string{"allotment-2.0.new", "allotment-2.0+3.efi"}, "1.0"},
	} {
		d := armed.Copy()
		relink(t, m, d, esp.UKI{Version: "2.0", Counted: true, Left: esp.MaxTries}, c.names)
		if got := show(t, m, d); got != c.want {
			t.Errorf("%s: there is %q, want %q", name, got, c.want)
		}
		s := m.open(t, d)
		if err := errors.Join(s.Drop("2.0"), s.Place("2.0", two), s.Arm("2.0")); err != nil {
			t.Errorf("%s: armed again: %v", name, err)
		}
		if _, err := fat32.Read(d, fat32.MinSize); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// raw is the partition without any repair.
func (m machine) raw(t testing.TB, d *cutdisk.Disk) *fat32.Editor {
	t.Helper()
	ed, err := fat32.Edit(d, fat32.MinSize, now)
	if err != nil {
		t.Fatal(err)
	}
	return ed
}

// repoint makes the entry of the file that begins at a cluster lead to another one.
func repoint(t testing.TB, d *cutdisk.Disk, from uint32, to fat32.Item) {
	t.Helper()
	b := make([]byte, 1<<20) // FATs and folders
	if _, err := d.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	data := 512 * (int(binary.LittleEndian.Uint16(b[14:])) + 2*int(binary.LittleEndian.Uint32(b[36:])))
	for at := data; at < len(b); at += 32 {
		if e := b[at:][:32]; e[11] == 0x20 && uint32(binary.LittleEndian.Uint16(e[26:])) == from && from != to.Cluster {
			binary.LittleEndian.PutUint16(e[26:], uint16(to.Cluster))
			binary.LittleEndian.PutUint32(e[28:], uint32(to.Size))
			if _, err := d.WriteAt(b[at&^511:][:512], int64(at&^511)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
}
