package kmod

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

const (
	dep = `kernel/fs/btrfs/btrfs.ko: kernel/crypto/xor.ko kernel/lib/libcrc32c.ko
kernel/crypto/xor.ko:
kernel/lib/libcrc32c.ko:
kernel/crypto/crc32c_generic.ko:
kernel/arch/x86/crypto/crc32c-intel.ko:
`
	aliases = `alias fs-btrfs btrfs
alias pci:v00001AF4d*sv* virtio_pci
alias pci:v*d*sv*sd*bc03sc* gpu
alias of:N*T*Cvendor,disk* xor
alias crc32c crc32c_generic
alias crypto-crc32c crc32c_generic
alias crc32c crc32c_intel
alias cpu:type:x86,ven*fam[0-9]* crc32c_intel
`
	softdep = "softdep libcrc32c pre: crc32c\nsoftdep btrfs pre: crypto-crc32c xor post: gpu\n"
)

func files(dep, alias, softdep string) fstest.MapFS {
	return fstest.MapFS{
		"modules.dep":     {Data: []byte(dep)},
		"modules.alias":   {Data: []byte(alias)},
		"modules.softdep": {Data: []byte(softdep)},
	}
}

func TestFind(t *testing.T) {
	x, err := ReadIndex(files(dep, aliases, softdep))
	if err != nil {
		t.Fatal(err)
	}
	for wanted, names := range map[string]string{
		"btrfs":                         "btrfs",
		"crc32c-generic":                "crc32c_generic", // a name may be spelt so
		"fs-btrfs":                      "btrfs",
		"crc32c":                        "crc32c_generic crc32c_intel",
		"pci:v00001AF4d00001000sv0sd0b": "virtio_pci",
		"pci:v00001AF4d1sv2sd3bc03sc00": "virtio_pci gpu",
		"of:NdiskTblockCvendor,disk/v2": "xor",
		"cpu:type:x86,ven0fam6mod":      "crc32c_intel",
		"cpu:type:x86,ven0famXmod":      "",
		"pci:":                          "",
		"fs-btrfs2":                     "",
		"":                              "",
	} {
		if got := strings.Join(x.Find(wanted), " "); got != names {
			t.Errorf("%q: got %q, want %q", wanted, got, names)
		}
	}
	m := x.modules["btrfs"]
	if want := []string{"kernel/lib/libcrc32c.ko", "kernel/crypto/xor.ko"}; !slices.Equal(m.depends, want) {
		t.Errorf("order of loading is %q, want %q", m.depends, want)
	}
	if !slices.Equal(m.pre, []string{"crypto-crc32c", "xor"}) || !slices.Equal(m.post, []string{"gpu"}) {
		t.Errorf("soft dependencies are %q and %q", m.pre, m.post)
	}
}

func TestReadIndexErrors(t *testing.T) {
	for want, fsys := range map[string]fstest.MapFS{
		"modules.alias":         {"modules.dep": {}},
		"no colon":              files("kernel/a.ko\n", "", ""),
		"is no alias":           files(dep, "alias a\n", ""),
		"syntax error":          files(dep, "alias a[ b\n", ""),
		"no soft dependency":    files(dep, "", "softdep unknown pre: a\n"),
		"before pre: or post:":  files(dep, "", "softdep btrfs a\n"),
		`index of kernel modul`: {},
	} {
		if _, err := ReadIndex(fsys); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// A module that is missing is an error, and stays one; what only softly needs it is not concerned.
func TestLoadErrors(t *testing.T) {
	x, err := ReadIndex(files("kernel/a.ko: kernel/b.ko\nkernel/b.ko:\n", "", ""))
	if err != nil {
		t.Fatal(err)
	}
	l := &Loader{index: x, dir: t.TempDir(), done: map[string]error{}}
	for range 2 {
		if err := l.Load("a"); err == nil || !strings.Contains(err.Error(), "kernel/b.ko") {
			t.Errorf("got %v", err)
		}
	}
	if err := l.Load("c"); err == nil {
		t.Error("loaded a module that is not there")
	}
	if err := l.LoadAll("c", "unknown-alias"); err != nil {
		t.Errorf("names that stand for nothing are taken as built in, got %v", err)
	}
}

func FuzzReadIndex(f *testing.F) {
	f.Add(dep, aliases, softdep, "crc32c")
	f.Fuzz(func(_ *testing.T, dep, alias, softdep, wanted string) {
		if x, err := ReadIndex(files(dep, alias, softdep)); err == nil {
			x.Find(wanted)
		}
	})
}
