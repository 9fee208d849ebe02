package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"allotment/image"
	"allotment/image/delta"
	"allotment/updater/fetch"
)

// assembler makes parts of their packs, of which it fetches what no part that is here has.
type assembler struct {
	*parts
	src   fetch.Source
	known *delta.Known
}

// all makes the parts that are not done.
func (a *assembler) all(ctx context.Context, r image.Release, report func(done, total int64)) error {
	if err := a.learn(ctx); err != nil {
		return err
	}
	type job struct {
		part  image.Part
		index delta.Index
	}
	var jobs []job
	var bytes int64
	for _, p := range allParts(r) {
		if a.want[p.Digest].done {
			continue
		}
		x, err := a.index(ctx, p)
		if err != nil {
			return err
		}
		jobs = append(jobs, job{p, x})
		bytes += a.known.Missing(x)
	}
	a.report = newProgress(report, bytes, a.want)
	for _, j := range jobs {
		if err := a.one(ctx, j.part, j.index); err != nil {
			return err
		}
	}
	var errs error
	for _, p := range allParts(r) { // not before: root and UKI are made anew where a later part fails
		errs = errors.Join(errs, a.discard(p))
	}
	return errs
}

// learn finds out which extents are here.
func (a *assembler) learn(ctx context.Context) error {
	a.known = &delta.Known{}
	for _, h := range a.have {
		if err := a.known.Add(ctx, h.File, h.file); err != nil {
			if ctx.Err() != nil {
				return err
			}
			a.config.Log.Warn("part cannot be made use of", "part", h.Name, "error", err)
		}
		if h.shared && h.Digest != "" {
			a.files[h.Digest] = h.file
		}
	}
	return nil
}

func (a *assembler) index(ctx context.Context, p image.Part) (delta.Index, error) {
	path, err := fetch.File(ctx, a.src, p.Index, FetchDir(a.config.State), nil)
	if err != nil {
		return delta.Index{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return delta.Index{}, err
	}
	defer f.Close()
	x, err := delta.ReadIndex(f)
	if err == nil && x.PackSize() != p.Pack.Size {
		err = fmt.Errorf("the index of part %q is of a pack of another size", p.Name)
	}
	return x, err
}

// one makes one part. Extents are checked as they come; if one is wrong, the whole pack is fetched, of which it can be told
// whose fault it is.
func (a *assembler) one(ctx context.Context, p image.Part, x delta.Index) error {
	err := a.try(ctx, p, x, func(ctx context.Context, from, to int64) (io.ReadCloser, error) {
		return a.fetchRange(ctx, p.Pack, from, to)
	})
	if errors.Is(err, delta.ErrFormat) && ctx.Err() == nil {
		a.config.Log.Warn("ranges of a pack are wrong, taking all of it", "part", p.Name, "error", err)
		err = a.whole(ctx, p, x)
	}
	return err
}

func (a *assembler) try(ctx context.Context, p image.Part, x delta.Index, get delta.Fetch) error {
	f := delta.File{Name: p.Name, Digest: p.Digest, Size: p.Size}
	out, err := a.Output(f)
	if err != nil {
		return err
	}
	return delta.Assemble(ctx, f, x, a.known, get, out)
}

// whole makes a part of its whole pack.
func (a *assembler) whole(ctx context.Context, p image.Part, x delta.Index) error {
	if err := errors.Join(a.discard(p), a.learn(ctx)); err != nil { // what was made by halves is not known any more
		return err
	}
	path, err := fetch.File(ctx, a.src, p.Pack, FetchDir(a.config.State), nil)
	if err != nil {
		return err
	}
	pack, err := os.Open(path)
	if err != nil {
		return err
	}
	defer pack.Close()
	return a.try(ctx, p, x, func(_ context.Context, from, to int64) (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(pack, from, to-from)), nil
	})
}

// fetchRange fetches a range into a file, goes on with what is there of it, and opens that.
func (a *assembler) fetchRange(ctx context.Context, pack image.Blob, from, to int64) (io.ReadCloser, error) {
	path := filepath.Join(FetchDir(a.config.State), fmt.Sprintf("%s.%d-%d", pack.Digest.Hex(), from, to))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if err := a.fill(ctx, f, pack, from, to); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	a.report.begin(to - from)
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// fill fetches what the file of a range lacks.
func (a *assembler) fill(ctx context.Context, f *os.File, pack image.Blob, from, to int64) error {
	n := size(f)
	if n >= to-from {
		return f.Truncate(to - from)
	}
	r, err := fetch.Range(ctx, a.src, pack, from+n, to)
	if err != nil {
		return err
	}
	defer r.Close()
	w := &rangeWriter{f: f, at: n, report: a.report}
	if _, err := io.CopyBuffer(w, struct{ io.Reader }{io.LimitReader(r, to-from-n)}, make([]byte, 64<<10)); err != nil {
		return err
	}
	if w.at != to-from {
		return io.ErrUnexpectedEOF
	}
	return nil
}

type rangeWriter struct {
	f         *os.File
	at        int64
	unsettled int64
	report    *progress
}

func (w *rangeWriter) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.at += int64(n)
	w.report.fetched(w.at)
	return n, errors.Join(err, settle(w.f, &w.unsettled, n))
}

// discard removes what was fetched for a part.
func (a *assembler) discard(p image.Part) error {
	paths, err := filepath.Glob(filepath.Join(FetchDir(a.config.State), p.Pack.Digest.Hex()+"*"))
	if err != nil {
		return err
	}
	paths = append(paths, filepath.Join(FetchDir(a.config.State), p.Index.Digest.Hex()))
	for _, path := range paths {
		err = errors.Join(err, removeFile(path))
	}
	return err
}
