package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"time"

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
		Args:  []string{"-device", "virtio-balloon-pci,id=" + balloon},
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
	if r.used, err = usedMemory(ctx, v); err != nil {
		return r, err
	}
	wall, cpu := v.Clock()
	if err := sleep(ctx, idling); err != nil {
		return r, err
	}
	wallThen, cpuThen := v.Clock()
	r.idle = cost{wallThen - wall, cpuThen - cpu}
	return r, nil
}

// balloon is the QEMU id of the device by which the guest tells of its memory.
const balloon = "balloon"

// usedMemory lets the guest settle and asks how much memory is neither free nor page cache.
func usedMemory(ctx context.Context, v *vm.VM) (int64, error) {
	set := map[string]any{"path": "/machine/peripheral/" + balloon, "property": "guest-stats-polling-interval", "value": 2}
	if _, err := v.Execute(ctx, "qom-set", set); err != nil {
		return 0, err
	}
	if err := sleep(ctx, settle); err != nil {
		return 0, err
	}
	get := map[string]any{"path": "/machine/peripheral/" + balloon, "property": "guest-stats"}
	answer, err := v.Execute(ctx, "qom-get", get)
	if err != nil {
		return 0, err
	}
	return parseMemory(answer)
}

// parseMemory reads the balloon's statistics (virtio 1.2, 5.5.6.3). QEMU gives all ones for what the guest did not tell.
func parseMemory(answer []byte) (int64, error) {
	var stats struct {
		Stats struct {
			Total  int64 `json:"stat-total-memory"`
			Free   int64 `json:"stat-free-memory"`
			Caches int64 `json:"stat-disk-caches"`
		} `json:"stats"`
		LastUpdate int64 `json:"last-update"`
	}
	if err := json.Unmarshal(answer, &stats); err != nil {
		return 0, fmt.Errorf("cannot read the memory statistics %q: %w", answer, err)
	}
	s := stats.Stats
	if stats.LastUpdate == 0 || s.Total <= 0 || s.Free <= 0 || s.Caches < 0 {
		return 0, fmt.Errorf("cannot use the memory statistics %s: the guest has not told them", answer)
	}
	return s.Total - s.Free - s.Caches, nil
}

// sleep waits; measuring something that does nothing has no event to wait for.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
