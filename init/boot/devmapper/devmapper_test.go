package devmapper

import (
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestEncodeTable(t *testing.T) {
	b, err := encodeTable("verity", 8192, "1 /dev/a /dev/b")
	if err != nil {
		t.Fatal(err)
	}
	spec := (*unix.DmTargetSpec)(unsafe.Pointer(&b[0]))
	if spec.Length != 16 || spec.Sector_start != 0 || unix.ByteSliceToString(spec.Target_type[:]) != "verity" {
		t.Errorf("got %+v", spec)
	}
	if params := string(b[unsafe.Sizeof(*spec):]); params != "1 /dev/a /dev/b\x00" {
		t.Errorf("got parameters %q", params)
	}
	for _, bad := range []struct {
		target string
		size   int64
	}{{"verity", 0}, {"verity", 100}, {"verity", -512}, {strings.Repeat("x", 16), 512}} {
		if _, err := encodeTable(bad.target, bad.size, ""); err == nil {
			t.Errorf("took %v", bad)
		}
	}
}

func TestHeaderSize(t *testing.T) {
	if size := unsafe.Sizeof(unix.DmIoctl{}); size != 312 {
		t.Errorf("struct dm_ioctl has %d bytes, the kernel's 312", size)
	}
}
