package qemutests

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"allotment/image"
	"allotment/qemu-tests/vm"
)

// judge is a program of other people that says whether a file is right. Some say it by their exit status, some only by what
// they print.
type judge struct {
	name   string
	file   func(t *testing.T) string // makes the file to judge, afresh
	args   func(file string) []string
	good   string                                         // what it prints of a good file
	bad    string                                         // what it prints of a bad file only; may be empty
	defect func(t *testing.T, file string) (flip []int64) // bytes whose change it must notice
}

// complaint is what the judge has to say against a file, or "".
func (j judge) complaint(t *testing.T, b *built, file string) string {
	t.Helper()
	words := j.args(file)
	said, err := b.tools.Command(t.Context(), words[0], words[1:]...).CombinedOutput()
	if err != nil || !bytes.Contains(said, []byte(j.good)) || j.bad != "" && bytes.Contains(said, []byte(j.bad)) {
		return fmt.Sprintf("%v: %s", err, said)
	}
	return ""
}

// TestOutsideJudges asks each judge about the image, and then about the image with a planted defect.
func TestOutsideJudges(t *testing.T) {
	b := minimal(t, image.AMD64)
	for _, j := range b.judges(t) {
		t.Run(j.name, func(t *testing.T) {
			file := j.file(t)
			if said := j.complaint(t, b, file); said != "" {
				t.Errorf("it complains about a good file:\n%s", said)
			}
			for _, at := range j.defect(t, file) {
				if err := vm.FlipByte(file, at); err != nil {
					t.Fatal(err)
				}
			}
			if said := j.complaint(t, b, file); said == "" {
				t.Error("it does not notice the planted defect")
			}
		})
	}
}

func (b *built) judges(t *testing.T) []judge {
	part := func(name string) func(*testing.T) string {
		return func(t *testing.T) string { return b.partFile(t, name) }
	}
	at := func(offsets ...int64) func(*testing.T, string) []int64 {
		return func(*testing.T, string) []int64 { return offsets }
	}
	middle := func(t *testing.T, file string) []int64 {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		return []int64{info.Size() / 2}
	}
	// The checksum of the partition table's header, and of its copy at the end of the disk.
	bothHeaders := func(t *testing.T, file string) []int64 { return []int64{512 + 16, 2*middle(t, file)[0] - 512 + 16} }
	raw := func(t *testing.T) string { return b.copyImage(t) }
	rootHash := strings.ReplaceAll(strings.ToLower(b.parts["root-a"].uuid+b.parts["verity-a"].uuid), "-", "")
	verity := b.partFile(t, "verity-a")
	certificate := filepath.Join(b.keys, "db.crt")
	js := []judge{
		{"sgdisk", raw, func(f string) []string { return []string{"sgdisk", "-v", f} }, "No problems found", "", at(2*512 + 40)},
		{"fsck.vfat", part("esp"), func(f string) []string { return []string{"fsck.vfat", "-n", f} }, "", "", b.inFAT},
		{"fsck.erofs", part("root-a"), func(f string) []string {
			return []string{"fsck.erofs", "--extract", f}
		}, "", "<E>", at(1024 + 14)},
		{"veritysetup", part("root-a"), func(f string) []string {
			return []string{"veritysetup", "verify", f, verity, rootHash}
		}, "", "", at(1 << 20)},
		{"sbverify UKI", b.espFile(b.uki()), func(f string) []string {
			return []string{"sbverify", "--cert", certificate, f}
		}, "Signature verification OK", "", middle},
		{"sbverify loader", b.espFile("EFI/BOOT/BOOTX64.EFI"), func(f string) []string {
			return []string{"sbverify", "--cert", certificate, f}
		}, "Signature verification OK", "", middle},
		{"systemd-dissect", raw, func(f string) []string {
			return []string{"systemd-dissect", "--validate", "--image-policy=root=verity:esp=unprotected:=unused+absent", f}
		}, "OK", "", bothHeaders},
	}
	for _, suffix := range []string{"qcow2", "vmdk", "vhd"} {
		js = append(js, b.formatJudges(suffix)...)
	}
	return js
}

// formatJudges compare an output with the raw image, and look at the structure of those that have one that can be checked.
func (b *built) formatJudges(suffix string) []judge {
	qemuName := map[string]string{"qcow2": "qcow2", "vmdk": "vmdk", "vhd": "vpc"}[suffix]
	file := func(t *testing.T) string {
		from, err := b.result.Image(suffix)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(t.TempDir(), "disk."+suffix)
		if err := vm.CopySparse(from, to); err != nil {
			t.Fatal(err)
		}
		return to
	}
	inUKI := func(t *testing.T, file string) []int64 {
		f, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		at := b.inESP(t, b.uki())
		block := make([]byte, 512)
		readAt(t, b.raw, block, at)
		i := bytes.Index(f, block)
		if i < 0 {
			t.Fatalf("cannot find the block at %d of the raw image in the %s", at, suffix)
		}
		return []int64{int64(i)}
	}
	js := []judge{{"qemu-img compare " + suffix, file, func(f string) []string {
		return []string{"qemu-img", "compare", "-f", "raw", "-F", qemuName, b.raw, f}
	}, "Images are identical", "", inUKI}}
	if suffix == "qcow2" {
		// The entries of the refcount table, whose place the header has at byte 48, point to refcount blocks.
		table := func(t *testing.T, file string) []int64 {
			head := make([]byte, 8)
			readAt(t, file, head, 48)
			var at int64
			for _, c := range head {
				at = at<<8 | int64(c)
			}
			return []int64{at + 5}
		}
		js = append(js, judge{"qemu-img check " + suffix, file, func(f string) []string {
			return []string{"qemu-img", "check", "-f", qemuName, f}
		}, "No errors were found", "", table})
	}
	return js
}

// partFile copies a partition of the image to a file of its own.
func (b *built) partFile(t *testing.T, name string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := copyPart(b.raw, b.parts[name], file); err != nil {
		t.Fatal(err)
	}
	return file
}

// espFile copies a file out of the ESP.
func (b *built) espFile(name string) func(*testing.T) string {
	return func(t *testing.T) string {
		t.Helper()
		image := fmt.Sprintf("%s@@%d", b.raw, b.parts["esp"].start)
		content, err := output(t.Context(), b.tools, "mtype", "-i", image, "::/"+name)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), filepath.Base(name))
		if err := os.WriteFile(file, content, 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
}

// inFAT is a byte in the middle of the used part of the first file allocation table, whose place the boot sector has at
// byte 14 as a count of sectors (Microsoft FAT specification, BPB_RsvdSecCnt).
func (b *built) inFAT(t *testing.T, esp string) []int64 {
	head := make([]byte, 2)
	readAt(t, esp, head, 14)
	return []int64{(int64(head[0])+int64(head[1])<<8)*512 + 400}
}

func readAt(t *testing.T, file string, p []byte, at int64) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(p, at); err != nil && err != io.EOF {
		t.Fatal(err)
	}
}
