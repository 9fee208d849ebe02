package main

import (
	"context"
	"os"
	"regexp"
	"time"

	"allotment/bench/host"
	"allotment/qemu-tests/vm"
)

// boot is what one boot of a system took, by the QEMU process.
type boot struct {
	kernel cost  // power-on to the kernel's first line
	page   cost  // power-on to the page
	idle   cost  // of a while with nothing to do, after settling
	used   int64 // bytes of memory neither free nor page cache, then
}

const (
	diskSize = 8 << 30          // bytes; both systems get the same disk
	memory   = 1024             // MiB
	settle   = 20 * time.Second // wall time between the page and the measurement of idling
	idling   = 20 * time.Second // wall time
)

// kernelStarts is the first line by the kernel: the EFI stub's, before it unpacks itself.
var kernelStarts = regexp.MustCompile(`^EFI stub: |Linux version `)

// boot boots a disk by UEFI until its page answers, lets it settle, and asks for its memory.
func (b *bench) boot(ctx context.Context, disk, dir string) (boot, error) {
	var r boot
	if err := os.Mkdir(dir, 0o755); err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	v, err := vm.Start(ctx, vm.Options{
		Tools: b.tools, Dir: dir, Firmware: vm.UEFI, Memory: memory, Disk: disk, DiskSize: diskSize, Forward: []int{80},
		Limit: vm.Patience(10 * time.Minute),
	})
	if err != nil {
		return r, err
	}
	defer v.Close()
	line, err := v.WaitLine(ctx, kernelStarts)
	if err != nil {
		return r, err
	}
	page, err := v.Get(ctx, 80, "/")
	if err != nil {
		return r, err
	}
	r.kernel, r.page = cost{line.Wall, line.CPU}, cost{page.Wall, page.CPU}
	if err := host.Sleep(ctx, settle); err != nil {
		return r, err
	}
	wall, cpu := v.Clock()
	if err := host.Sleep(ctx, idling); err != nil {
		return r, err
	}
	wallThen, cpuThen := v.Clock()
	r.idle = cost{wallThen - wall, cpuThen - cpu}
	m, err := v.Memory(ctx) // last, as the question wakes the guest
	r.used = m.Used()
	return r, err
}
