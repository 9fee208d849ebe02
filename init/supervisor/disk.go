package supervisor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"allotment/init/plan"
	"allotment/updater/config"
	"allotment/updater/schedule"
)

// Mount implements backup.Box.
func (b backupBox) Mount(label string) (string, func() error, error) {
	at := filepath.Join(b.config.Run, "backup-disk")
	if err := mountDisk(label, at, 0, plan.BackupID); err != nil {
		return "", nil, err
	}
	return at, func() error { return unix.Unmount(at, unix.UMOUNT_NOFOLLOW) }, nil
}

// mountSource mounts the disk that updates are taken from, to be read, in place of the one before; it may have been pulled out
// and put in again.
func (s *Supervisor) mountSource(p schedule.Policy) error {
	s.mounting.Lock()
	defer s.mounting.Unlock()
	at := filepath.Join(s.config.Update.Media, config.MediaDisk)
	label, ok := p.Disk()
	if !ok {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT { // none is mounted
			return err
		}
		return nil
	}
	return mountDisk(label, at, unix.MS_RDONLY, plan.UpdaterID)
}

// mountDisk mounts the file system with the label at a folder, in place of what is there. It must be one of those that the
// kernel has: FAT32, where all belongs to the owner, or btrfs.
func mountDisk(label, at string, flags uintptr, owner int) error {
	if err := os.MkdirAll(at, 0o700); err != nil {
		return err
	}
	_ = unix.Unmount(at, unix.MNT_DETACH) // of a supervisor before
	device, kind, err := findDisk("/sys/class/block", "/dev", label)
	if err != nil {
		return err
	}
	options := ""
	if kind == "vfat" {
		options = fmt.Sprintf("uid=%d,gid=%d,umask=077", owner, owner)
	}
	if err := unix.Mount(device, at, kind, flags|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
		return fmt.Errorf("cannot mount it: %w", err)
	}
	return nil
}

// findDisk looks for the file system with that label on the partitions and disks of the machine.
func findDisk(sys, dev, label string) (device, kind string, err error) {
	entries, err := os.ReadDir(sys)
	if err != nil {
		return "", "", err
	}
	for _, e := range entries { // the first one: partitions come after their disk
		if strings.HasPrefix(e.Name(), "dm-") || strings.HasPrefix(e.Name(), "loop") {
			continue
		}
		path := filepath.Join(dev, e.Name())
		if kind, found := labelOf(path); kind != "" && strings.EqualFold(found, label) {
			return path, kind, nil
		}
	}
	return "", "", errors.New("no disk of that name is plugged in; its file system must be FAT32 or btrfs")
}

// Where superblocks are and what they say, in bytes.
const (
	fatMagicAt, fatLabelAt, fatLabelSize       = 0x52, 0x47, 11
	btrfsSuper, btrfsMagicAt                   = 0x10000, 0x40
	btrfsLabelAt, btrfsLabelSize, headOfDevice = 0x12b, 256, btrfsSuper + 4096
)

// labelOf reads what file system the device holds and its label; both are empty if it is none of those we mount.
func labelOf(device string) (kind, label string) {
	f, err := os.Open(device)
	if err != nil {
		return "", ""
	}
	defer f.Close()
	head := make([]byte, headOfDevice)
	if n, _ := f.ReadAt(head, 0); n < len(head) {
		return "", ""
	}
	return fileSystem(head)
}

// fileSystem tells what the first bytes of a device are of.
func fileSystem(head []byte) (kind, label string) {
	if len(head) < headOfDevice {
		return "", ""
	}
	super := head[btrfsSuper:]
	switch {
	case string(super[btrfsMagicAt:btrfsMagicAt+8]) == "_BHRfS_M":
		return "btrfs", cString(super[btrfsLabelAt : btrfsLabelAt+btrfsLabelSize])
	case string(head[fatMagicAt:fatMagicAt+8]) == "FAT32   " && binary.LittleEndian.Uint16(head[510:]) == 0xaa55:
		return "vfat", strings.TrimRight(string(head[fatLabelAt:fatLabelAt+fatLabelSize]), " \x00")
	}
	return "", ""
}

func cString(b []byte) string {
	text, _, _ := bytes.Cut(b, []byte{0})
	return string(text)
}
