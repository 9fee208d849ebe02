package state

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"allotment/init/reaper"
	"allotment/init/state/gpt"
)

// growPartition grows the state partition to the end of the disk and returns its device.
func growPartition(disk string, log *slog.Logger) (string, error) {
	device, number, size, err := findPartition("/sys/class/block", disk, partitionName)
	if err != nil {
		return "", err
	}
	d, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer d.Close()
	sector, err := unix.IoctlGetInt(int(d.Fd()), unix.BLKSSZGET)
	if err != nil {
		return "", fmt.Errorf("cannot get the sector size of %q: %w", disk, err)
	}
	bytes, err := d.Seek(0, 2)
	if err != nil {
		return "", fmt.Errorf("cannot get the size of %q: %w", disk, err)
	}
	extent, err := gpt.Grow(d, bytes, int64(sector), partitionName)
	if err != nil {
		return "", err
	}
	if extent.Size == size {
		return device, nil
	}
	log.Info("state partition grows", "from", size, "to", extent.Size)
	part := unix.BlkpgPartition{Start: extent.Start, Length: extent.Size, Pno: int32(number)}
	arg := unix.BlkpgIoctlArg{
		Op: unix.BLKPG_RESIZE_PARTITION, Datalen: int32(unsafe.Sizeof(part)), Data: (*byte)(unsafe.Pointer(&part)),
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return "", fmt.Errorf("cannot tell the kernel that %q grows: %w", device, errno)
	}
	return device, nil
}

// Partition returns the device of the disk's partition with a name.
func Partition(disk, name string) (string, error) {
	device, _, _, err := findPartition("/sys/class/block", disk, name)
	return device, err
}

// findPartition returns device, number and size in bytes of a partition as the kernel knows it. Class is
// /sys/class/block.
func findPartition(class, disk, name string) (device string, number int, size int64, err error) {
	entries, err := filepath.Glob(filepath.Join(class, filepath.Base(disk), "*", "uevent"))
	if err != nil {
		return "", 0, 0, err
	}
	for _, path := range entries {
		b, err := os.ReadFile(path)
		if err != nil || !strings.Contains("\n"+string(b), "\nPARTNAME="+name+"\n") {
			continue
		}
		dir := filepath.Dir(path)
		number, err := readNumber(filepath.Join(dir, "partition"))
		if err != nil {
			return "", 0, 0, err
		}
		sectors, err := readNumber(filepath.Join(dir, "size")) // in units of 512 bytes, whatever the disk's sectors are
		if err != nil {
			return "", 0, 0, err
		}
		return filepath.Join(filepath.Dir(disk), filepath.Base(dir)), int(number), sectors * 512, nil
	}
	return "", 0, 0, fmt.Errorf("cannot find a partition %q on %q", name, disk)
}

func readNumber(path string) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// madeMark lies at the start of the partition, of which btrfs never uses the first 64 KiB, once its file system is whole.
// A file system is made only where the mark is not, and mounted only where it is: so what a cut has left of mkfs.btrfs is
// made anew, and a damaged file system that held data never is. There are two marks, far enough apart that one lost block
// does not take both.
const madeMark = "allotment: state made\n"

var markOffsets = [2]int64{0, 32 << 10} // bytes

// makeFileSystem makes the file system before the seed if there is none yet.
func (s *Store) makeFileSystem(ctx context.Context) error {
	made, err := hasMark(s.device)
	if made || err != nil {
		return err
	}
	args := []string{"--quiet", "--force", "--nodiscard", "--label", partitionName}
	if s.Seed.Size > 0 {
		args = append(args, "--byte-count", strconv.FormatInt(s.Seed.Offset, 10))
	}
	s.Log.Info("state's file system is made", "device", s.device)
	_, err = s.Reaper.Run(ctx, reaper.Spec{Path: "/usr/sbin/mkfs.btrfs", Args: append(args, s.device)})
	if err != nil {
		return err
	}
	return setMark(s.device)
}

func hasMark(device string) (bool, error) {
	f, err := os.Open(device)
	if err != nil {
		return false, err
	}
	defer f.Close()
	for _, at := range markOffsets {
		b := make([]byte, len(madeMark))
		if _, err := f.ReadAt(b, at); err != nil {
			return false, err
		}
		if string(b) == madeMark {
			return true, nil
		}
	}
	return false, nil
}

// setMark writes the marks after everything that was written before is on the medium, one after the other.
func setMark(device string) error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return err
	}
	for _, at := range markOffsets {
		if _, err := f.WriteAt([]byte(madeMark), at); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return nil
}
