package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"allotment/image"
	"allotment/image/uki/ukitest"
)

// testPE is a stub that says to be so large in memory.
func testPE(sizeOfImage uint32) []byte {
	b := ukitest.PE(image.AMD64, []byte("stub"))
	binary.LittleEndian.PutUint32(b[88+56:], sizeOfImage)
	return b
}

func testImage() Image {
	return Image{
		OSRelease: "ID=allotment\nIMAGE_VERSION=2026.11.3\n",
		Cmdline:   "roothash=00 panic=5",
		Uname:     "6.12.107",
		Initrd:    bytes.Repeat([]byte("initrd"), 1000),
		Linux:     testPE(1 << 20),
	}
}

func TestAssembleAndRead(t *testing.T) {
	want := testImage()
	b, err := Assemble(testPE(8192), want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Read(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if got.OSRelease != want.OSRelease || got.Cmdline != want.Cmdline || got.Uname != want.Uname ||
		!bytes.Equal(got.Initrd, want.Initrd) || !bytes.Equal(got.Linux, want.Linux) {
		t.Errorf("read back %+v, want %+v", got, want)
	}
	for name, data := range map[string][]byte{".initrd": want.Initrd, ".linux": want.Linux, ".cmdline": []byte(want.Cmdline)} {
		s, err := Section(bytes.NewReader(b), name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, data) {
			t.Errorf("section %s has %d bytes, %v", name, len(got), err)
		}
	}
	if _, err := Section(bytes.NewReader(b), ".none"); err == nil {
		t.Error("there is a section .none")
	}
	again, err := Assemble(testPE(8192), want)
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("second Assemble gave other bytes (%v)", err)
	}
}

// TestAssembleKeepsTheRules checks the rules of the PE format that firmware relies on.
func TestAssembleKeepsTheRules(t *testing.T) {
	b, err := Assemble(testPE(8192), testImage())
	if err != nil {
		t.Fatal(err)
	}
	f, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	var end uint32
	for _, s := range f.Sections {
		if s.VirtualAddress%4096 != 0 || s.VirtualAddress < end {
			t.Errorf("section %s is at %#x, the one before ends at %#x", s.Name, s.VirtualAddress, end)
		}
		if s.Offset%512 != 0 || s.Size%512 != 0 || int(s.Offset+s.Size) > len(b) {
			t.Errorf("section %s: file offset %d and size %d do not fit the alignment or the file", s.Name, s.Offset, s.Size)
		}
		end = s.VirtualAddress + s.VirtualSize
	}
	last := f.Sections[len(f.Sections)-1]
	if last.Name != ".linux" || last.VirtualSize != 1<<20 {
		t.Errorf("last section is %s with %d bytes in memory, want .linux with the kernel's SizeOfImage", last.Name, last.VirtualSize)
	}
	if size := f.OptionalHeader.(*pe.OptionalHeader64).SizeOfImage; size != (end+4095)/4096*4096 {
		t.Errorf("SizeOfImage is %#x, sections end at %#x", size, end)
	}
}

func TestAssembleRefuses(t *testing.T) {
	damaged := func(offset int, value byte) []byte {
		b := testPE(8192)
		b[offset] = value
		return b
	}
	for _, c := range []struct {
		name string
		stub []byte
		edit func(*Image)
		want string
	}{
		{"stub is no PE file", []byte("hello"), nil, "stub: no PE file"},
		{"no room for headers", damaged(88+61, 2), nil, "room"}, // SizeOfHeaders 512
		{"signed stub", damaged(88+145, 16), nil, "signed"},
		{"kernel of another machine", damaged(69, 0xaa), nil, "machine"},
		{"kernel is no PE file", testPE(8192), func(m *Image) { m.Linux = []byte("hello") }, "kernel: no PE file"},
		{"no initrd", testPE(8192), func(m *Image) { m.Initrd = nil }, ".initrd is empty"},
	} {
		m := testImage()
		if c.edit != nil {
			c.edit(&m)
		}
		if _, err := Assemble(c.stub, m); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	if _, err := Read(bytes.NewReader(testPE(8192))); err == nil || !strings.Contains(err.Error(), ".linux") {
		t.Errorf("a stub without a kernel: %v", err)
	}
	if _, err := Read(strings.NewReader("hello")); err == nil {
		t.Error("a text was read as an image")
	}
}

func TestOSReleaseField(t *testing.T) {
	const text = "A=plain\nB=\"two words\"\nC=\"a \\\"b\\\" \\$c \\\\ \\`\"\nAB=other\n"
	for name, want := range map[string]string{"A": "plain", "B": "two words", "C": "a \"b\" $c \\ `", "AB": "other", "D": ""} {
		if got := OSReleaseField(text, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// FuzzRead feeds files to the reader, which must not panic.
func FuzzRead(f *testing.F) {
	b, err := Assemble(testPE(8192), testImage())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := Read(bytes.NewReader(b)); err == nil && len(m.Linux) == 0 {
			t.Error("an image without kernel was accepted")
		}
	})
}
