// Command boot starts a machine for those who work on what runs in it, with its console on standard output:
//
//	go run ./qemu-tests/boot -disk IMAGE -firmware bios -until 'BOOT-(OK|FAIL)'
//	go run ./qemu-tests/boot -kernel vmlinuz -initrd initrd -append 'console=ttyS0 panic=5' -until 'panic'
//
// It ends with status 0 when a console line fits -until, or when the machine ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"time"

	"allotment/builder/profile"
	"allotment/builder/tools"
	"allotment/image"
	"allotment/internal/cache"
	"allotment/internal/progress"
	"allotment/qemu-tests/vm"
)

func main() {
	tools.EnterIfAsked()
	var o vm.Options
	flag.StringVar((*string)(&o.Arch), "arch", string(image.AMD64), "amd64 or arm64")
	flag.StringVar((*string)(&o.Firmware), "firmware", string(vm.BIOS), "bios, uefi or uefi-secure")
	flag.StringVar((*string)(&o.Bus), "bus", string(vm.VirtioBlk), "virtio-blk, virtio-scsi, nvme, ahci or usb")
	flag.IntVar(&o.Memory, "memory", 1024, "memory in MiB")
	flag.StringVar(&o.Disk, "disk", "", "disk image, never written")
	flag.Int64Var(&o.DiskSize, "disk-size", 0, "size of the disk in bytes (default: that of the image)")
	flag.StringVar(&o.Dir, "dir", "", "folder of the machine, to boot it again with the same disk (default: one that goes)")
	flag.StringVar(&o.Kernel, "kernel", "", "kernel to boot directly")
	flag.StringVar(&o.Initrd, "initrd", "", "its initramfs")
	flag.StringVar(&o.CommandLine, "append", "", "its command line")
	flag.DurationVar(&o.Limit, "limit", 2*time.Minute, "longest wall time")
	until := flag.String("until", "", "regular expression; stop at a console line that fits")
	flag.Parse()
	o.Args = flag.Args()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := boot(ctx, o, *until); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func boot(ctx context.Context, o vm.Options, until string) error {
	pattern, err := regexp.Compile(until)
	if err != nil {
		return err
	}
	dir, err := cache.Default()
	if err != nil {
		return err
	}
	if o.Tools, err = tools.OpenFrom(ctx, dir, profile.Debian{}, progress.Silent{}); err != nil {
		return err
	}
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "allot-boot-"); err != nil {
			return err
		}
		defer os.RemoveAll(o.Dir)
	}
	fmt.Println(vm.CommandLine(o))
	o.Console = func(e vm.Event) {
		fmt.Printf("%7.1fs %6.1f CPU-s  %s %s\n", e.Wall.Seconds(), e.CPU.Seconds(), e.Text, e.Data)
	}
	m, err := vm.Start(ctx, o)
	if err != nil {
		return err
	}
	defer m.Close()
	_, _, err = m.Wait(ctx, 0, func(e vm.Event) bool { return until != "" && e.Kind == vm.Line && pattern.MatchString(e.Text) })
	if errors.Is(err, vm.ErrEnded) {
		return nil
	}
	return err
}
