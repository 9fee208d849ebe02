package vm

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"allotment/builder/tools"
	"allotment/image"
)

// Firmware is what starts a machine.
type Firmware string

// The kinds of firmware.
const (
	BIOS       Firmware = "bios"        // SeaBIOS; amd64 only
	UEFI       Firmware = "uefi"        // edk2
	UEFISecure Firmware = "uefi-secure" // edk2 with Secure Boot; on once a platform key is enrolled
)

// Bus is how a disk is attached.
type Bus string

// The buses.
const (
	VirtioBlk  Bus = "virtio-blk"
	VirtioSCSI Bus = "virtio-scsi"
	NVMe       Bus = "nvme"
	AHCI       Bus = "ahci"
	USB        Bus = "usb"
)

// Network is what a machine's network card leads to.
type Network string

// The kinds of network.
const (
	BothFamilies Network = ""     // QEMU's own network, with IPv4 and IPv6
	IPv6Only     Network = "ipv6" // the same without IPv4; QEMU forwards no ports there
	NoNetwork    Network = "none" // the machine has no card
)

// Options describe a machine. Only Tools and Dir must be set, and Disk or Kernel.
type Options struct {
	Tools    *tools.Root
	Dir      string     // the machine's folder: its disk overlay, EFI variables and console log; kept by the caller
	Arch     image.Arch // default amd64
	Firmware Firmware   // default UEFI
	Memory   int        // MiB, default 1024
	CPUs     int        // default 1; more are slower under emulation

	Disk     string // image file (raw, qcow2, vmdk or vhd); read only: writes go to an overlay in Dir
	DiskSize int64  // bytes; larger than the image: what is behind its end reads as zeros; 0: as large as the image
	Bus      Bus    // default VirtioBlk

	Sticks  []string // image files of USB sticks that are plugged in, to be read
	Vars    string   // EFI variable store to begin with in place of the firmware's empty one
	Network Network
	Forward []int // TCP ports of the machine that get a free port of 127.0.0.1 each; see VM.Address

	Kernel, Initrd, CommandLine string // boot this kernel directly

	LogWrites string        // record every write of the disk in this file; see ReadWriteLog
	Args      []string      // further arguments of QEMU
	Limit     time.Duration // longest life of the machine, wall time; 0: Patience(300 s)
	Console   Sink          // is given every event as it comes; may be nil
}

// defaultLimit is the longest life of a machine, wall time.
const defaultLimit = 300 * time.Second

// Sink takes events as they come.
type Sink func(Event)

// defaults fills in what may be left out and refuses what cannot be.
func (o Options) defaults() (Options, error) {
	if o.Arch == "" {
		o.Arch = image.AMD64
	}
	if o.Firmware == "" {
		o.Firmware = UEFI
	}
	if o.Memory == 0 {
		o.Memory = 1024
	}
	if o.CPUs == 0 {
		o.CPUs = 1
	}
	if o.Bus == "" {
		o.Bus = VirtioBlk
	}
	if o.Limit == 0 {
		o.Limit = Patience(defaultLimit)
	}
	switch {
	case o.Tools == nil || o.Dir == "":
		return o, fmt.Errorf("cannot start a machine without tools and a folder")
	case o.Disk == "" && o.Kernel == "":
		return o, fmt.Errorf("cannot start a machine with neither disk nor kernel")
	case o.Firmware == BIOS && !o.Arch.BootsBIOS():
		return o, fmt.Errorf("cannot start %s with BIOS: use uefi or uefi-secure", o.Arch)
	case o.Network != BothFamilies && len(o.Forward) > 0:
		return o, fmt.Errorf("cannot forward ports into a network of kind %q", o.Network)
	case o.LogWrites != "" && o.Disk == "":
		return o, fmt.Errorf("cannot record the writes of a machine without a disk")
	}
	return o, nil
}

// Patience stretches a limit for slow or busy hosts by the factor in the environment variable ALLOT_PATIENCE.
func Patience(d time.Duration) time.Duration {
	factor, err := strconv.ParseFloat(os.Getenv("ALLOT_PATIENCE"), 64)
	if err != nil || factor <= 0 {
		return d
	}
	return time.Duration(float64(d) * factor)
}
