package supervisor

import (
	"os"
	"path/filepath"
	"testing"

	"allotment/init/state/btrfs/btrfstest"
)

func TestFindDisk(t *testing.T) {
	dev, sys := t.TempDir(), t.TempDir()
	for _, name := range []string{"vda", "sda", "sda1", "loop0"} {
		if err := os.Mkdir(filepath.Join(sys, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dev, "sda"), make([]byte, headOfDevice), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(btrfstest.Make(t), filepath.Join(dev, "sda1")); err != nil {
		t.Fatal(err)
	}
	device, kind, err := findDisk(sys, dev, "STATE") // its label is state
	if err != nil || filepath.Base(device) != "sda1" || kind != "btrfs" {
		t.Errorf("%s %s %v", device, kind, err)
	}
	if _, _, err := findDisk(sys, dev, "BACKUP"); err == nil {
		t.Error("a disk is found that is not there")
	}
}

func FuzzFileSystem(f *testing.F) {
	fat := make([]byte, headOfDevice)
	copy(fat[fatMagicAt:], "FAT32   ")
	copy(fat[fatLabelAt:], "BACKUP     ")
	fat[510], fat[511] = 0x55, 0xaa
	f.Add(fat)
	f.Add(fat[:600])
	f.Fuzz(func(t *testing.T, head []byte) {
		kind, label := fileSystem(head)
		if kind == "" && label != "" || len(head) < headOfDevice && kind != "" {
			t.Errorf("%q is named %q", kind, label)
		}
	})
	if kind, label := fileSystem(fat); kind != "vfat" || label != "BACKUP" {
		f.Errorf("%q %q", kind, label)
	}
}
