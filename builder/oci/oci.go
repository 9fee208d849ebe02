// Package oci writes modules as OCI images, so that registries, scanners and other people's runtimes can hold what the
// device runs. Modules that stand on the same tree share its layer, byte for byte.
package oci

import (
	"fmt"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"allotment/image"
)

// Layer is one layer of images.
type Layer struct {
	v1.Layer
	Name string // of the tree that it was made from
}

// NewLayer returns the tar file at path, which must stay there, as a layer called name. It is compressed with zstd, once
// for all images that use it, and always to the same bytes.
func NewLayer(name, path string) (Layer, error) {
	l, err := tarball.LayerFromFile(path, tarball.WithCompression(compression.ZStd), tarball.WithMediaType(types.OCILayerZStd),
		tarball.WithCompressedCaching)
	if err != nil {
		return Layer{}, fmt.Errorf("cannot make an OCI layer of %q: %w", path, err)
	}
	return Layer{l, name}, nil
}

// Config is what an image says of itself.
type Config struct {
	Module  image.Module
	Version image.Version
	Arch    image.Arch
	Epoch   time.Time
}

// NewImage returns the image with the given layers, lowest first. A container of it runs the module's first service; all
// that the supervisor enforces besides is the device's business. The same input gives the same digest.
func NewImage(layers []Layer, c Config) (v1.Image, error) {
	created := v1.Time{Time: c.Epoch.UTC().Truncate(time.Second)}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	var add []mutate.Addendum
	for _, l := range layers {
		add = append(add, mutate.Addendum{Layer: l, History: v1.History{Created: created, CreatedBy: "allot: tree " + l.Name},
			Annotations: map[string]string{"org.opencontainers.image.title": l.Name}})
	}
	img, err := mutate.Append(img, add...)
	if err != nil {
		return nil, fmt.Errorf("cannot make OCI image %q: %w", c.Module.Name, err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("cannot make OCI image %q: %w", c.Module.Name, err)
	}
	file = file.DeepCopy()
	file.Architecture, file.OS, file.Created = string(c.Arch), "linux", created
	if file.Config, err = config(&c.Module); err != nil {
		return nil, err
	}
	if img, err = mutate.ConfigFile(img, file); err != nil {
		return nil, fmt.Errorf("cannot make OCI image %q: %w", c.Module.Name, err)
	}
	return mutate.Annotations(img, map[string]string{ // names of the OCI image specification, annotations
		"org.opencontainers.image.created":  created.Format(time.RFC3339),
		"org.opencontainers.image.licenses": c.Module.Licence,
		"org.opencontainers.image.title":    c.Module.Title,
		"org.opencontainers.image.version":  string(c.Version),
	}).(v1.Image), nil
}

// config says how to run the module's first service.
func config(m *image.Module) (v1.Config, error) {
	if len(m.Services) == 0 {
		return v1.Config{}, fmt.Errorf("cannot make OCI image %q: the module has no service", m.Name)
	}
	s := m.Services[0]
	c := v1.Config{Entrypoint: s.Command, Env: s.Env, StopSignal: s.Stop, WorkingDir: "/"}
	for _, u := range m.Users {
		if u.Name == s.User {
			c.User = fmt.Sprintf("%d:%d", u.UID, u.GID)
		}
	}
	if c.User == "" {
		return v1.Config{}, fmt.Errorf("cannot make OCI image %q: no user %q", m.Name, s.User)
	}
	for _, v := range m.Volumes {
		if c.Volumes == nil {
			c.Volumes = map[string]struct{}{}
		}
		c.Volumes[v.Path] = struct{}{}
	}
	if m.HTTP != nil {
		c.ExposedPorts = map[string]struct{}{fmt.Sprintf("%d/tcp", m.HTTP.Port): {}}
	}
	return c, nil
}

// Named is an image with the name that a layout lists it by.
type Named struct {
	Name  string // such as web:2026.11.3
	Image v1.Image
}

// WriteLayout writes images as an OCI image layout into the new folder dir (OCI image specification, image layout).
func WriteLayout(dir string, images []Named) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("cannot write OCI layout %q: %w", dir, err)
	}
	for _, n := range images {
		ref := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": n.Name})
		if err := l.AppendImage(n.Image, ref); err != nil {
			return fmt.Errorf("cannot write OCI image %q: %w", n.Name, err)
		}
	}
	return nil
}
