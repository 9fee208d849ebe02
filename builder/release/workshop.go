package release

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	makedelta "allotment/builder/delta"
	"allotment/image"
	"allotment/image/delta"
)

// workshop makes and tries the blobs of one release. Parts that packs or deltas are unpacked to lie in a folder of its own.
type workshop struct {
	*Repository
	dir     string
	packed  map[image.Digest]image.Part // parts of releases before, whose packs serve again
	workers int
}

func (r *Repository) newWorkshop(before []*image.Release) (*workshop, error) {
	dir, err := os.MkdirTemp(r.Dir, workPattern)
	if err != nil {
		return nil, err
	}
	w := &workshop{r, dir, map[image.Digest]image.Part{}, runtime.GOMAXPROCS(0)}
	for _, rel := range before {
		for _, p := range rel.Parts() {
			w.packed[p.Digest] = p
		}
	}
	return w, nil
}

func (w *workshop) close() { os.RemoveAll(w.dir) }

// pack makes the pack of a part and its index, if no release before has them.
func (w *workshop) pack(ctx context.Context, p makedelta.Part) (done image.Part, err error) {
	if had, ok := w.packed[p.Digest]; ok {
		return image.Part{Name: p.Name, Digest: p.Digest, Size: p.Size, Pack: had.Pack, Index: had.Index}, nil
	}
	step := w.Progress.Step("pack "+p.Name, 0)
	defer func() { step.Done(err) }()
	done = image.Part{Name: p.Name, Digest: p.Digest, Size: p.Size}
	var index delta.Index
	done.Pack, err = w.files.write(ctx, blobName, func(out io.Writer) error {
		index, err = delta.Pack(ctx, io.MultiWriter(out, meter{step}), p, p.Size, w.workers)
		return err
	})
	if err != nil {
		return done, err
	}
	if done.Index, err = w.files.write(ctx, blobName, index.Write); err != nil {
		return done, err
	}
	made, err := w.unpack(ctx, done)
	if err != nil {
		return done, err
	}
	w.packed[p.Digest] = done
	return done, errors.Join(made.Close(), os.Remove(made.Name()))
}

// unpack makes a part of its pack, as a device does that has nothing.
func (w *workshop) unpack(ctx context.Context, p image.Part) (*partFile, error) {
	f, err := os.Open(w.files.path(blobName(p.Index.Digest)))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	index, err := delta.ReadIndex(bufio.NewReader(f))
	if err != nil {
		return nil, err
	}
	pack, err := os.Open(w.files.path(blobName(p.Pack.Digest)))
	if err != nil {
		return nil, err
	}
	defer pack.Close()
	out, err := w.create(p.Digest)
	if err != nil {
		return nil, err
	}
	fetch := func(_ context.Context, from, to int64) (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(pack, from, to-from)), nil
	}
	file := delta.File{Name: p.Name, Digest: p.Digest, Size: p.Size}
	if err := delta.Assemble(ctx, file, index, &delta.Known{}, fetch, out); err != nil {
		out.Close()
		return nil, err
	}
	return out, nil
}

// delta makes the delta from a release before to the parts of the new one.
func (w *workshop) delta(ctx context.Context, old *image.Release, to []makedelta.Part) (image.Blob, error) {
	from, err := w.open(ctx, old)
	defer closeParts(from)
	if err != nil {
		return image.Blob{}, err
	}
	b, err := w.files.write(ctx, blobName, func(out io.Writer) error {
		_, err := makedelta.Make(ctx, out, from, to, makedelta.Options{Workers: w.workers, Progress: w.Progress})
		return err
	})
	if err != nil {
		return b, err
	}
	b.From = old.Version
	return b, w.try(ctx, b, from, to)
}

// open unpacks all parts of a release before; what it returns is to be closed, also after an error.
func (w *workshop) open(ctx context.Context, old *image.Release) (parts []makedelta.Part, err error) {
	for _, p := range old.Parts() {
		f, err := os.Open(w.partPath(p.Digest))
		var made *partFile
		if err == nil {
			made = &partFile{File: f}
		} else if made, err = w.unpack(ctx, p); err != nil {
			return parts, err
		}
		part := makedelta.Part{ReaderAt: made}
		part.Name, part.Digest, part.Size = p.Name, p.Digest, p.Size
		parts = append(parts, part)
	}
	return parts, nil
}

func closeParts(parts []makedelta.Part) {
	for _, p := range parts {
		p.ReaderAt.(*partFile).Close()
	}
}

// try applies a delta as a device does.
func (w *workshop) try(ctx context.Context, b image.Blob, from, to []makedelta.Part) (err error) {
	step := w.Progress.Step("try the delta from "+string(b.From), b.Size)
	defer func() { step.Done(err) }()
	f, err := os.Open(w.files.path(blobName(b.Digest)))
	if err != nil {
		return err
	}
	defer f.Close()
	d := &trial{w: w, parts: map[image.Digest]io.ReaderAt{}, missing: map[image.Digest]bool{}}
	defer d.close()
	for _, p := range to {
		d.missing[p.Digest] = true
	}
	for _, p := range from {
		d.parts[p.Digest] = p
		delete(d.missing, p.Digest)
	}
	if err := delta.Apply(ctx, io.TeeReader(bufio.NewReader(f), meter{step}), d, d); err != nil {
		return err
	}
	if len(d.missing) > 0 {
		return fmt.Errorf("it does not make %d of the parts", len(d.missing))
	}
	return nil
}

// trial is the device on which a delta is tried.
type trial struct {
	w       *workshop
	parts   map[image.Digest]io.ReaderAt
	missing map[image.Digest]bool
	made    []*partFile
}

// Source implements delta.Sources.
func (d *trial) Source(f delta.File) (io.ReaderAt, error) {
	if r, ok := d.parts[f.Digest]; ok {
		return r, nil
	}
	return nil, fmt.Errorf("no release before has the part %q", f.Name)
}

// Output implements delta.Outputs.
func (d *trial) Output(f delta.File) (delta.Output, error) {
	out, err := d.w.create(f.Digest)
	if err != nil {
		return nil, err
	}
	out.done = func() { delete(d.missing, f.Digest) }
	d.made = append(d.made, out)
	return out, nil
}

func (d *trial) close() {
	for _, f := range d.made {
		f.Close()
		os.Remove(f.Name())
	}
}

// partFile is a part in the workshop.
type partFile struct {
	*os.File
	done func()
}

func (w *workshop) partPath(d image.Digest) string { return filepath.Join(w.dir, d.Hex()) }

// create begins a part.
func (w *workshop) create(d image.Digest) (*partFile, error) {
	f, err := os.Create(w.partPath(d))
	if err != nil {
		return nil, err
	}
	return &partFile{File: f}, nil
}

// Clone implements delta.Output.
func (p *partFile) Clone(int64, image.Digest, int64, int64) bool { return false }

// Done implements delta.Output.
func (p *partFile) Done() error {
	if p.done != nil {
		p.done()
	}
	return nil
}
