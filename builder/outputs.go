package builder

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"allotment/builder/tools"
	"allotment/image/disk"
	"allotment/image/validate"
	"allotment/internal/cache"
)

// outputs writes the disk image in every form that the profile names, then their sums, the list of packages and the build
// record. They get their final names together, when all are whole.
func (b *build) outputs(ctx context.Context, t *tools.Root, p *parts) (*Result, error) {
	unlock, err := cache.LockFolder(ctx, b.Out) // of builds with other caches
	if err != nil {
		return nil, fmt.Errorf("cannot write images: %w", err)
	}
	defer unlock()
	name := filepath.Base(b.base())
	work := filepath.Join(b.Out, ".build-"+name)
	if err := os.RemoveAll(work); err != nil { // left by a build that was killed
		return nil, fmt.Errorf("cannot write images: %w", err)
	}
	if err := os.Mkdir(work, 0o755); err != nil {
		return nil, fmt.Errorf("cannot write images: %w", err)
	}
	defer os.RemoveAll(work)
	base := filepath.Join(work, name)
	raw := base + "." + string(disk.Raw)
	if err := b.disk(ctx, t.With(work), raw, p); err != nil {
		return nil, err
	}
	if err := b.judge(ctx, raw); err != nil {
		return nil, err
	}
	images, err := b.images(ctx, t.With(work), raw, base)
	if err != nil {
		return nil, err
	}
	containers, err := b.writeContainers(ctx, base, work, p.modules)
	if err != nil {
		return nil, err
	}
	packages, err := b.writePackages(base, p.programs, p.layers)
	if err != nil {
		return nil, err
	}
	files := append(images, containers, packages)
	sums, err := writeSums(base, files)
	if err != nil {
		return nil, err
	}
	record, err := b.writeRecord(base, p, files)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	outputs, err := publish(append(files, sums, record), b.Out)
	if err != nil {
		return nil, err
	}
	return &Result{Base: b.base(), Outputs: outputs, Fresh: true, Warnings: b.warnings}, b.remember(ctx, outputs)
}

// judge checks every invariant of the finished raw image, as allot inspect does: what breaks one is never published.
func (b *build) judge(ctx context.Context, raw string) error {
	f, err := disk.Open(ctx, nil, raw)
	if err != nil {
		return err
	}
	defer f.Close()
	step := b.Progress.Step("check the disk image", 0)
	_, err = validate.Image(f, f.Size, validate.Options{Cert: b.keys.DB.Cert})
	step.Done(err)
	if err != nil {
		return fmt.Errorf("cannot publish an image that breaks its invariants: %w", err)
	}
	return nil
}

// images makes the forms of the raw image that the profile names, several at once.
func (b *build) images(ctx context.Context, t *tools.Root, raw, base string) ([]Output, error) {
	st, err := os.Stat(raw)
	if err != nil {
		return nil, err
	}
	outputs := make([]Output, len(b.Profile.Outputs))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, name := range b.Profile.Outputs {
		group.Go(func() (err error) {
			outputs[i], err = b.image(ctx, t, raw, base+"."+name, disk.Format(name), st.Size())
			return err
		})
	}
	return outputs, group.Wait()
}

// image makes one form of the raw image, which has size bytes.
func (b *build) image(ctx context.Context, t *tools.Root, raw, path string, format disk.Format, size int64) (Output, error) {
	if format == disk.Raw {
		return describe(path)
	}
	step := b.Progress.Step("make "+filepath.Base(path), size)
	err := disk.Convert(ctx, t, raw, path, format, step.Add)
	step.Done(err)
	if err != nil {
		return Output{}, err
	}
	return describe(path)
}

// describe measures a finished file.
func describe(path string) (Output, error) {
	st, err := os.Stat(path)
	if err != nil {
		return Output{}, err
	}
	d, err := fileDigest(path)
	return Output{Path: path, Size: st.Size(), Digest: d}, err
}

// writeOutput writes a small output.
func writeOutput(path string, content []byte) (Output, error) {
	if err := os.WriteFile(path, content, 0o644); err != nil {
		return Output{}, err
	}
	return describe(path)
}

// writeSums writes the images' sums in the form that sha256sum -c reads.
func writeSums(base string, outputs []Output) (Output, error) {
	var s strings.Builder
	for _, o := range outputs {
		fmt.Fprintf(&s, "%s  %s\n", o.Digest.Hex(), filepath.Base(o.Path))
	}
	return writeOutput(base+".sha256", []byte(s.String()))
}

// writeRecord writes the build record.
func (b *build) writeRecord(base string, p *parts, outputs []Output) (Output, error) {
	rec, err := b.record(p, outputs)
	if err != nil {
		return Output{}, err
	}
	text, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return Output{}, err
	}
	return writeOutput(base+".build.json", append(text, '\n'))
}

// publish moves finished files to the folder out, syncing them first so that a power cut leaves no empty file behind.
func publish(outputs []Output, out string) ([]Output, error) {
	for _, o := range outputs {
		if err := syncFile(o.Path); err != nil {
			return nil, err
		}
	}
	var done []Output
	for _, o := range outputs {
		final := filepath.Join(out, filepath.Base(o.Path))
		if err := os.Rename(o.Path, final); err != nil {
			return nil, err
		}
		st, err := os.Stat(final)
		if err != nil {
			return nil, err
		}
		o.Path, o.MTime = final, st.ModTime().UnixNano()
		done = append(done, o)
	}
	return done, nil
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
