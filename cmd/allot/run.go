package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"allotment/builder/profile"
	"allotment/image"
	"allotment/image/disk"
	"allotment/image/secureboot"
	"allotment/image/secureboot/varstore"
	"allotment/qemu-tests/vm"
)

// runFlags are the flags of allot run.
type runFlags struct {
	arch, firmware, keys, out, bus string
	memory, diskSize               int
	untilReady, noConsole          bool
}

func newRun(c *common) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run PROFILE|IMAGE",
		Short: "Boot an image in QEMU until its web page answers",
		Long: `Boot an image in QEMU until its web page answers, and print the page's address.

With a PROFILE the image is built first, where anything has changed. The image file itself is never written: changes go
to an overlay that is thrown away. QEMU comes from the builder's own tools and emulates, so no KVM is needed.

With --firmware uefi-secure (the default) the machine's firmware knows only the keys of --keys.
While it runs, allot device asks it how it is.
The machine stays until Ctrl-C, which presses its power button; a second Ctrl-C takes the power away.`,
		Example: "  allot run garden-club\n  allot run minimal --firmware bios --until-ready\n" +
			"  allot run out/allotment-garden-club-0.1.0-arm64.qcow2 --arch arm64",
		Args: one("PROFILE or IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) error { return runImage(cmd, c, &f, args[0]) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.arch, "arch", "amd64", "architecture of the machine, amd64 or arm64")
	fl.StringVar(&f.firmware, "firmware", string(vm.UEFISecure), "firmware: bios, uefi or uefi-secure")
	fl.IntVar(&f.memory, "memory", 1024, "memory in MiB")
	fl.IntVar(&f.diskSize, "disk", 8, "disk size in GiB; the system grows to it")
	fl.StringVar(&f.bus, "bus", string(vm.VirtioBlk), "how the disk is attached: virtio-blk, virtio-scsi, nvme, ahci or usb")
	fl.BoolVar(&f.untilReady, "until-ready", false, "shut the machine down and exit with status 0 when the page answers")
	fl.BoolVar(&f.noConsole, "no-console", false, "do not show the machine's console")
	fl.StringVar(&f.out, "out", "", "folder for built images (default: out in the source folder)")
	addKeysFlag(cmd, &f.keys)
	return cmd
}

func runImage(cmd *cobra.Command, c *common, f *runFlags, arg string) error {
	ctx := cmd.Context()
	arch, err := f.check()
	if err != nil {
		return err
	}
	cacheDir, err := c.cacheFolder()
	if err != nil {
		return err
	}
	find := c.imageForRun
	if !isImage(arg) {
		find = c.buildForRun
	}
	path, keys, err := find(ctx, f, arg, arch)
	if err != nil {
		return err
	}
	root, err := c.tools(ctx, cacheDir, profile.Debian{})
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "allot-run-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	m := vm.Options{
		Tools: root.With(filepath.Dir(path), dir), Dir: dir, Arch: arch, Firmware: vm.Firmware(f.firmware), Memory: f.memory,
		Disk: path, DiskSize: int64(f.diskSize) << 30, Bus: vm.Bus(f.bus),
	}
	if m.Firmware == vm.UEFISecure {
		if m.Vars, err = enrolled(m, keys); err != nil {
			return err
		}
	}
	o := vm.RunOptions{Machine: m, UntilReady: f.untilReady, Quiet: f.noConsole, Name: machineName(arg)}
	err = vm.Run(ctx, o, cmd.OutOrStdout())
	if err != nil {
		return keepLog(err, dir)
	}
	return nil
}

// machineName is what a machine is called by the profile or image that it runs.
func machineName(arg string) string {
	name, _, _ := strings.Cut(filepath.Base(arg), ".")
	return name
}

// isImage tells an image file from a profile's name.
func isImage(arg string) bool {
	st, err := os.Stat(arg)
	return err == nil && st.Mode().IsRegular() && !strings.HasSuffix(arg, ".toml")
}

// check refuses, before anything is built, what no machine has.
func (f *runFlags) check() (image.Arch, error) {
	arch, err := image.ParseArch(f.arch)
	if err != nil {
		return "", err
	}
	firmware := []vm.Firmware{vm.BIOS, vm.UEFI, vm.UEFISecure}
	if !slices.Contains(firmware, vm.Firmware(f.firmware)) {
		return "", fmt.Errorf("cannot use firmware %q: want one of %v", f.firmware, firmware)
	}
	if vm.Firmware(f.firmware) == vm.BIOS && !arch.BootsBIOS() {
		return "", fmt.Errorf("cannot start %s with firmware bios: use uefi or uefi-secure", arch)
	}
	buses := []vm.Bus{vm.VirtioBlk, vm.VirtioSCSI, vm.NVMe, vm.AHCI, vm.USB}
	if !slices.Contains(buses, vm.Bus(f.bus)) {
		return "", fmt.Errorf("cannot use bus %q: want one of %v", f.bus, buses)
	}
	if f.memory < leastMemory {
		return "", fmt.Errorf("cannot start a machine of %d MiB memory: want at least %d", f.memory, leastMemory)
	}
	return arch, nil
}

// leastMemory is what firmware, kernel and initial RAM file system need, in MiB; the modules come on top.
const leastMemory = 192

// imageForRun returns a finished image to boot and the keys that it is signed with.
func (c *common) imageForRun(_ context.Context, f *runFlags, arg string, _ image.Arch) (path, keys string, err error) {
	format, err := disk.Detect(arg)
	if err != nil {
		return "", "", err
	}
	if format == disk.Zstd {
		return "", "", fmt.Errorf("cannot boot %q: it is packed; unpack it with zstd -d, or boot another form of it", arg)
	}
	if f.keys != "" || vm.Firmware(f.firmware) != vm.UEFISecure {
		return arg, f.keys, nil
	}
	source, err := c.sourceFolder()
	if err != nil {
		return "", "", fmt.Errorf("cannot find the keys of %q: name their folder with --keys, or use --firmware uefi: %w", arg, err)
	}
	return arg, filepath.Join(string(source), "keys"), nil
}

// buildForRun builds the profile and returns the image to boot and the keys that it is signed with.
func (c *common) buildForRun(ctx context.Context, f *runFlags, arg string, arch image.Arch) (path, keys string, err error) {
	p, err := c.open(arg)
	if err != nil {
		return "", "", err
	}
	if !slices.Contains(p.profile.Outputs, string(disk.QCOW2)) {
		return "", "", fmt.Errorf("cannot boot profile %q: it makes no qcow2 image; add that to outputs in %s", arg, p.profile.File)
	}
	keys = inSource(p, f.keys, "keys")
	r, err := c.build(ctx, p, arch, keys, inSource(p, f.out, "out"))
	if err != nil {
		return "", "", err
	}
	path, err = r.Image("qcow2")
	return path, keys, err
}

// enrolled makes a variable store in which the firmware's Secure Boot keys are those in the folder keys.
func enrolled(m vm.Options, keys string) (string, error) {
	k, err := secureboot.LoadKeys(keys)
	if err != nil {
		return "", err
	}
	path := filepath.Join(m.Dir, "enrolled.fd")
	return path, varstore.Enrol(vm.EmptyVars(m.Tools, m.Arch), path, k)
}

// keepLog moves the console log out of the machine's folder, which goes, and names it in the error.
func keepLog(err error, dir string) error {
	f, e := os.CreateTemp("", "allot-console-*.log")
	if e != nil {
		return err
	}
	defer f.Close()
	b, e := os.ReadFile(filepath.Join(dir, "console.log"))
	if e != nil {
		os.Remove(f.Name())
		return err
	}
	if _, e := f.Write(b); e != nil {
		return err
	}
	return fmt.Errorf("%w\nthe machine's whole console is in %s", err, f.Name())
}
