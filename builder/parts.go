package builder

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"allotment/builder/oci"
	"allotment/builder/sbom"
)

// writePackages writes the list of all packages and Go modules that are in the image (SPDX).
func (b *build) writePackages(base, programs string, layers []*Layer) (Output, error) {
	var files []string
	for _, p := range devicePrograms {
		files = append(files, filepath.Join(programs, p))
	}
	goModules, err := sbom.ReadGoModules(files...)
	if err != nil {
		return Output{}, err
	}
	img := sbom.Image{
		Name: b.Profile.Name, Version: b.Profile.Version, Arch: b.Arch, Epoch: b.time(),
		Parts: []sbom.Part{
			{Name: bootTree, Packages: b.Lock.Trees[bootTree][b.Arch]},
			{Name: rootTree, Packages: b.Lock.Trees[rootTree][b.Arch], Modules: goModules},
		},
	}
	for _, l := range layers {
		img.Parts = append(img.Parts, sbom.Part{Name: l.Name, Packages: l.Packages, Image: l.Image})
	}
	var text bytes.Buffer
	if err := sbom.Write(&text, img); err != nil {
		return Output{}, err
	}
	return writeOutput(base+".spdx.json", text.Bytes())
}

// writeContainers writes the modules as container images: an OCI image layout in one tar file, which shares the layers
// that modules share.
func (b *build) writeContainers(ctx context.Context, base, work string, modules []module) (Output, error) {
	step := b.Progress.Step("make "+filepath.Base(base)+".oci.tar", 0)
	o, err := b.containers(ctx, base+".oci.tar", filepath.Join(work, "oci"), modules)
	step.Done(err)
	return o, err
}

func (b *build) containers(ctx context.Context, path, layout string, modules []module) (Output, error) {
	made := map[string]oci.Layer{}
	var images []oci.Named
	for _, m := range modules {
		var layers []oci.Layer
		for _, l := range m.layers {
			if _, ok := made[l.Name]; !ok {
				layer, err := oci.NewLayer(l.Name, l.Tar)
				if err != nil {
					return Output{}, err
				}
				made[l.Name] = layer
			}
			layers = append(layers, made[l.Name])
		}
		img, err := oci.NewImage(layers, oci.Config{Module: m.Module, Version: b.Profile.Version, Arch: b.Arch, Epoch: b.time()})
		if err != nil {
			return Output{}, err
		}
		images = append(images, oci.Named{Name: m.Name + ":" + string(b.Profile.Version), Image: img})
	}
	if err := oci.WriteLayout(layout, images); err != nil {
		return Output{}, err
	}
	if err := ctx.Err(); err != nil {
		return Output{}, err
	}
	if err := tarFolder(layout, path, b.time()); err != nil {
		return Output{}, err
	}
	return describe(path)
}

// tarFolder writes the regular files below dir to a tar file, in the order of their names.
func tarFolder(dir, path string, epoch time.Time) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	w := tar.NewWriter(out)
	err = filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		return tarFile(w, name, filepath.ToSlash(rel), epoch)
	})
	if err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return out.Close()
}

func tarFile(w *tar.Writer, name, as string, epoch time.Time) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: as, Mode: 0o644, Size: st.Size(), ModTime: epoch, Format: tar.FormatPAX}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}
