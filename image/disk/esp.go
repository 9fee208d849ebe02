package disk

import (
	"crypto/sha256"
	"fmt"
	"time"

	"allotment/image"
	"allotment/image/disk/fat32"
	"allotment/image/secureboot"
)

// Paths on the EFI system partition; see docs/formats/esp.md.
const (
	loaderConfPath = "loader/loader.conf"
	grubFolder     = "allotment"
	grubConfigPath = grubFolder + "/grub.cfg"
)

// BootPath is where firmware looks for the boot loader (UEFI 2.10, 3.5.1.1).
func BootPath(arch image.Arch) string { return "EFI/BOOT/BOOT" + arch.EFIName() + ".EFI" }

// UKIPath is where the unified kernel image of a version lies.
func UKIPath(v image.Version) string { return "EFI/Linux/allotment-" + string(v) + ".efi" }

// AuthPath is where systemd-boot looks for a variable with which it can enrol our keys.
func AuthPath(v secureboot.Variable) string { return "loader/keys/allotment/" + string(v) + ".auth" }

// GRUBPath is where GRUB finds a file of a version: vmlinuz, initrd or SHA256SUMS.
func GRUBPath(v image.Version, name string) string {
	return grubFolder + "/" + string(v) + "/" + name
}

// loaderConf is systemd-boot's configuration (loader.conf(5)): start the newest entry that still has tries, at once, and
// let nobody change a command line.
const loaderConf = `timeout 0
editor no
auto-entries no
auto-firmware no
secure-boot-enroll manual
`

// espFiles are the files of the EFI system partition.
func espFiles(s Spec) ([]fat32.File, error) {
	files := []fat32.File{
		{Path: BootPath(s.Layout.Arch), Data: s.SystemdBoot},
		{Path: UKIPath(s.Version), Data: s.UKI},
	}
	for _, v := range secureboot.Variables {
		if auth := s.Auth[v]; auth != nil {
			files = append(files, fat32.File{Path: AuthPath(v), Data: auth})
		}
	}
	if s.Layout.Arch.BootsBIOS() {
		files = append(files,
			fat32.File{Path: GRUBPath(s.Version, "vmlinuz"), Data: s.Kernel},
			fat32.File{Path: GRUBPath(s.Version, "initrd"), Data: s.Initrd},
		)
	}
	text, err := TextFiles(s.Layout.Arch, s.Version, s.Cmdline, s.Kernel, s.Initrd)
	if err != nil {
		return nil, err
	}
	return append(files, text...), nil
}

// TextFiles are the files of the EFI system partition that follow from a release's version, command line, kernel and
// initrd: the configuration of the boot loaders, and the hashes that GRUB checks.
func TextFiles(arch image.Arch, v image.Version, cmdline string, kernel, initrd []byte) ([]fat32.File, error) {
	files := []fat32.File{{Path: loaderConfPath, Data: []byte(loaderConf)}}
	if !arch.BootsBIOS() {
		return files, nil
	}
	config, err := grubConfig(v, cmdline)
	if err != nil {
		return nil, err
	}
	sums := fmt.Appendf(nil, "%x  vmlinuz\n%x  initrd\n", sha256.Sum256(kernel), sha256.Sum256(initrd))
	return append(files,
		fat32.File{Path: GRUBPath(v, "SHA256SUMS"), Data: sums},
		fat32.File{Path: grubConfigPath, Data: []byte(config)},
	), nil
}

// checkESP refuses files that leave no room for the next update: the partition must take the boot files of two releases,
// and of one that is being written.
func checkESP(files []fat32.File, size int64) error {
	var sum int64
	for _, f := range files {
		sum += roundUp(int64(len(f.Data)), fat32.ClusterSize)
	}
	if room := size - 4*mib; 3*sum > room {
		return fmt.Errorf("cannot fit the boot files, %d MiB, three times into the ESP of %d MiB; enlarge disk.esp in the profile",
			roundUp(sum, mib)/mib, size/mib)
	}
	return nil
}

// fatOptions are the volume's properties. FAT's time ends on whole two seconds.
func fatOptions(s Spec) fat32.Options {
	id := sha256.Sum256(append(s.RootHash[:], ESP...))
	serial := uint32(id[0])<<24 | uint32(id[1])<<16 | uint32(id[2])<<8 | uint32(id[3])
	return fat32.Options{Label: "ALLOTMENT", Serial: serial, Time: s.Time.UTC().Truncate(2 * time.Second)}
}
