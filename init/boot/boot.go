// Package boot is PID 1. Its first stage runs in the initramfs and ends by becoming the second, which is the same program
// on the verified root. Both are plain lists of calls, and any error in them prints one line on the consoles and resets
// the machine: docs/formats/console.md.
package boot

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"allotment/image"
	"allotment/image/verity"
	"allotment/init/boot/devmapper"
	"allotment/init/boot/kmod"
)

// Initramfs is the first stage, from the kernel's start of /init to the start of /sbin/init on the root. It does not
// return.
func Initramfs() {
	defer resetOnPanic("initramfs")
	reset(initramfs())
}

// initramfs returns only if it fails.
func initramfs() error {
	if err := at("mounts", mountEarly()); err != nil {
		return err
	}
	useModprobe("/init")
	loader, err := kmod.Open()
	if err := at("modules", err); err != nil {
		return err
	}
	watchdog := startWatchdog(loader)
	hash, err := rootHash()
	if err := at("cmdline", err); err != nil {
		return err
	}
	if err := at("modules", loader.LoadAll("dm_mod", "dm_verity", "erofs")); err != nil {
		return err
	}
	found, err := waitForRoot(loader, hash)
	if err := at("root", err); err != nil {
		return err
	}
	device, err := devmapper.CreateReadOnly("root", "verity", found.super.DataSize(),
		found.super.TableLine(found.data, found.hash, hash, "panic_on_corruption"))
	if err := at("verity", err); err != nil {
		return err
	}
	err = unix.Mount(device, newRoot, "erofs", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, "")
	if err := at("mount", err); err != nil {
		return err
	}
	if err := at("switch", switchRoot()); err != nil {
		return err
	}
	facts := Facts{Slot: found.slot, RootHash: hash, Disk: found.disk}
	env := append(facts.Environ(), watchdog.passOn()...)
	return at("switch", unix.Exec("/sbin/init", []string{"/sbin/init"}, env))
}

// rootHash takes the root hash from the kernel's command line, which on UEFI is part of what was signed.
func rootHash() (verity.RootHash, error) {
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return verity.RootHash{}, err
	}
	value, _ := parameter(string(b), "roothash")
	return verity.ParseRootHash(value)
}

// parameter returns the value of a word NAME=VALUE of a kernel command line, the first one if there are several.
func parameter(cmdline, name string) (string, bool) {
	for word := range strings.FieldsSeq(cmdline) {
		if word == "--" {
			break
		}
		if key, value, _ := strings.Cut(word, "="); key == name {
			return value, true
		}
	}
	return "", false
}

// Modprobe loads the modules of the alias that the kernel asks for, as its user mode helper: arguments "-q -- ALIAS".
// It returns the exit code.
func Modprobe(args []string) int {
	if len(args) != 3 || args[1] != "--" {
		return 2
	}
	loader, err := kmod.Open()
	if err != nil {
		logf("cannot load what the kernel asks for: %v", err)
		return 1
	}
	if len(loader.Index().Find(args[2])) == 0 { // it asks for much that nobody has
		return 1
	}
	if err := loader.LoadAll(args[2]); err != nil {
		logf("%v", err)
		return 1
	}
	return 0
}

// useModprobe makes the kernel call program for modules that it wants itself, such as a file system's or an nftables
// expression's.
func useModprobe(program string) {
	if err := os.WriteFile("/proc/sys/kernel/modprobe", []byte(program), 0); err != nil {
		logf("cannot offer modules to the kernel: %v", err)
	}
}

// Facts is what the first stage found out. PID 1 hands it to the supervisor in the environment.
type Facts struct {
	Slot     image.Slot      // ALLOTMENT_SLOT: which of the two roots runs
	RootHash verity.RootHash // ALLOTMENT_ROOTHASH
	Disk     string          // ALLOTMENT_DISK: the disk that the root lies on, such as /dev/vda
	Trial    bool            // ALLOTMENT_TRIAL: yes or no
}

// Environ is the facts as environment variables.
func (f Facts) Environ() []string {
	trial := "no"
	if f.Trial {
		trial = "yes"
	}
	return []string{
		"ALLOTMENT_SLOT=" + string(f.Slot),
		"ALLOTMENT_ROOTHASH=" + f.RootHash.String(),
		"ALLOTMENT_DISK=" + f.Disk,
		"ALLOTMENT_TRIAL=" + trial,
	}
}

// ParseFacts is the reverse of Environ, by a function such as os.Getenv.
func ParseFacts(getenv func(string) string) (Facts, error) {
	hash, err := verity.ParseRootHash(getenv("ALLOTMENT_ROOTHASH"))
	return Facts{
		Slot:     image.Slot(getenv("ALLOTMENT_SLOT")),
		RootHash: hash,
		Disk:     getenv("ALLOTMENT_DISK"),
		Trial:    getenv("ALLOTMENT_TRIAL") == "yes",
	}, err
}
