package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"allotment/image"
	"allotment/init/durable"
	"allotment/init/state/btrfs"
)

// settleAfter is how many written bytes at most are in memory only: the daemon's memory is bounded, and they count.
const settleAfter = 8 << 20

// settle has a file's bytes written to the medium and forgotten, now and then.
func settle(f *os.File, unsettled *int64, n int) error {
	if *unsettled += int64(n); *unsettled < settleAfter {
		return nil
	}
	*unsettled = 0
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return &os.PathError{Op: "sync", Path: f.Name(), Err: err}
	}
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// rootOutput writes the root into the target's partition.
type rootOutput struct{ *target }

func (o rootOutput) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > o.size {
		return 0, fmt.Errorf("cannot write %d bytes at %d of a root of %d", len(p), off, o.size)
	}
	n, err := o.root.WriteAt(p, off)
	return n, errors.Join(err, settle(o.root, &o.unsettled, n))
}

func (o rootOutput) ReadAt(p []byte, off int64) (int, error) { return o.root.ReadAt(p, off) }

// Clone shares nothing: a partition is no file.
func (o rootOutput) Clone(int64, image.Digest, int64, int64) bool { return false }

// Done leaves the rest to seal.
func (o rootOutput) Done() error { return o.root.Sync() }

// fileOutput writes a part that becomes a file of the state partition under its name once it is whole.
type fileOutput struct {
	path      string
	verity    image.Digest // of a layer
	w         *os.File     // nil once it is done
	r         *os.File
	unsettled int64
	parts     *parts
}

// unfinished ends the names of files that are not whole. The state's next mount removes those of layers.
const unfinished = ".new"

func newFile(p *parts, path string, verity image.Digest) (*fileOutput, error) {
	tmp := path + unfinished
	if err := removeFile(tmp); err != nil {
		return nil, err
	}
	o := &fileOutput{path: path, verity: verity, parts: p}
	var err error
	if o.w, err = os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444); err != nil {
		return nil, err
	}
	if o.r, err = os.Open(tmp); err != nil {
		return nil, errors.Join(err, o.w.Close())
	}
	return o, nil
}

func (o *fileOutput) WriteAt(p []byte, off int64) (int, error) {
	n, err := o.w.WriteAt(p, off)
	return n, errors.Join(err, settle(o.w, &o.unsettled, n))
}

func (o *fileOutput) ReadAt(p []byte, off int64) (int, error) { return o.r.ReadAt(p, off) }

// Clone implements delta.Output: files of the same file system can share storage.
func (o *fileOutput) Clone(off int64, from image.Digest, fromOff, n int64) bool {
	f := o.parts.files[from]
	return f != nil && btrfs.Clone(o.w, off, f, fromOff, n) == nil
}

// Done gives the file its name. The order matters: fs-verity is durable only after a sync of the whole file system, so that a
// file which is renamed before can be unreadable after a cut; and an immutable file cannot be renamed.
func (o *fileOutput) Done() error {
	tmp := o.path + unfinished
	err := o.w.Sync()
	err = errors.Join(err, o.w.Close()) // fs-verity is not enabled while someone writes
	o.w = nil
	if err == nil && o.verity != "" {
		err = o.parts.config.Verity(tmp, o.verity)
	}
	if err == nil {
		err = btrfs.Sync(tmp)
	}
	if err == nil && o.verity != "" {
		err = makeWay(o.path)
	}
	if err == nil {
		err = os.Rename(tmp, o.path)
	}
	if err == nil {
		err = durable.SyncDir(filepath.Dir(o.path))
	}
	if err == nil && o.verity != "" {
		err = btrfs.SetImmutable(o.path, true)
	}
	return err
}

// makeWay lets a damaged layer be replaced.
func makeWay(path string) error {
	err := btrfs.SetImmutable(path, false)
	if errors.Is(err, unix.EINVAL) { // it cannot even be opened
		err = os.Remove(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Close ends the use of the file, and removes what is not whole.
func (o *fileOutput) Close() error {
	if o.w != nil {
		o.w.Close()
		os.Remove(o.path + unfinished)
	}
	return o.r.Close()
}

// keptOutput is a part that is there already: what is made of it again goes nowhere.
type keptOutput struct{ *os.File }

func (o keptOutput) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// Clone pretends to have done what there is no need for.
func (o keptOutput) Clone(int64, image.Digest, int64, int64) bool { return true }

// Done has nothing to do.
func (o keptOutput) Done() error { return nil }

// removeFile removes a file if it is there.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
