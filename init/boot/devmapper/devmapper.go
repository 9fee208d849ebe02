// Package devmapper makes device-mapper devices by ioctl (struct dm_ioctl of linux/dm-ioctl.h).
package devmapper

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	sectorSize = 512
	bufferSize = 4096 // of an ioctl with a table
)

// CreateReadOnly makes a read-only device of one target that begins at sector 0 and is size bytes long, and returns its
// path /dev/dm-N.
func CreateReadOnly(name, target string, size int64, params string) (string, error) {
	control, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("cannot reach device-mapper: %w", err)
	}
	defer control.Close()
	created, err := call(control, unix.DM_DEV_CREATE, name, 0, nil)
	if err != nil {
		return "", fmt.Errorf("cannot create device-mapper device %q: %w", name, err)
	}
	table, err := encodeTable(target, size, params)
	if err == nil {
		_, err = call(control, unix.DM_TABLE_LOAD, name, unix.DM_READONLY_FLAG, table)
	}
	if err == nil { // suspending without the flag that says so is resuming
		_, err = call(control, unix.DM_DEV_SUSPEND, name, 0, nil)
	}
	if err != nil {
		_, _ = call(control, unix.DM_DEV_REMOVE, name, 0, nil)
		return "", fmt.Errorf("cannot load a %s table into device-mapper device %q: %w", target, name, err)
	}
	return fmt.Sprintf("/dev/dm-%d", unix.Minor(created.Dev)), nil
}

// encodeTable is struct dm_target_spec and its parameters.
func encodeTable(target string, size int64, params string) ([]byte, error) {
	var spec unix.DmTargetSpec
	if len(target) >= len(spec.Target_type) || size <= 0 || size%sectorSize != 0 {
		return nil, fmt.Errorf("no device can have target %q and %d bytes", target, size)
	}
	spec.Length = uint64(size) / sectorSize
	copy(spec.Target_type[:], target)
	var b bytes.Buffer
	if err := binary.Write(&b, binary.NativeEndian, &spec); err != nil {
		return nil, err
	}
	b.WriteString(params)
	b.WriteByte(0)
	return b.Bytes(), nil
}

// call makes one ioctl; table is appended to the header, as one target, where it is given.
func call(control *os.File, request uint, name string, flags uint32, table []byte) (*unix.DmIoctl, error) {
	// A slice of headers is aligned as the header must be.
	const headerSize = int(unsafe.Sizeof(unix.DmIoctl{}))
	buffer := make([]unix.DmIoctl, (bufferSize+headerSize-1)/headerSize)
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&buffer[0])), len(buffer)*headerSize)
	h := &buffer[0]
	if len(name) >= len(h.Name) || len(table) > len(raw)-headerSize {
		return nil, unix.ENAMETOOLONG
	}
	*h = unix.DmIoctl{
		Version:    [3]uint32{unix.DM_VERSION_MAJOR, 0, 0},
		Data_size:  uint32(len(raw)),
		Data_start: uint32(headerSize),
		Flags:      flags,
	}
	copy(h.Name[:], name)
	if table != nil {
		h.Target_count = 1
		copy(raw[headerSize:], table)
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), uintptr(request), uintptr(unsafe.Pointer(h)))
	runtime.KeepAlive(buffer)
	if errno != 0 {
		return nil, errno
	}
	return h, nil
}
