package registry

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"allotment/image"
)

// The documents by which a reference names layers, as the registry has them: each names the next by its digest, the first
// is what the reference names. It is the manifest itself, or an index of those of several architectures.
const (
	pinnedFile   = "pinned.json"
	manifestFile = "manifest.json"
	configFile   = "config.json"
)

// documents are those of one image that were measured.
type documents struct {
	digest image.Digest // of the manifest
	config *v1.ConfigFile
}

// documents brings the documents of the image at ref into the folder dir.
func (s *Source) documents(ctx context.Context, ref string, arch image.Arch, dir string) (*documents, error) {
	save := func(file string, inspect ...string) ([]byte, error) {
		var out bytes.Buffer
		c := s.skopeo(append([]string{"inspect", "--raw", "--retry-times", "3"}, inspect...)...)
		c.Stdout = &out
		if err := s.Tools.Run(ctx, c); err != nil {
			return nil, err
		}
		return out.Bytes(), os.WriteFile(filepath.Join(dir, file), out.Bytes(), 0o644)
	}
	pinned, err := save(pinnedFile, "docker://"+ref)
	if err != nil {
		return nil, err
	}
	repository, digest, _ := strings.Cut(ref, "@")
	if digest, err = choose(pinned, digest, arch); err != nil {
		return nil, err
	}
	own := "docker://" + repository + "@" + digest
	if _, err := save(manifestFile, own); err != nil {
		return nil, err
	}
	if _, err := save(configFile, "--config", own); err != nil {
		return nil, err
	}
	return readDocuments(dir, ref, arch)
}

// choose returns the digest of the manifest for arch: of the index pinned, or of pinned itself, whose digest is given.
func choose(pinned []byte, digest string, arch image.Arch) (string, error) {
	index, err := v1.ParseIndexManifest(bytes.NewReader(pinned))
	if err != nil {
		return "", err
	}
	if !index.MediaType.IsIndex() && len(index.Manifests) == 0 {
		return digest, nil
	}
	for _, m := range index.Manifests {
		if p := m.Platform; p != nil && p.OS == "linux" && p.Architecture == string(arch) {
			return m.Digest.String(), nil
		}
	}
	return "", fmt.Errorf("it is for other architectures than linux/%s", arch)
}

// readDocuments reads the documents in the folder dir, of which each must have the digest that the one before names.
func readDocuments(dir, ref string, arch image.Arch) (*documents, error) {
	_, digest, _ := strings.Cut(ref, "@")
	pinned, err := measured(dir, pinnedFile, digest)
	if err != nil {
		return nil, err
	}
	if digest, err = choose(pinned, digest, arch); err != nil {
		return nil, err
	}
	raw, err := measured(dir, manifestFile, digest)
	if err != nil {
		return nil, err
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	if raw, err = measured(dir, configFile, manifest.Config.Digest.String()); err != nil {
		return nil, err
	}
	d := &documents{}
	if d.config, err = v1.ParseConfigFile(bytes.NewReader(raw)); err != nil {
		return nil, err
	}
	if c := d.config; c.OS != "linux" || c.Architecture != string(arch) {
		return nil, fmt.Errorf("it is for %s/%s, not linux/%s", c.OS, c.Architecture, arch)
	}
	d.digest, err = image.ParseDigest(digest)
	return d, err
}

// measured reads a document that must have the digest.
func measured(dir, file, want string) ([]byte, error) {
	raw, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return nil, err
	}
	got, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	if got.String() != want {
		return nil, fmt.Errorf("the digest of %s is %s, not %s", file, got, want)
	}
	return raw, nil
}
