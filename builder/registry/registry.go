// Package registry brings images of other people from OCI registries into the cache. skopeo fetches them and lets in what
// the policy admits (containers-policy.json(5)): by default nothing that is not signed by a key that the policy names. What
// was let in is measured against the digests of the image's own manifest and unpacked once.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"allotment/builder/profile"
	"allotment/image"
	"allotment/internal/cache"
	"allotment/internal/progress"
	"allotment/internal/run"
)

// Source is where images come from and who judges them.
type Source struct {
	Cache  cache.Dir
	Tools  run.Runner // with skopeo
	Policy string     // folder with policy.json, and if needed registries.d, registries.conf and keys
	Report progress.Reporter
}

// Image is one image for one architecture, unpacked.
type Image struct {
	Reference string
	Manifest  image.Digest // of the architecture's own manifest
	Layers    []string     // uncompressed tar files in the cache, lowest first; their digests are those of the image's config
	Config    v1.Config
}

// Fetch returns the image at ref for arch, from the cache if the same policy has let it in before.
func (s *Source) Fetch(ctx context.Context, ref string, arch image.Arch) (*Image, error) {
	if err := profile.CheckImage(ref); err != nil {
		return nil, fmt.Errorf("cannot use image %q: %w", ref, err)
	}
	policy, err := Policy(s.Policy)
	if err != nil {
		return nil, err
	}
	dir, err := s.Cache.Make(ctx, "images", cache.Key("documents", ref, arch, policy), func(tmp string) error {
		step := s.Report.Step("fetch image "+ref, 0)
		err := s.fetch(ctx, ref, arch, tmp)
		step.Done(err)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot use image %q: %w", ref, err)
	}
	return open(dir, ref, arch)
}

// fetch makes the folder dir: the layers as tar files, and the documents that name them.
func (s *Source) fetch(ctx context.Context, ref string, arch image.Arch, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	blobs := filepath.Join(dir, "layout")
	if err := s.Tools.Run(ctx, s.copy(ref, arch, blobs)); err != nil {
		return explain(err)
	}
	d, err := s.documents(ctx, ref, arch, dir)
	if err != nil {
		return err
	}
	img, err := single(blobs)
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	if len(layers) != len(d.config.RootFS.DiffIDs) {
		return fmt.Errorf("it has %d layers, and names %d", len(layers), len(d.config.RootFS.DiffIDs))
	}
	for i, l := range layers {
		if err := unpack(ctx, l, d.config.RootFS.DiffIDs[i], filepath.Join(dir, layerName(i))); err != nil {
			return fmt.Errorf("cannot unpack layer %d: %w", i, err)
		}
	}
	return os.RemoveAll(blobs)
}

func layerName(i int) string { return strconv.Itoa(i) + ".tar" }

// copy asks skopeo for the image. Signatures are judged and then left behind, as an OCI layout cannot hold all kinds.
func (s *Source) copy(ref string, arch image.Arch, to string) run.Command {
	return s.skopeo("--override-os", "linux", "--override-arch", string(arch),
		"copy", "--quiet", "--retry-times", "3", "--remove-signatures", "docker://"+ref, "oci:"+to+":image")
}

// skopeo runs it under the policy. Keys are named there relative to its folder, in which skopeo therefore runs.
func (s *Source) skopeo(more ...string) run.Command {
	args := []string{"--policy", "policy.json"}
	if _, err := os.Stat(filepath.Join(s.Policy, "registries.d")); err == nil {
		args = append(args, "--registries.d", "registries.d")
	}
	if _, err := os.Stat(filepath.Join(s.Policy, mirrors)); err == nil {
		args = append(args, "--registries-conf", mirrors)
	}
	c := run.Command{Name: "skopeo", Args: append(args, more...), Dir: s.Policy, Env: proxies()}
	if auth := os.Getenv("REGISTRY_AUTH_FILE"); auth != "" {
		c.Env = append(c.Env, "REGISTRY_AUTH_FILE="+auth)
	}
	return c
}

// proxies are the variables by which hosts name their way out.
func proxies() []string {
	var env []string
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"} {
		if v := os.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// explain adds the remedy to a refusal.
func explain(err error) error {
	if strings.Contains(err.Error(), "rejected by policy") || strings.Contains(err.Error(), "signature was required") {
		return fmt.Errorf("%w\n  registry/policy.json does not admit it: name there a key that signs this image; see docs/formats/registry.md", err)
	}
	return err
}

// single is the one image of a layout.
func single(dir string) (v1.Image, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	if len(m.Manifests) != 1 {
		return nil, fmt.Errorf("cannot use a layout of %d images", len(m.Manifests))
	}
	return index.Image(m.Manifests[0].Digest)
}

// unpack writes a layer's uncompressed bytes, which must have the digest want, to a new file.
func unpack(ctx context.Context, l v1.Layer, want v1.Hash, to string) error {
	r, err := l.Uncompressed()
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, &reader{ctx, r}); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	got, _, err := v1.SHA256(f)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("its content is %s, and the image names %s", got, want)
	}
	return f.Close()
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// open reads what fetch made, and measures it again, from the digest in the reference down to the layers.
func open(dir, ref string, arch image.Arch) (*Image, error) {
	d, err := readDocuments(dir, ref, arch)
	if err != nil {
		return nil, fmt.Errorf("cannot use %q: %w; remove the folder", dir, err)
	}
	img := &Image{Reference: ref, Manifest: d.digest, Config: d.config.Config}
	for i, want := range d.config.RootFS.DiffIDs {
		name := filepath.Join(dir, layerName(i))
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		got, _, err := v1.SHA256(f)
		f.Close()
		if err != nil {
			return nil, err
		}
		if got != want {
			return nil, fmt.Errorf("cannot use %q: its digest is %s, and was %s; remove the folder", name, got, want)
		}
		img.Layers = append(img.Layers, name)
	}
	return img, nil
}

// mirrors is the file of a policy folder that says by which way images come. It has no part in what they are: that is
// pinned by digest, and judged by the name in the reference.
const mirrors = "registries.conf"

// Policy returns the files of a policy folder that decide what is admitted, by their paths in it.
func Policy(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		if rel != mirrors {
			files[rel], err = os.ReadFile(name)
		}
		return err
	})
	if err == nil && files["policy.json"] == nil {
		err = errors.New("there is no policy.json")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the policy that admits images: %w", err)
	}
	return files, nil
}
