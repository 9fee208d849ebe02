package vm

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"allotment/api"
	"allotment/image"
)

// program is the QEMU binary that emulates the architecture.
func program(a image.Arch) string {
	if a == image.ARM64 {
		return "qemu-system-aarch64"
	}
	return "qemu-system-x86_64"
}

// machineArgs are the arguments that make the machine itself, without our connections to it.
func machineArgs(o Options) []string {
	args := []string{"-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg"}
	switch {
	case o.Arch == image.ARM64:
		args = append(args, "-machine", "virt,gic-version=3", "-cpu", "max,pauth-impdef=on")
	case o.Firmware == UEFISecure: // the firmware guards its variables in system management mode
		args = append(args, "-machine", "q35,smm=on", "-cpu", "max",
			"-global", "driver=cfi.pflash01,property=secure,value=on")
	default:
		args = append(args, "-machine", "q35", "-cpu", "max")
	}
	args = append(args, "-smp", strconv.Itoa(o.CPUs), "-m", strconv.Itoa(o.Memory))
	if o.Arch == image.AMD64 {
		args = append(args, "-device", "VGA")
	}
	args = append(args,
		"-device", "virtio-rng-pci", "-device", "virtio-balloon-pci,id=balloon",
		"-device", "i6300esb", "-action", "watchdog=reset",
		"-chardev", "socket,id=api,server=on,wait=off,path="+value(apiFile(o.Dir)),
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=api,name="+api.PortName)
	args = append(args, networkArgs(o)...)
	args = append(args, firmwareArgs(o)...)
	if o.Disk != "" {
		args = append(args, diskArgs(o)...)
	}
	args = append(args, stickArgs(o)...)
	if o.Kernel != "" {
		args = append(args, "-kernel", o.Kernel, "-append", o.CommandLine)
	}
	if o.Initrd != "" {
		args = append(args, "-initrd", o.Initrd)
	}
	return append(args, o.Args...)
}

func networkArgs(o Options) []string {
	user := "user,id=net" + forwards(o.Forward)
	switch o.Network {
	case NoNetwork:
		return []string{"-nic", "none"}
	case IPv6Only:
		user += ",ipv4=off,ipv6=on"
	}
	return []string{"-netdev", user, "-device", "virtio-net-pci,netdev=net,romfile="}
}

// forwards asks for a free host port for each of the machine's ports.
func forwards(ports []int) string {
	var b strings.Builder
	for _, p := range ports {
		fmt.Fprintf(&b, ",hostfwd=tcp:127.0.0.1:0-:%d", p)
	}
	return b.String()
}

func firmwareArgs(o Options) []string {
	code, _ := firmwareFiles(o.Arch, o.Firmware)
	if code == "" {
		return nil
	}
	return []string{
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + value(hostPath(o.Tools, code)),
		"-drive", "if=pflash,unit=1,format=raw,file=" + value(varsFile(o.Dir)),
	}
}

// diskArgs attach the overlay. Flushes do not reach the host's disk: machines are thrown away, and what QEMU wrote
// survives its end in the host's page cache.
func diskArgs(o Options) []string {
	node := "overlay"
	args := []string{"-blockdev", "driver=qcow2,node-name=overlay,cache.no-flush=on,file.driver=file,file.filename=" +
		value(overlayFile(o.Dir))}
	if o.LogWrites != "" {
		node = "logged"
		args = append(args, "-blockdev",
			"driver=blklogwrites,node-name=logged,file=overlay,log.driver=file,log.filename="+value(o.LogWrites))
	}
	drive := "drive=" + node + ",bootindex=1"
	switch o.Bus {
	case VirtioSCSI:
		return append(args, "-device", "virtio-scsi-pci", "-device", "scsi-hd,"+drive)
	case NVMe:
		return append(args, "-device", "nvme,serial=allotment,"+drive)
	case AHCI:
		return append(args, "-device", "ich9-ahci,id=ahci", "-device", "ide-hd,bus=ahci.0,"+drive)
	case USB:
		return append(args, "-device", "qemu-xhci", "-device", "usb-storage,"+drive)
	default:
		return append(args, "-device", "virtio-blk-pci,"+drive)
	}
}

// stickArgs plug the sticks in.
func stickArgs(o Options) []string {
	var args []string
	for i, file := range o.Sticks {
		node := fmt.Sprintf("stick%d", i)
		if i == 0 {
			args = append(args, "-device", "qemu-xhci,id=sticks")
		}
		args = append(args, "-blockdev", "driver=raw,node-name="+node+",read-only=on,file.driver=file,file.filename="+value(file),
			"-device", "usb-storage,bus=sticks.0,drive="+node)
	}
	return args
}

// controlArgs connect console and QMP to us and keep the machine from running before both are.
func controlArgs(dir string) []string {
	return []string{
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-chardev", "socket,id=qmp,path=" + value(socketFile(dir)), "-mon", "chardev=qmp,mode=control",
		"-S",
	}
}

// CommandLine is a shell command that starts the same machine by hand, with the console on the terminal. The machine's
// folder must have been prepared by an earlier Start.
func CommandLine(o Options) string {
	o, _ = o.defaults()
	words := append(outside(o.Tools, program(o.Arch)), machineArgs(o)...)
	words = append(words, "-serial", "mon:stdio")
	for i, w := range words {
		if !plainWord.MatchString(w) {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:=,@%+-]+$`)

// value quotes a string for a QEMU option list, where a comma ends a value.
func value(s string) string { return strings.ReplaceAll(s, ",", ",,") }

func overlayFile(dir string) string { return filepath.Join(dir, "disk.qcow2") }
func varsFile(dir string) string    { return filepath.Join(dir, "vars.fd") }
func socketFile(dir string) string  { return filepath.Join(dir, "qmp.sock") }
func apiFile(dir string) string     { return filepath.Join(dir, "api.sock") }
func logFile(dir string) string     { return filepath.Join(dir, "console.log") }
