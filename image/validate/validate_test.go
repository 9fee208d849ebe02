package validate

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"allotment/image"
	"allotment/image/disk"
	"allotment/image/disk/fat32"
	"allotment/image/secureboot"
	"allotment/image/uki"
)

// judge validates a disk and returns the parts that breaches name.
func judge(t testing.TB, r io.ReaderAt, size int64, o Options) (*Report, []string) {
	t.Helper()
	report, err := Image(r, size, o)
	if (err == nil) != (len(report.Breaches) == 0) {
		t.Errorf("error is %v, breaches are %v", err, report.Breaches)
	}
	var parts []string
	for _, b := range report.Breaches {
		parts = append(parts, b.Error())
	}
	return report, parts
}

func TestGoodImage(t *testing.T) {
	for _, arch := range []image.Arch{image.AMD64, image.ARM64} {
		p := newParts(t)
		p.arch, p.manifest.Arch = arch, arch
		f := p.build(t)
		for _, o := range []Options{{}, {Cert: p.keys.DB.Cert}} {
			report, breaches := judge(t, f, f.Size, o)
			if len(breaches) > 0 {
				t.Errorf("%s: %s", arch, strings.Join(breaches, "\n"))
			}
			if report.Version != "2026.11.3" || report.Arch != arch || report.Kernel != "6.12.1-test" || len(report.Layers) != 2 {
				t.Errorf("%s: report is %+v", arch, report)
			}
			var text bytes.Buffer
			if err := report.Print(&text); err != nil || !strings.Contains(text.String(), "Every invariant holds.") {
				t.Errorf("%s: %v, text is\n%s", arch, err, text.String())
			}
			if _, err := json.Marshal(report); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestFlips changes one byte of a good image at a time and wants the part named.
func TestFlips(t *testing.T) {
	p := newParts(t)
	f := p.build(t)
	size := f.Size
	report, breaches := judge(t, f, size, Options{})
	if len(breaches) > 0 {
		t.Fatal(breaches)
	}
	at := map[string]disk.Partition{}
	for _, part := range report.Partitions {
		at[part.Name] = part
	}
	esp, err := fat32.Read(io.NewSectionReader(f, at[disk.ESP].Start, at[disk.ESP].Size), at[disk.ESP].Size)
	if err != nil {
		t.Fatal(err)
	}
	inFile := func(path string) int64 { // where in the disk the middle of a file lies
		b, err := esp.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return findBytes(t, f, at[disk.ESP].Start, b) + int64(len(b)/2)
	}
	seed := at[disk.State].Start + p.manifest.Seed.Offset
	for _, c := range []struct {
		name string
		at   int64
		want string
	}{
		{"protective MBR", 450, "protective MBR"},
		{"primary header", 512 + 40, "primary partition table"},
		{"primary entries", 1024 + 60, "primary partition table"},
		{"backup header", size - 512 + 40, "backup partition table"},
		{"backup entries", size - 512 - 32*512, "backup partition table"},
		{"GRUB's first sector", 0x5c, "bios: first sector"},
		{"GRUB's second sector", at[disk.BIOS].Start + 0x1f4, "bios: GRUB"},
		{"FAT", at[disk.ESP].Start + 32*512 + 9, "esp: "},
		{"systemd-boot", inFile("EFI/BOOT/BOOTX64.EFI"), "EFI/BOOT/BOOTX64.EFI: signature"},
		{"UKI", inFile("EFI/Linux/allotment-2026.11.3.efi"), "allotment-2026.11.3.efi: signature"},
		{"loader.conf", inFile("loader/loader.conf"), "loader/loader.conf"},
		{"kernel for GRUB", inFile("allotment/2026.11.3/vmlinuz"), "vmlinuz: is not the kernel"},
		{"initrd for GRUB", inFile("allotment/2026.11.3/initrd"), "initrd: is not the initrd"},
		{"hashes for GRUB", inFile("allotment/2026.11.3/SHA256SUMS"), "SHA256SUMS"},
		{"size of a file", findBytes(t, f, at[disk.ESP].Start, []byte("VMLINUZ    \x20")) + 31, "one file too many"},
		{"grub.cfg", inFile("allotment/grub.cfg"), "grub.cfg"},
		{"command line for GRUB", inFile("allotment/2026.11.3/arguments.cfg"), "arguments.cfg"},
		{"what GRUB starts", inFile("allotment/committed"), "allotment/committed"},
		{"db.auth", inFile("loader/keys/allotment/db.auth"), "db.auth"},
		{"root data", at[disk.RootA].Start + 5000, "root-a: does not fit"},
		{"behind the root", at[disk.RootA].Start + at[disk.RootA].Size - 1, "root-a: not empty"},
		{"verity superblock", at[disk.VerityA].Start + 16, "root-a: does not fit"},
		{"verity tree", at[disk.VerityA].Start + 4096 + 1, "root-a: does not fit"},
		{"slot B", at[disk.RootB].Start + 100, "root-b: not empty"},
		{"tree of slot B", at[disk.VerityB].Start, "verity-b: not empty"},
		{"first layer", seed + 7, "state: layer layer1"},
		{"second layer", seed + p.manifest.Seed.Size - 1, "state: layer layer2"},
		{"before the seed", seed - 1, "state: not empty"},
		{"behind the seed", seed + p.manifest.Seed.Size, "state: not empty"},
	} {
		_, breaches := judge(t, flipped{f, c.at}, size, Options{Cert: p.keys.DB.Cert})
		if !slices.ContainsFunc(breaches, func(b string) bool { return strings.Contains(b, c.want) }) {
			t.Errorf("%s flipped: breaches are %q, want one with %q", c.name, breaches, c.want)
		}
	}
}

// findBytes is where in the first 16 MiB from the given offset on the bytes lie.
func findBytes(t testing.TB, r io.ReaderAt, from int64, b []byte) int64 {
	t.Helper()
	buf := make([]byte, 16*mib)
	if _, err := r.ReadAt(buf, from); err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(buf, b)
	if i < 0 {
		t.Fatal("bytes not found on the disk")
	}
	return from + int64(i)
}

// TestTwins builds images that are wrong in one way and wants that named.
func TestTwins(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, p *parts)
		want   string
	}{
		{"UKI signed by another key", func(t *testing.T, p *parts) {
			keys, _ := testKeys()
			good := p.keys
			p.keys = keys[1]
			p.edit = func(s *disk.Spec) { s.Auth = good.Auth }
		}, "unknown key"},
		{"UKI not signed", func(t *testing.T, p *parts) {
			p.edit = func(s *disk.Spec) { s.UKI = testPE(p.arch, 10) }
		}, "not signed"},
		{"no PK.auth", func(t *testing.T, p *parts) {
			p.edit = func(s *disk.Spec) {
				s.Auth = map[secureboot.Variable][]byte{secureboot.DB: s.Auth[secureboot.DB], secureboot.KEK: s.Auth[secureboot.KEK]}
			}
		}, "PK.auth: is missing"},
		{"db.auth by another KEK", func(t *testing.T, p *parts) {
			keys, _ := testKeys()
			p.edit = func(s *disk.Spec) {
				s.Auth = maps.Clone(s.Auth)
				s.Auth[secureboot.DB] = keys[1].Auth[secureboot.DB]
			}
		}, "db.auth: authenticated"},
		{"no root hash", func(t *testing.T, p *parts) {
			p.ukiEdit = func(m *uki.Image) { m.Cmdline = "panic=5" }
		}, "no root hash"},
		{"two root hashes", func(t *testing.T, p *parts) {
			p.ukiEdit = func(m *uki.Image) { m.Cmdline += " " + strings.Fields(m.Cmdline)[0] }
		}, "or two"},
		{"another root hash", func(t *testing.T, p *parts) {
			p.ukiEdit = func(m *uki.Image) { m.Cmdline = "roothash=" + strings.Repeat("0", 64) + " panic=5" }
		}, "root-a: does not fit"},
		{"no panic=5", func(t *testing.T, p *parts) {
			p.ukiEdit = func(m *uki.Image) { m.Cmdline = strings.Fields(m.Cmdline)[0] }
		}, "panic=5"},
		{"os-release of another version", func(t *testing.T, p *parts) {
			p.ukiEdit = func(m *uki.Image) { m.OSRelease = "IMAGE_VERSION=1.0\n" }
		}, `version "1.0"`},
		{"kernel of another release", func(t *testing.T, p *parts) {
			p.ukiEdit = func(m *uki.Image) { m.Uname = "6.1" }
		}, "is for kernel"},
		{"GRUB's command line", func(t *testing.T, p *parts) {
			p.edit = func(s *disk.Spec) { s.Cmdline = "roothash=00" }
		}, "arguments.cfg"},
		{"GRUB's initrd", func(t *testing.T, p *parts) {
			p.edit = func(s *disk.Spec) { s.Initrd = []byte("other") }
		}, "is not the initrd"},
		{"manifest of another version", func(t *testing.T, p *parts) { p.manifest.Version = "2026.11.4" }, "is of version"},
		{"manifest for another architecture", func(t *testing.T, p *parts) { p.manifest.Arch = image.ARM64 }, "is for arm64"},
		{"manifest of another format", func(t *testing.T, p *parts) { p.manifest.Format = 2 }, "has format 2"},
		{"module without its layer", func(t *testing.T, p *parts) {
			p.manifest.Modules[0].Layers[0] = image.NewDigest([32]byte{1})
		}, "which is not there"},
		{"layer twice", func(t *testing.T, p *parts) {
			p.layers = append(p.layers, p.layers[0])
			p.manifest.Layers = append(p.manifest.Layers, p.manifest.Layers[0])
		}, "twice"},
		{"seed elsewhere", func(t *testing.T, p *parts) { p.manifest.Seed.Offset += mib }, "seed of"},
		{"no gateway", func(t *testing.T, p *parts) { p.programs = slices.Delete(slices.Clone(programs), 2, 3) }, "allot-gateway: is not a program"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newParts(t)
			c.damage(t, p)
			f := p.build(t)
			_, breaches := judge(t, f, f.Size, Options{})
			if !slices.ContainsFunc(breaches, func(b string) bool { return strings.Contains(b, c.want) }) {
				t.Errorf("breaches are %q, want one with %q", breaches, c.want)
			}
		})
	}
}

// TestAllBreachesAtOnce breaks an image in three places and wants all three.
func TestAllBreachesAtOnce(t *testing.T) {
	p := newParts(t)
	p.manifest.Version = "2026.11.4"
	p.ukiEdit = func(m *uki.Image) { m.Uname = "6.1" }
	p.edit = func(s *disk.Spec) { s.Initrd = []byte("other") }
	f := p.build(t)
	_, breaches := judge(t, f, f.Size, Options{})
	for _, want := range []string{"is of version", "is for kernel", "is not the initrd"} {
		if !slices.ContainsFunc(breaches, func(b string) bool { return strings.Contains(b, want) }) {
			t.Errorf("breaches are %q, want one with %q", breaches, want)
		}
	}
}

// TestNoImage wants an answer, not a panic, for things that are no image.
func TestNoImage(t *testing.T) {
	for _, b := range [][]byte{nil, []byte("hello"), make([]byte, 4<<20)} {
		if _, breaches := judge(t, bytes.NewReader(b), int64(len(b)), Options{}); len(breaches) == 0 {
			t.Errorf("%d bytes have no breach", len(b))
		}
	}
}

// FuzzParseManifest feeds manifests to the reader; what it accepts is of our format and can be written again.
func FuzzParseManifest(f *testing.F) {
	p := newParts(f)
	b, err := json.Marshal(p.manifest)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"format":1,"name":"a","version":"1.0","arch":"amd64","epoch":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseManifest(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseManifest(again); err != nil {
			t.Errorf("what was accepted is refused when written again: %v", err)
		}
	})
}

func TestParseManifestRefuses(t *testing.T) {
	good := `{"format":1,"name":"a","version":"1.0","arch":"amd64","epoch":1}`
	if _, err := parseManifest([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"", "{}", "null", good + "{}", strings.Replace(good, "name", "nam", 1), strings.Replace(good, "amd64", "riscv64", 1),
		strings.Replace(good, "1.0", "one", 1), strings.Replace(good, `"epoch":1`, `"epoch":0`, 1),
	} {
		if _, err := parseManifest([]byte(bad)); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}
