package image

import "fmt"

// Arch is a machine architecture by its Debian (and Go) name.
type Arch string

// The architectures that images are built for.
const (
	AMD64 Arch = "amd64"
	ARM64 Arch = "arm64"
)

// ParseArch returns the architecture named s, or an error that lists the known ones.
func ParseArch(s string) (Arch, error) {
	switch a := Arch(s); a {
	case AMD64, ARM64:
		return a, nil
	}
	return "", fmt.Errorf("cannot use architecture %q: want amd64 or arm64", s)
}

// UnmarshalText implements encoding.TextUnmarshaler with ParseArch.
func (a *Arch) UnmarshalText(b []byte) error {
	v, err := ParseArch(string(b))
	*a = v
	return err
}

// EFIName is the architecture's infix in UEFI removable-media file names, as in BOOTX64.EFI (UEFI 2.10, 3.5.1.1).
func (a Arch) EFIName() string {
	if a == ARM64 {
		return "AA64"
	}
	return "X64"
}

// Triplet is the GNU triplet that Debian uses in library folders.
func (a Arch) Triplet() string {
	if a == ARM64 {
		return "aarch64-linux-gnu"
	}
	return "x86_64-linux-gnu"
}

// RootPartitionType is the GPT type of a root partition (Discoverable Partitions Specification).
func (a Arch) RootPartitionType() string {
	if a == ARM64 {
		return "b921b045-1df0-41c3-af44-4c6f280d3fae"
	}
	return "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
}

// VerityPartitionType is the GPT type of a root verity partition (Discoverable Partitions Specification).
func (a Arch) VerityPartitionType() string {
	if a == ARM64 {
		return "df3300ce-d69f-4c92-978c-9bfb0f38d820"
	}
	return "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5"
}

// BootsBIOS tells whether the architecture has PC BIOS machines.
func (a Arch) BootsBIOS() bool { return a == AMD64 }
