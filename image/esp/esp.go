// Package esp says what lies on the EFI system partition, under which names, and what the boot loaders' text files say:
// what the builder writes into an image, and what a device changes when it updates itself. See docs/formats/esp.md.
package esp

import (
	"fmt"
	"regexp"
	"strconv"

	"allotment/image"
	"allotment/image/secureboot"
)

// Paths that no version is part of.
const (
	LoaderConfPath = "loader/loader.conf"
	UKIFolder      = "EFI/Linux"
	GRUBFolder     = "allotment"
	GRUBConfigPath = GRUBFolder + "/grub.cfg"
	// EnvironmentPath has what GRUB starts. GRUB writes to it as well.
	EnvironmentPath = GRUBFolder + "/grubenv"
	// CommittedPath is like EnvironmentPath without a trial, for the day on which that cannot be read.
	CommittedPath = GRUBFolder + "/committed"
)

// The files of a version for GRUB.
const (
	Kernel    = "vmlinuz"
	Initrd    = "initrd"
	Arguments = "arguments.cfg" // the kernel's command line
	Sums      = "SHA256SUMS"    // of the other three
)

// BootPath is where firmware looks for the boot loader (UEFI 2.10, 3.5.1.1).
func BootPath(arch image.Arch) string { return "EFI/BOOT/BOOT" + arch.EFIName() + ".EFI" }

// UKIPath is where the unified kernel image of a committed version lies.
func UKIPath(v image.Version) string { return UKI{Version: v}.Path() }

// AuthPath is where systemd-boot looks for a variable with which it can enrol our keys.
func AuthPath(v secureboot.Variable) string { return "loader/keys/allotment/" + string(v) + ".auth" }

// VersionFolder is where GRUB finds the files of a version.
func VersionFolder(v image.Version) string { return GRUBFolder + "/" + string(v) }

// GRUBPath is where GRUB finds a file of a version.
func GRUBPath(v image.Version, name string) string { return VersionFolder(v) + "/" + name }

// LoaderConf is systemd-boot's configuration (loader.conf(5)): start the newest entry that still has tries, at once, and
// let nobody change a command line.
const LoaderConf = `timeout 0
editor no
auto-entries no
auto-firmware no
secure-boot-enroll manual
`

// UKI is a unified kernel image by its file name, in which systemd-boot counts tries (UAPI Group's Boot Loader
// Specification, "Boot counting").
type UKI struct {
	Version image.Version
	Counted bool // on trial
	Left    int  // tries left, of one that is counted
	Done    int  // tries used up, of one that is counted
	Placed  bool // under a name that systemd-boot does not start
}

var ukiName = regexp.MustCompile(`^allotment-([0-9.]+)(\+([0-9]{1,4})(-([0-9]{1,4}))?)?\.(efi|new)$`)

// ParseUKI reads the name of a file in UKIFolder, or tells that it is not one of ours.
func ParseUKI(name string) (UKI, bool) {
	m := ukiName.FindStringSubmatch(name)
	if m == nil {
		return UKI{}, false
	}
	v, err := image.ParseVersion(m[1])
	u := UKI{Version: v, Counted: m[2] != "", Placed: m[6] == "new"}
	u.Left, _ = strconv.Atoi(m[3])
	u.Done, _ = strconv.Atoi(m[5])
	return u, err == nil && (!u.Placed || !u.Counted)
}

// Name is the file's name.
func (u UKI) Name() string {
	name := "allotment-" + string(u.Version)
	if u.Counted {
		name += "+" + strconv.Itoa(u.Left)
		if u.Done > 0 {
			name += "-" + strconv.Itoa(u.Done)
		}
	}
	if u.Placed {
		return name + ".new"
	}
	return name + ".efi"
}

// Path is the file's path.
func (u UKI) Path() string { return UKIFolder + "/" + u.Name() }

// SumsFile is the content of Sums for the three files with the given SHA-256 sums.
func SumsFile(kernel, initrd, arguments [32]byte) []byte {
	return fmt.Appendf(nil, "%x  %s\n%x  %s\n%x  %s\n", kernel, Kernel, initrd, Initrd, arguments, Arguments)
}
