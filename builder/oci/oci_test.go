package oci

import (
	"bytes"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"allotment/builder/rootfs"
	"allotment/image"
)

var epoch = time.Unix(1_763_700_000, 0)

// tarFile writes a tree with one file, a hard link and a file capability.
func tarFile(t *testing.T, file, content string) string {
	t.Helper()
	tr := rootfs.New()
	n := &rootfs.Node{Type: '0', Mode: 0o755, UID: 33, Content: rootfs.Content{Bytes: []byte(content)},
		Xattrs: map[string]string{"security.capability": "\x01\x00\x00\x02"}}
	for _, p := range []string{file, file + ".link"} {
		if err := tr.Put(p, n); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "layer.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := tr.WriteTar(f, epoch); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func module(name string) image.Module {
	return image.Module{Name: name, Title: "The " + name, Licence: "MIT", Users: []image.User{{Name: "web", UID: 33, GID: 34}},
		Services: []image.Service{{Name: "a", Command: []string{"/usr/bin/" + name, "-x"}, User: "web", Env: []string{"A=1"}, Stop: "SIGQUIT"}},
		Volumes:  []image.Volume{{Name: "v", Path: "/srv/v"}}, HTTP: &image.HTTP{Port: 8080, Path: "/"}}
}

// images returns two modules' images on one base, and the tar files of base and modules.
func images(t *testing.T) ([]Named, []string) {
	t.Helper()
	tars := []string{tarFile(t, "/base", strings.Repeat("base", 1000)), tarFile(t, "/usr/bin/web", "web"), tarFile(t, "/usr/bin/wiki", "wiki")}
	var layers []Layer
	for i, n := range []string{"debian-base", "web", "wiki"} {
		l, err := NewLayer(n, tars[i])
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, l)
	}
	var out []Named
	for _, l := range layers[1:] {
		img, err := NewImage([]Layer{layers[0], l}, Config{Module: module(l.Name), Version: "2026.11.1", Arch: image.ARM64, Epoch: epoch})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, Named{l.Name + ":2026.11.1", img})
	}
	return out, tars
}

func digest(t *testing.T, img interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

func layersOf(t *testing.T, img v1.Image) []v1.Layer {
	t.Helper()
	l, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestImage(t *testing.T) {
	imgs, _ := images(t)
	img := imgs[0].Image
	if err := validate.Image(img, validate.Fast); err != nil { // the slow check knows only gzip
		t.Error(err)
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if m.MediaType != types.OCIManifestSchema1 || m.Config.MediaType != types.OCIConfigJSON || m.Layers[0].MediaType != types.OCILayerZStd {
		t.Errorf("media types are %s, %s and %s", m.MediaType, m.Config.MediaType, m.Layers[0].MediaType)
	}
	if m.Annotations["org.opencontainers.image.version"] != "2026.11.1" || m.Annotations["org.opencontainers.image.licenses"] != "MIT" {
		t.Errorf("annotations are %v", m.Annotations)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if c.Architecture != "arm64" || c.OS != "linux" || !c.Created.Equal(epoch) || len(c.History) != 2 || !c.History[0].Created.Equal(epoch) {
		t.Errorf("config is %+v", c)
	}
	if c.Config.User != "33:34" || strings.Join(c.Config.Entrypoint, " ") != "/usr/bin/web -x" || c.Config.Env[0] != "A=1" ||
		c.Config.StopSignal != "SIGQUIT" {
		t.Errorf("config is %+v", c.Config)
	}
}

func TestImagesAreReproducibleAndShareTheBase(t *testing.T) {
	a, _ := images(t)
	b, _ := images(t)
	for i := range a {
		if digest(t, a[i].Image) != digest(t, b[i].Image) {
			t.Errorf("image %s has digests %s and %s", a[i].Name, digest(t, a[i].Image), digest(t, b[i].Image))
		}
	}
	if digest(t, layersOf(t, a[0].Image)[0]) != digest(t, layersOf(t, a[1].Image)[0]) {
		t.Error("the modules do not share the layer of their base")
	}
	if digest(t, a[0].Image) == digest(t, a[1].Image) {
		t.Error("different modules have one digest")
	}
}

func TestBadModules(t *testing.T) {
	m := module("web")
	m.Services[0].User = "nobody"
	if _, err := NewImage(nil, Config{Module: m}); err == nil || !strings.Contains(err.Error(), `no user "nobody"`) {
		t.Errorf("error is %v", err)
	}
	m.Services = nil
	if _, err := NewImage(nil, Config{Module: m}); err == nil || !strings.Contains(err.Error(), "no service") {
		t.Errorf("error is %v", err)
	}
	if _, err := NewLayer("x", filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a layer of no file")
	}
}

// wantTars compares the layers of an image with the tar files that they were made from.
func wantTars(t *testing.T, img v1.Image, tars ...string) {
	t.Helper()
	layers := layersOf(t, img)
	if len(layers) != len(tars) {
		t.Fatalf("image has %d layers, want %d", len(layers), len(tars))
	}
	for i, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		want, _ := os.ReadFile(tars[i])
		if err != nil || len(want) == 0 || !bytes.Equal(got, want) {
			t.Errorf("layer %d has %d bytes, want those %d of its tar file (%v)", i, len(got), len(want), err)
		}
	}
}

func TestLayout(t *testing.T) {
	imgs, tars := images(t)
	dir := filepath.Join(t.TempDir(), "layout")
	if err := WriteLayout(dir, imgs); err != nil {
		t.Fatal(err)
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index, validate.Fast); err != nil {
		t.Error(err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range m.Manifests {
		if d.Annotations["org.opencontainers.image.ref.name"] != imgs[i].Name {
			t.Errorf("image %d is called %v", i, d.Annotations)
		}
		img, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		wantTars(t, img, tars[0], tars[i+1])
	}
	blobs, err := os.ReadDir(filepath.Join(dir, "blobs", "sha256"))
	if err != nil || len(blobs) != 2+2+3 { // manifests, configs, layers
		t.Errorf("layout has %d blobs, %v: want the shared layer once", len(blobs), err)
	}
	if err := WriteLayout(dir, imgs); err == nil {
		t.Error("a layout over another one")
	}
}

func TestRegistry(t *testing.T) {
	imgs, tars := images(t)
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	ref, err := name.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/allotment/" + imgs[0].Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, imgs[0].Image); err != nil {
		t.Fatal(err)
	}
	back, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	if digest(t, back) != digest(t, imgs[0].Image) {
		t.Errorf("pulled digest %s, pushed %s", digest(t, back), digest(t, imgs[0].Image))
	}
	wantTars(t, back, tars[0], tars[1])
}
