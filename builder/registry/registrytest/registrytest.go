// Package registrytest has what tests of foreign images need: a registry in memory, images for it, and skopeo.
package registrytest

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"allotment/builder/apt"
	"allotment/builder/profile"
	"allotment/builder/tools"
	"allotment/image"
	"allotment/internal/cache"
	"allotment/internal/progress"
)

// NetBind is the value of security.capability for cap_net_bind_service=ep (linux/capability.h, revision 2).
const NetBind = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// Registry is a registry in memory, without TLS.
type Registry struct {
	Host   string // HOST:PORT
	server *httptest.Server
}

// New starts a registry.
func New() *Registry {
	server := httptest.NewServer(registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelError))))
	return &Registry{strings.TrimPrefix(server.URL, "http://"), server}
}

// Close ends the registry.
func (r *Registry) Close() { r.server.Close() }

// Push puts an image into a repository and returns its digest.
func (r *Registry) Push(ctx context.Context, repository string, img v1.Image) (v1.Hash, error) {
	tag, err := r.tag(repository)
	if err != nil {
		return v1.Hash{}, err
	}
	if err := remote.Write(tag, img, remote.WithContext(ctx)); err != nil {
		return v1.Hash{}, err
	}
	return img.Digest()
}

// PushIndex puts an index and its images into a repository and returns its digest.
func (r *Registry) PushIndex(ctx context.Context, repository string, index v1.ImageIndex) (v1.Hash, error) {
	tag, err := r.tag(repository)
	if err != nil {
		return v1.Hash{}, err
	}
	if err := remote.WriteIndex(tag, index, remote.WithContext(ctx)); err != nil {
		return v1.Hash{}, err
	}
	return index.Digest()
}

func (r *Registry) tag(repository string) (name.Tag, error) {
	return name.NewTag(r.Host+"/"+repository+":latest", name.Insecure)
}

// Skopeo opens the tool root that has skopeo.
func Skopeo(ctx context.Context, dir cache.Dir) (*tools.Root, error) {
	l, err := tools.Lock()
	if err != nil {
		return nil, err
	}
	return tools.OpenRegistry(ctx, dir, apt.New(dir, profile.Debian{}, l.Epoch), progress.Silent{})
}

// Member is a member of a layer's tar file. Its size is that of the text.
type Member struct {
	tar.Header
	Text string
}

// File is a regular file with extended attributes.
func File(name string, mode int64, text string, xattrs map[string]string) Member {
	m := Member{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, PAXRecords: map[string]string{}}, text}
	for k, v := range xattrs {
		m.PAXRecords["SCHILY.xattr."+k] = v
	}
	return m
}

// Link is a link of a kind of tar.
func Link(kind byte, name, to string) Member {
	return Member{Header: tar.Header{Typeflag: kind, Name: name, Linkname: to}}
}

// Image makes an image of layers, lowest first, which says c of itself.
func Image(arch image.Arch, c v1.Config, layers ...[]Member) (v1.Image, error) {
	img := v1.Image(empty.Image)
	for _, members := range layers {
		l, err := layer(members)
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			return nil, err
		}
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", string(arch), c
	return mutate.ConfigFile(img, file)
}

func layer(members []Member) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		m.Size, m.Format = int64(len(m.Text)), tar.FormatPAX
		if err := w.WriteHeader(&m.Header); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, m.Text); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
}
