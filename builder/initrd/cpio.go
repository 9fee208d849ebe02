package initrd

import (
	"fmt"
	"io"
)

// File types in a mode, as in stat(2).
const (
	modeDir  = 0o040000
	modeChar = 0o020000
	modeFile = 0o100000
)

// cpio writes a newc archive. Every member has an inode number of its own, so none counts as a hard link of another.
type cpio struct {
	w     io.Writer
	epoch int64
	inode uint32
}

func (c *cpio) write(e entry) error {
	links := uint32(1)
	if e.mode&^0o7777 == modeDir {
		links = 2
	}
	if err := c.header(e.path, e.mode, links, e.dev, len(e.data)); err != nil {
		return err
	}
	return c.padded(e.data)
}

// end writes the member that ends an archive.
func (c *cpio) end() error {
	return c.header("TRAILER!!!", 0, 1, [2]uint32{}, 0)
}

// header writes the 110 bytes of a newc header and the name. User and group are 0, as is the device that the file lies on.
func (c *cpio) header(name string, mode, links uint32, dev [2]uint32, size int) error {
	if int64(size) > 1<<32-1 || c.epoch < 0 || c.epoch > 1<<32-1 {
		return fmt.Errorf("size %d or time %d does not fit the format", size, c.epoch)
	}
	c.inode++
	head := "070701"
	for _, field := range []uint32{c.inode, mode, 0, 0, links, uint32(c.epoch), uint32(size), 0, 0, dev[0], dev[1],
		uint32(len(name) + 1), 0} {
		head += fmt.Sprintf("%08X", field)
	}
	return c.padded([]byte(head + name + "\x00"))
}

// padded writes b and fills up to a multiple of four bytes. All that was written before is such a multiple.
func (c *cpio) padded(b []byte) error {
	if _, err := c.w.Write(b); err != nil {
		return err
	}
	_, err := c.w.Write(make([]byte, -len(b)&3))
	return err
}
