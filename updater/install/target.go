package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"allotment/image"
	"allotment/image/verity"
)

// target is the slot that does not run, opened for writing.
type target struct {
	root, hash *os.File
	size       int64 // bytes of the release's root
	unsettled  int64 // bytes of it written and not yet on the medium
}

// openTarget opens the partitions of a slot. The kernel refuses to give them while anything uses them, as dm-verity does with
// those of the running system; and that their tree is another one is checked as well.
func openTarget(c Config, r image.Release, slot image.Slot) (*target, error) {
	if slot == c.Running.Slot {
		return nil, fmt.Errorf("cannot write slot %q: it runs", slot)
	}
	t := &target{size: r.Root.Size}
	err := errors.Join(
		openPartition(c, "root-"+string(slot), r.Root.Size, &t.root),
		openPartition(c, "verity-"+string(slot), verity.HashSize(r.Root.Size), &t.hash))
	if err == nil {
		if super, e := verity.ReadSuperblock(t.hash); e == nil && super.UUID == c.Running.RootHash.HashUUID() {
			err = fmt.Errorf("cannot write slot %q: it holds what runs", slot)
		}
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// openPartition opens a partition for nobody but us.
func openPartition(c Config, name string, size int64, to **os.File) error {
	device, err := c.Partition(name)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(device, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return fmt.Errorf("cannot write partition %q: %w", name, err)
	}
	*to = f
	has, err := f.Seek(0, io.SeekEnd)
	if err == nil && has < size {
		err = fmt.Errorf("partition %q has %d MiB, and the release needs %d", name, has/mib, (size+mib-1)/mib)
	}
	return err
}

func (t *target) close() {
	for _, f := range []*os.File{t.root, t.hash} {
		if f != nil {
			f.Close() // everything that counts was synced
		}
	}
}

// wipe takes away the superblock, by which a boot would know the slot for its own.
func (t *target) wipe() error {
	if _, err := t.hash.WriteAt(make([]byte, verity.BlockSize), 0); err != nil {
		return err
	}
	return t.hash.Sync()
}

// seal computes the tree of the root that was written, checks that it is the release's, and that the medium gives back what was
// written. The superblock, which makes the slot a system, comes last.
func (t *target) seal(want verity.RootHash) error {
	if err := forget(t.root); err != nil {
		return err
	}
	w := &treeWriter{f: t.hash}
	got, err := verity.Format(t.root, t.size, w)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("the root that was written has root hash %s, and the release names %s", got, want)
	}
	if err := errors.Join(forget(t.root), forget(t.hash)); err != nil {
		return err
	}
	if err := verity.Verify(t.root, w, want); err != nil {
		return fmt.Errorf("the disk does not give back what was written: %w", err)
	}
	if _, err := t.hash.WriteAt(w.super, 0); err != nil {
		return err
	}
	if err := forget(t.hash); err != nil {
		return err
	}
	back := make([]byte, len(w.super))
	if _, err := t.hash.ReadAt(back, 0); err != nil || !bytes.Equal(back, w.super) {
		return errors.Join(errors.New("the disk does not give back what was written"), err, t.wipe())
	}
	return nil
}

// forget writes all of a device to its medium and drops what memory has of it, so that it is read from the medium next.
// Nobody else has the device open. BLKFLSBUF does the same, and would need CAP_SYS_ADMIN.
func forget(f *os.File) error {
	if err := f.Sync(); err != nil {
		return err
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("cannot drop the buffers of %q: %w", f.Name(), err)
	}
	return nil
}

// treeWriter writes a hash device but for the superblock, which it keeps; reading from it gives both.
type treeWriter struct {
	f     *os.File
	super []byte
	at    int64
}

func (w *treeWriter) Write(p []byte) (int, error) {
	n := 0
	if w.at < verity.BlockSize {
		n = int(min(verity.BlockSize-w.at, int64(len(p))))
		w.super = append(w.super, p[:n]...)
	}
	m, err := w.f.WriteAt(p[n:], w.at+int64(n))
	w.at += int64(n + m)
	return n + m, err
}

func (w *treeWriter) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	if off < int64(len(w.super)) {
		n = copy(p, w.super[off:])
	}
	if n == len(p) {
		return n, nil
	}
	m, err := w.f.ReadAt(p[n:], off+int64(n))
	return n + m, err
}
