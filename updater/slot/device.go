package slot

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// device is a partition. What it reads comes from the medium, not from memory, so that reading back shows what was written;
// what it writes does not fill the memory that the process may use.
type device struct {
	f       *os.File // for writing; exclusive, so that nothing else mounts or changes the partition
	direct  *os.File // for reading
	mu      sync.Mutex
	buf     []byte // aligned
	written int64  // bytes since the last sync
}

const (
	blockSize  = 4096 // bytes; what reading past the page cache is aligned to
	bufferSize = 1 << 20
	maxDirty   = 8 << 20 // bytes that wait in memory
)

// openDevice opens the partition called esp of a disk, and returns its size in bytes. Class is /sys/class/block.
func openDevice(class, disk string) (*device, int64, error) {
	entries, err := filepath.Glob(filepath.Join(class, filepath.Base(disk), "*", "uevent"))
	if err != nil {
		return nil, 0, err
	}
	for _, path := range entries {
		b, err := os.ReadFile(path)
		if err != nil || !strings.Contains("\n"+string(b), "\nPARTNAME=esp\n") {
			continue
		}
		d, err := open(filepath.Join(filepath.Dir(disk), filepath.Base(filepath.Dir(path))))
		if err != nil {
			return nil, 0, err
		}
		sectors, err := os.ReadFile(filepath.Join(filepath.Dir(path), "size")) // in units of 512 bytes, whatever the disk's are
		if err != nil {
			return nil, 0, err
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(sectors)), 10, 64)
		return d, n * 512, err
	}
	return nil, 0, fmt.Errorf("cannot find a partition \"esp\" on %q", disk)
}

func open(path string) (*device, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_EXCL, 0)
	if err != nil {
		return nil, err
	}
	direct, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		f.Close()
		return nil, err
	}
	raw := make([]byte, bufferSize+blockSize)
	shift := -int(uintptr(unsafe.Pointer(&raw[0]))) & (blockSize - 1)
	return &device{f: f, direct: direct, buf: raw[shift:][:bufferSize]}, nil
}

// ReadAt implements io.ReaderAt.
func (d *device) ReadAt(b []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for done := 0; done < len(b); {
		at := off + int64(done)
		skip := int(at % blockSize)
		want := min(bufferSize, (skip+len(b)-done+blockSize-1)/blockSize*blockSize)
		n, err := d.direct.ReadAt(d.buf[:want], at-int64(skip))
		if n <= skip {
			return done, err
		}
		done += copy(b[done:], d.buf[skip:n])
	}
	return len(b), nil
}

// WriteAt implements io.WriterAt.
func (d *device) WriteAt(b []byte, off int64) (int, error) {
	n, err := d.f.WriteAt(b, off)
	if d.written += int64(n); err == nil && d.written > maxDirty {
		err = d.Sync()
	}
	return n, err
}

// Sync implements fat32.Device.
func (d *device) Sync() error {
	d.written = 0
	if err := d.f.Sync(); err != nil {
		return err
	}
	return unix.Fadvise(int(d.f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// Close gives the partition back.
func (d *device) Close() error {
	err := d.direct.Close()
	if e := d.f.Close(); e != nil {
		return e
	}
	return err
}
