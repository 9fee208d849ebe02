package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"allotment/image"
	"allotment/image/verity"
	"allotment/init/boot/kmod"
	"allotment/init/boot/uevent"
)

// rootWait is how long a disk may take to appear. It is less than the watchdog's timeout.
const rootWait = 45 * time.Second

// root is where the wanted root lies.
type root struct {
	slot       image.Slot
	data, hash string // device paths of the two partitions
	disk       string // device path of the disk that has both
	super      verity.Superblock
}

// waitForRoot loads drivers for the devices that there are, and for those that come, until a partition turns up whose
// verity superblock belongs to the root hash.
func waitForRoot(l *kmod.Loader, want verity.RootHash) (*root, error) {
	events, err := uevent.Listen() // before looking, so that no device comes unseen
	if err != nil {
		return nil, err
	}
	defer events.Close()
	loadDrivers(l, uevent.Modaliases("/sys/devices")...)
	for end := time.Now().Add(rootWait); ; {
		found, err := findRoot("/sys/class/block", "/dev", want)
		if found != nil || err != nil {
			return found, err
		}
		for look := false; !look; {
			e, err := events.Next(time.Until(end))
			switch {
			case errors.Is(err, os.ErrDeadlineExceeded):
				return nil, fmt.Errorf("no verity partition with UUID %v came within %v", want.HashUUID(), rootWait)
			case errors.Is(err, uevent.ErrLost):
				loadDrivers(l, uevent.Modaliases("/sys/devices")...)
				look = true
			case err != nil:
				return nil, err
			default:
				loadDrivers(l, e.Env["MODALIAS"])
				look = e.Env["SUBSYSTEM"] == "block"
			}
		}
	}
}

// loadDrivers loads what devices ask for. That one driver fails need not concern the disk, so it is only noted.
func loadDrivers(l *kmod.Loader, modaliases ...string) {
	for _, alias := range modaliases {
		if alias == "" {
			continue
		}
		if err := l.LoadAll(alias); err != nil {
			logf("%v", err)
		}
	}
}

// partition is what sysfs says of one.
type partition struct{ device, name, disk string }

// partitions lists the partitions with a name. Class is /sys/class/block, devices /dev.
func partitions(class, devices string) []partition {
	entries, err := os.ReadDir(class)
	if err != nil {
		return nil
	}
	var list []partition
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(class, e.Name(), "uevent"))
		if err != nil {
			continue // it is gone
		}
		var name string
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "PARTNAME="); ok {
				name = strings.TrimSpace(v)
			}
		}
		// The link points to the partition's folder, which lies in its disk's.
		target, err := os.Readlink(filepath.Join(class, e.Name()))
		if name == "" || err != nil {
			continue
		}
		disk := filepath.Base(filepath.Dir(target))
		list = append(list, partition{filepath.Join(devices, e.Name()), name, filepath.Join(devices, disk)})
	}
	return list
}

// findRoot looks once; it returns nil if the partitions are not there yet. Several disks may have partitions of these
// names: the superblock tells ours, and the root hash then vouches for every byte of it.
func findRoot(class, devices string, want verity.RootHash) (*root, error) {
	all := partitions(class, devices)
	for _, p := range all {
		slot, ok := strings.CutPrefix(p.name, "verity-")
		if !ok || slot != string(image.SlotA) && slot != string(image.SlotB) {
			continue
		}
		super, err := readSuperblock(p.device)
		if err != nil {
			logf("passing over %s (%s): %v", p.device, p.name, err)
			continue
		}
		if super.UUID != want.HashUUID() {
			continue
		}
		for _, q := range all {
			if q.disk == p.disk && q.name == "root-"+slot {
				return &root{image.Slot(slot), q.device, p.device, p.disk, super}, nil
			}
		}
	}
	return nil, nil
}

func readSuperblock(device string) (verity.Superblock, error) {
	f, err := os.Open(device)
	if err != nil {
		return verity.Superblock{}, err
	}
	defer f.Close()
	return verity.ReadSuperblock(f)
}
