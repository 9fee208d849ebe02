package disk

import (
	"crypto/sha256"
	"fmt"
	"time"

	"allotment/image"
	"allotment/image/disk/fat32"
	"allotment/image/esp"
	"allotment/image/secureboot"
)

// BootPath is esp.BootPath.
func BootPath(arch image.Arch) string { return esp.BootPath(arch) }

// UKIPath is esp.UKIPath.
func UKIPath(v image.Version) string { return esp.UKIPath(v) }

// espFiles are the files of the EFI system partition.
func espFiles(s Spec) ([]fat32.File, error) {
	files := []fat32.File{
		{Path: esp.BootPath(s.Layout.Arch), Data: s.SystemdBoot},
		{Path: esp.UKIPath(s.Version), Data: s.UKI},
	}
	for _, v := range secureboot.Variables {
		if auth := s.Auth[v]; auth != nil {
			files = append(files, fat32.File{Path: esp.AuthPath(v), Data: auth})
		}
	}
	if s.Layout.Arch.BootsBIOS() {
		files = append(files,
			fat32.File{Path: esp.GRUBPath(s.Version, esp.Kernel), Data: s.Kernel},
			fat32.File{Path: esp.GRUBPath(s.Version, esp.Initrd), Data: s.Initrd},
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
	files := []fat32.File{{Path: esp.LoaderConfPath, Data: []byte(esp.LoaderConf)}}
	if !arch.BootsBIOS() {
		return files, nil
	}
	arguments, err := esp.ArgumentsFile(cmdline)
	if err != nil {
		return nil, err
	}
	environment := esp.Environment{Version: v}.Marshal()
	return append(files,
		fat32.File{Path: esp.GRUBConfigPath, Data: []byte(esp.GRUBConfig)},
		fat32.File{Path: esp.EnvironmentPath, Data: environment},
		fat32.File{Path: esp.CommittedPath, Data: environment},
		fat32.File{Path: esp.GRUBPath(v, esp.Arguments), Data: arguments},
		fat32.File{
			Path: esp.GRUBPath(v, esp.Sums),
			Data: esp.SumsFile(sha256.Sum256(kernel), sha256.Sum256(initrd), sha256.Sum256(arguments)),
		},
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
