package kernel

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ulikunitz/xz"

	"allotment/image"
	"allotment/internal/cache"
)

const release = "6.12.0-test"

// object is a relocatable ELF file with nothing but a .modinfo section of these entries.
func object(t *testing.T, modinfo ...string) []byte {
	t.Helper()
	info := strings.Join(modinfo, "\x00") + "\x00"
	names := "\x00.modinfo\x00.shstrtab\x00"
	const header = 64
	sections := []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: header, Size: uint64(len(info))},
		{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: header + uint64(len(info)), Size: uint64(len(names))},
	}
	h := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1,
		Shoff: header + uint64(len(info)+len(names)), Ehsize: header, Shentsize: 64, Shnum: 3, Shstrndx: 2,
	}
	var b bytes.Buffer
	for _, part := range []any{h, []byte(info), []byte(names), sections} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func pack(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := xz.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// file is a member of a package.
type file struct {
	name string
	data []byte
}

func archive(t *testing.T, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: "./" + f.name, Mode: 0o644, Size: int64(len(f.data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func ko(t *testing.T, path string, modinfo ...string) file {
	return file{"usr/lib/modules/" + release + "/kernel/" + path + ".ko", object(t, modinfo...)}
}

// packed is ko as Debian ships it.
func packed(t *testing.T, f file) file { return file{f.name + ".xz", pack(t, f.data)} }

// example is a kernel with a file system that needs a checksum, directly and softly, and a driver that nobody wants.
func example(t *testing.T) []byte {
	return archive(t,
		file{"boot/vmlinuz-" + release, []byte("the kernel")},
		file{"boot/config-" + release, []byte("not of use")},
		ko(t, "fs/a-fs/a-fs", "name=a_fs", "alias=fs-a", "depends=lib-sum,helper",
			"softdep=pre: crypto-sum fast-sum post: late"),
		ko(t, "lib/lib-sum", "depends=base"),
		ko(t, "lib/base", "depends="),
		ko(t, "lib/helper", "depends=base"),
		ko(t, "crypto/fast-sum", "alias=crypto-sum", "alias=crypto-sum-fast"),
		ko(t, "crypto/late"),
		packed(t, ko(t, "drivers/disk", "alias=pci:v00001AF4d*sv*", "depends=")),
		ko(t, "drivers/unwanted", "alias=pci:v*"),
	)
}

const exampleList = `
initramfs = ["drivers/d*"]
root = ["fs/*/a-fs", "drivers/not-on-this-architecture"]
`

func extracted(t *testing.T, data []byte, list string) (string, error) {
	dir := t.TempDir()
	return dir, extract(context.Background(), bytes.NewReader(data), []byte(list), dir)
}

func TestExtract(t *testing.T) {
	dir, err := extracted(t, example(t), exampleList)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"modules.dep": `kernel/fs/a-fs/a-fs.ko: kernel/lib/helper.ko kernel/lib/lib-sum.ko kernel/lib/base.ko
kernel/lib/base.ko:
kernel/drivers/disk.ko:
kernel/crypto/fast-sum.ko:
kernel/lib/helper.ko: kernel/lib/base.ko
kernel/crypto/late.ko:
kernel/lib/lib-sum.ko: kernel/lib/base.ko
`,
		"modules.alias": `alias fs-a a_fs
alias pci:v00001AF4d*sv* disk
alias crypto-sum fast_sum
alias crypto-sum-fast fast_sum
`,
		"modules.softdep": "softdep a_fs pre: crypto-sum fast-sum post: late\n",
	}
	root := filepath.Join(dir, "root/usr/lib/modules", release)
	for name, text := range want {
		if diff := cmp.Diff(text, read(t, filepath.Join(root, name))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	initramfs := filepath.Join(dir, "initramfs/usr/lib/modules", release)
	if got := read(t, filepath.Join(initramfs, "modules.dep")); got != "kernel/drivers/disk.ko:\n" {
		t.Errorf("the initramfs has %q", got)
	}
	unpacked := object(t, "alias=pci:v00001AF4d*sv*", "depends=")
	if got := read(t, filepath.Join(initramfs, "kernel/drivers/disk.ko")); got != string(unpacked) {
		t.Error("the module's bytes were changed")
	}
	if got := read(t, filepath.Join(dir, "vmlinuz")); got != "the kernel" {
		t.Errorf("the kernel is %q", got)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestExtractErrors(t *testing.T) {
	vmlinuz := file{"boot/vmlinuz-" + release, []byte("the kernel")}
	disk := "usr/lib/modules/" + release + "/kernel/drivers/disk.ko"
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"no kernel", archive(t, ko(t, "lib/base")), "no /boot/vmlinuz"},
		{"no modules", archive(t, vmlinuz), "no modules"},
		{"two kernels", archive(t, vmlinuz, file{"boot/vmlinuz-2", nil}), "two kernels"},
		{"modules of another", archive(t, file{"boot/vmlinuz-2", nil}, ko(t, "lib/base")), "beside kernel"},
		{"lost dependency", archive(t, vmlinuz, ko(t, "fs/x/a-fs", "depends=gone")), `lacks "gone"`},
		{"no ELF", archive(t, vmlinuz, file{disk, []byte("x")}), "cannot read module"},
		{"no xz", archive(t, vmlinuz, file{disk + ".xz", []byte("x")}), "cannot unpack"},
		{"cut off", archive(t, vmlinuz, ko(t, "lib/base"))[:4*512-300], "unexpected EOF"},
	}
	for _, test := range tests {
		if _, err := extracted(t, test.data, exampleList); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
	for _, list := range []string{"unknown = 1", `initramfs = ["[a"]`} {
		if _, err := extracted(t, example(t), list); err == nil {
			t.Errorf("list %q was taken", list)
		}
	}
}

func TestCache(t *testing.T) {
	data := archive(t, file{"boot/vmlinuz-" + release, []byte("the kernel")}, ko(t, "drivers/block/virtio_blk"))
	path := filepath.Join(t.TempDir(), "data.tar")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	sum, _, err := image.DigestOf(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	c := cache.Dir(t.TempDir())
	first, err := Extract(context.Background(), c, path, sum)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	again, err := Extract(context.Background(), c, path, sum)
	if err != nil || *again != *first || again.Release != release || read(t, again.Image) != "the kernel" {
		t.Errorf("got %+v, %v", again, err)
	}
}

func TestListIsValid(t *testing.T) {
	_, err := extracted(t, example(t), string(modulesTOML))
	if err != nil {
		t.Error(err)
	}
}

func FuzzParseModule(f *testing.F) {
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseModule("kernel/a.ko", b) })
}
