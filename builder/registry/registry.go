// Package registry brings images of other people from OCI registries into the cache. skopeo fetches them and lets in what
// the policy admits (containers-policy.json(5)): by default nothing that is not signed by a key that the policy names. What
// was let in is measured against the digests of the image's own manifest and unpacked once.
package registry

import (
	"context"
	"encoding/json"
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
	dir, err := s.Cache.Make(ctx, "images", cache.Key(ref, arch, policy), func(tmp string) error {
		step := s.Report.Step("fetch image "+ref, 0)
		err := s.fetch(ctx, ref, arch, tmp)
		step.Done(err)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot use image %q: %w", ref, err)
	}
	return open(dir, ref)
}

// description is what the cache keeps of an image besides its layers.
type description struct {
	Manifest image.Digest
	Layers   []v1.Hash // of the uncompressed tar files
	Config   v1.Config
}

const describedIn = "image.json"

// fetch makes the folder dir: the layers as tar files, and a description.
func (s *Source) fetch(ctx context.Context, ref string, arch image.Arch, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	blobs := filepath.Join(dir, "layout")
	if err := s.Tools.Run(ctx, s.command(ref, arch, blobs)); err != nil {
		return explain(err)
	}
	img, err := single(blobs)
	if err != nil {
		return err
	}
	d, err := describe(img, arch)
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for i, l := range layers {
		if err := unpack(ctx, l, filepath.Join(dir, layerName(i))); err != nil {
			return fmt.Errorf("cannot unpack layer %d: %w", i, err)
		}
	}
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, describedIn), b, 0o644); err != nil {
		return err
	}
	return os.RemoveAll(blobs)
}

func layerName(i int) string { return strconv.Itoa(i) + ".tar" }

// command asks skopeo for the image. Signatures are judged and then left behind, as an OCI layout cannot hold all kinds.
// Keys are named in the policy relative to its folder, in which skopeo therefore runs.
func (s *Source) command(ref string, arch image.Arch, to string) run.Command {
	args := []string{"--policy", "policy.json", "--override-os", "linux", "--override-arch", string(arch)}
	if _, err := os.Stat(filepath.Join(s.Policy, "registries.d")); err == nil {
		args = append(args, "--registries.d", "registries.d")
	}
	if _, err := os.Stat(filepath.Join(s.Policy, mirrors)); err == nil {
		args = append(args, "--registries-conf", mirrors)
	}
	args = append(args, "copy", "--quiet", "--retry-times", "3", "--remove-signatures", "docker://"+ref, "oci:"+to+":image")
	c := run.Command{Name: "skopeo", Args: args, Dir: s.Policy, Env: proxies()}
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

func describe(img v1.Image, arch image.Arch) (*description, error) {
	c, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	if c.OS != "linux" || c.Architecture != string(arch) {
		return nil, fmt.Errorf("it is for %s/%s, not linux/%s", c.OS, c.Architecture, arch)
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	d := &description{Layers: c.RootFS.DiffIDs, Config: c.Config}
	d.Manifest, err = image.ParseDigest(digest.String())
	return d, err
}

// unpack writes a layer's uncompressed bytes to a new file. The library measures them against the layer's DiffID where
// it decompresses, and this measures them once more where it does not.
func unpack(ctx context.Context, l v1.Layer, to string) error {
	want, err := l.DiffID()
	if err != nil {
		return err
	}
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

// open reads what fetch made, and measures it again, for damage: whoever can write the cache can also write what the layers
// are measured against.
func open(dir, ref string) (*Image, error) {
	b, err := os.ReadFile(filepath.Join(dir, describedIn))
	if err != nil {
		return nil, err
	}
	var d description
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, fmt.Errorf("cannot read %q: %w", filepath.Join(dir, describedIn), err)
	}
	img := &Image{Reference: ref, Manifest: d.Manifest, Config: d.Config}
	for i, want := range d.Layers {
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
