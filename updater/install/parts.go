package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"allotment/image"
	"allotment/image/delta"
	"allotment/image/verity"
	"allotment/init/durable"
	"allotment/init/state/btrfs"
	"allotment/updater/fetch"
)

// parts are those of the release in the making, and those that the device has.
type parts struct {
	config Config
	target *target
	have   []have
	want   map[image.Digest]*part    // of the release, by SHA-256
	files  map[image.Digest]*os.File // whose ranges can be shared, by the digest that a delta or an assembly calls them by
	opened []io.Closer
	report *progress
}

// have is a part of the running system.
type have struct {
	delta.File // its digest is SHA-256 only where a delta says so
	file       *os.File
	shared     bool // lies on the state's file system
}

// part is a part of the release.
type part struct {
	image.Part
	done  bool
	begin func() (delta.Output, error)
}

// makeParts makes root, layers and UKI: by the delta from what runs if the release has it, else, or if that fails, by packs.
func makeParts(
	ctx context.Context, c Config, r image.Release, src fetch.Source, t *target, report func(done, total int64),
) error {
	p := &parts{config: c, target: t, want: map[image.Digest]*part{}, files: map[image.Digest]*os.File{}}
	defer p.close()
	dirs := errors.Join(durable.MkdirAll(FetchDir(c.State), 0o700), durable.MkdirAll(filepath.Dir(UKI(c.State, "")), 0o755),
		durable.MkdirAll(c.layers(), 0o755))
	if err := errors.Join(dirs, p.open()); err != nil {
		return err
	}
	if err := p.plan(r); err != nil {
		return err
	}
	if d := c.delta(r); d != nil {
		p.report = newProgress(report, d.Size, p.want)
		err := p.applyDelta(ctx, *d, src)
		if err == nil || !errors.Is(err, delta.ErrFormat) {
			return err
		}
		c.Log.Warn("the delta cannot be used, taking packs", "version", r.Version, "error", err)
		p.giveUp()
	}
	a := assembler{parts: p, src: src}
	return a.all(ctx, r, report)
}

// applyDelta fetches a delta and makes all parts by it.
func (p *parts) applyDelta(ctx context.Context, d image.Blob, src fetch.Source) error {
	path, err := fetch.File(ctx, src, d, FetchDir(p.config.State), p.report.fetched)
	if err != nil {
		return err
	}
	p.report.begin(d.Size)
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = delta.Apply(ctx, f, p, p)
	if err == nil {
		err = p.missing()
	}
	if err == nil || errors.Is(err, delta.ErrFormat) { // which it will be the next time too
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// close closes all files and removes those that are not whole.
func (p *parts) close() {
	for _, f := range p.opened {
		f.Close()
	}
}

// giveUp removes the files that are not whole, so that they take no room.
func (p *parts) giveUp() {
	p.opened = slices.DeleteFunc(p.opened, func(f io.Closer) bool {
		o, ok := f.(*fileOutput)
		return ok && o.w != nil && o.Close() == nil
	})
}

// allParts lists the parts in the order of the release.
func allParts(r image.Release) []image.Part { return append([]image.Part{r.UKI, r.Root}, r.Layers...) }

// open opens what the device has. A part that cannot be read is left out.
func (p *parts) open() error {
	c := p.config
	for _, l := range c.Manifest.Layers {
		path := c.layerPath(l.Digest)
		if err := c.Verity(path, l.Digest); err != nil {
			c.Log.Warn("layer cannot be used", "layer", l.Name, "error", err)
			continue
		}
		if f, err := os.Open(path); err == nil {
			p.add(have{delta.File{Name: l.Name, Digest: l.Digest, Size: l.Size}, f, true})
		}
	}
	if f, err := os.Open(UKI(c.State, c.Running.Version)); err == nil {
		p.add(have{File: delta.File{Name: "uki", Size: size(f)}, file: f, shared: true})
	}
	slot := string(c.Running.Slot)
	hash, err := c.Partition("verity-" + slot)
	if err != nil {
		return err
	}
	f, err := os.Open(hash)
	if err != nil {
		return err
	}
	super, err := verity.ReadSuperblock(f)
	f.Close()
	if err != nil {
		return err
	}
	root, err := c.Partition("root-" + slot)
	if err != nil {
		return err
	}
	if f, err = os.Open(root); err != nil {
		return err
	}
	p.add(have{File: delta.File{Name: "root", Size: super.DataSize()}, file: f})
	return nil
}

func (p *parts) add(h have) {
	p.have = append(p.have, h)
	p.opened = append(p.opened, h.file)
}

func size(f *os.File) int64 {
	n, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0
	}
	return n
}

// plan says of every part of the release where it goes. Layers that are there stay.
func (p *parts) plan(r image.Release) error {
	c := p.config
	p.want[r.Root.Digest] = &part{Part: r.Root, begin: func() (delta.Output, error) { return rootOutput{p.target}, nil }}
	p.want[r.UKI.Digest] = &part{Part: r.UKI, begin: func() (delta.Output, error) {
		return p.file(r.UKI, UKI(c.State, r.Version))
	}}
	for _, l := range r.Layers {
		path := c.layerPath(l.Verity)
		_, err := os.Lstat(path)
		if err == nil {
			if err = c.Verity(path, l.Verity); err != nil {
				c.Log.Warn("layer is damaged and replaced", "layer", l.Name, "error", err)
			} else if err := btrfs.SetImmutable(path, true); err != nil { // a cut may have come before
				return err
			}
		}
		there := err == nil
		p.want[l.Digest] = &part{Part: l, done: there, begin: func() (delta.Output, error) {
			if there {
				return p.kept(l, path)
			}
			return p.file(l, path)
		}}
	}
	return nil
}

func (p *parts) file(part image.Part, path string) (delta.Output, error) {
	o, err := newFile(p, path, part.Verity)
	if err != nil {
		return nil, err
	}
	p.files[part.Digest] = o.r
	p.opened = append(p.opened, o)
	return o, nil
}

func (p *parts) kept(part image.Part, path string) (delta.Output, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	p.files[part.Digest] = f
	p.opened = append(p.opened, f)
	return keptOutput{f}, nil
}

// Source implements delta.Sources: the part of the name and size. That it is not the right one shows in what is made of it.
func (p *parts) Source(f delta.File) (io.ReaderAt, error) {
	for _, h := range p.have {
		if h.Name != f.Name || h.Size != f.Size {
			continue
		}
		if h.shared {
			p.files[f.Digest] = h.file
		}
		return h.file, nil
	}
	return nil, fmt.Errorf("there is no such part of %d bytes here", f.Size)
}

// Output implements delta.Outputs.
func (p *parts) Output(f delta.File) (delta.Output, error) {
	w := p.want[f.Digest]
	if w == nil || w.Size != f.Size {
		return nil, errors.New("the release has no such part")
	}
	o, err := w.begin()
	if err != nil {
		return nil, err
	}
	return &noted{o, w, p.report}, nil
}

// noted tells of progress, and which parts are done.
type noted struct {
	delta.Output
	part   *part
	report *progress
}

// WriteAt implements delta.Output.
func (o *noted) WriteAt(b []byte, off int64) (int, error) {
	o.report.wrote(int64(len(b)))
	return o.Output.WriteAt(b, off)
}

// Clone implements delta.Output.
func (o *noted) Clone(off int64, from image.Digest, fromOff, n int64) bool {
	if !o.Output.Clone(off, from, fromOff, n) {
		return false
	}
	o.report.wrote(n)
	return true
}

// Done implements delta.Output.
func (o *noted) Done() error {
	err := o.Output.Done()
	o.part.done = err == nil
	return err
}

// missing is an error if not all parts are there.
func (p *parts) missing() error {
	for _, w := range p.want {
		if !w.done {
			return fmt.Errorf("%w: it does not make part %q", delta.ErrFormat, w.Name)
		}
	}
	return nil
}
