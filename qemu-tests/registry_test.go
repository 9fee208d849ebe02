package qemutests

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
	"allotment/internal/cache"
	"allotment/internal/progress"
	"allotment/internal/run"
)

// foreignHost is the registry in the reference of the module foreign. Its policy sends who asks for it to our own.
const foreignHost = "registry.example.org"

// foreign is a registry in memory that has the image of the module foreign, and the policy that admits it.
type foreign struct {
	policy string // folder
	server http.Server
}

// serveForeign pushes the image into a registry, signs it, and writes its digest into the module in the source folder.
func serveForeign(ctx context.Context, dir cache.Dir, source, program string) (*foreign, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &foreign{policy: filepath.Join(scratch, "registry")}
	f.server.Handler = registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	go f.server.Serve(listener)
	address := listener.Addr().String()
	img, err := foreignImage(program)
	if err != nil {
		return nil, err
	}
	tag, err := name.NewTag(address+"/probe/app:latest", name.Insecure)
	if err != nil {
		return nil, err
	}
	if err := remote.Write(tag, img, remote.WithContext(ctx)); err != nil {
		return nil, err
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	if err := f.sign(ctx, dir, address, digest); err != nil {
		return nil, err
	}
	file := filepath.Join(source, "modules", "foreign", "module.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return f, os.WriteFile(file, bytes.ReplaceAll(text, []byte("sha256:DIGEST"), []byte(digest.String())), 0o644)
}

// sign writes the policy folder and signs the image with a key that it names, as the image's publisher would.
func (f *foreign) sign(ctx context.Context, dir cache.Dir, address string, digest v1.Hash) error {
	l, err := tools.Lock()
	if err != nil {
		return err
	}
	root, err := tools.OpenRegistry(ctx, dir, apt.New(dir, profile.Debian{}, l.Epoch), progress.Silent{})
	if err != nil {
		return err
	}
	skopeo := func(args ...string) error {
		return root.With(f.policy).Run(ctx, run.Command{Name: "skopeo", Args: args, Dir: f.policy})
	}
	text := map[string]string{
		"policy.json": `{"default": [{"type": "reject"}], "transports": {"docker": {"` + foreignHost + `/probe": [` +
			`{"type": "sigstoreSigned", "keyPath": "app.pub", "signedIdentity": {"type": "matchRepository"}}]}}}`,
		"registries.conf":     "[[registry]]\nprefix = \"" + foreignHost + "\"\nlocation = \"" + address + "\"\ninsecure = true\n",
		"registries.d/a.yaml": "default-docker:\n  use-sigstore-attachments: true\n",
	}
	for file, content := range text {
		file = filepath.Join(f.policy, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			return err
		}
	}
	password := filepath.Join(scratch, "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		return err
	}
	// The key stays in the cache: with a new one the image would be another input, and never be up to date.
	key, err := dir.Make(ctx, "qemu-tests", "registry-key", func(tmp string) error {
		if err := os.Mkdir(tmp, 0o700); err != nil {
			return err
		}
		return skopeo("generate-sigstore-key", "--output-prefix", filepath.Join(tmp, "app"), "--passphrase-file", password)
	})
	if err != nil {
		return err
	}
	public, err := os.ReadFile(filepath.Join(key, "app.pub"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(f.policy, "app.pub"), public, 0o644); err != nil {
		return err
	}
	image := "docker://" + address + "/probe/app"
	return skopeo("--insecure-policy", "--registries.d", "registries.d", "copy", "--quiet", "--preserve-digests",
		"--src-tls-verify=false", "--dest-tls-verify=false", "--sign-identity", foreignHost+"/probe/app:signed",
		"--sign-by-sigstore-private-key", filepath.Join(key, "app.private"), "--sign-passphrase-file", password,
		image+"@"+digest.String(), image+":signed")
}

// member is a member of a layer's tar file.
type member struct {
	tar.Header
	text []byte
}

// netBind is the value of security.capability for cap_net_bind_service=ep (linux/capability.h, revision 2).
const netBind = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// foreignImage has two layers: the second hides a file of the first, links to one, and changes another.
func foreignImage(program string) (v1.Image, error) {
	probe, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	link := func(kind byte, name, to string) member {
		return member{Header: tar.Header{Typeflag: kind, Name: name, Linkname: to}}
	}
	file := func(name string, mode int64, text string) member {
		return member{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, []byte(text)}
	}
	able := file("usr/bin/original", 0o755, string(probe))
	able.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": netBind, "SCHILY.xattr.user.note": "kept"}
	layers := [][]member{
		{able, file("etc/who", 0o644, "nobody\n"), file("srv/hidden", 0o644, "x"), file("srv/seen", 0o644, "y"),
			link(tar.TypeSymlink, "bin", "usr/bin"), file("usr/bin/setuid", 0o4755, string(probe))},
		{link(tar.TypeLink, "usr/bin/probe", "usr/bin/original"), file("etc/who", 0o644, "foreign\n"), file("srv/.wh.hidden", 0, "")},
	}
	img := v1.Image(empty.Image)
	for _, members := range layers {
		l, err := foreignLayer(members)
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			return nil, err
		}
	}
	c, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", "amd64"
	c.Config.User, c.Config.Entrypoint = "0:0", []string{"/usr/bin/probe", "sleep"} // which count for nothing
	return mutate.ConfigFile(img, c)
}

func foreignLayer(members []member) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		m.Size, m.Format = int64(len(m.text)), tar.FormatPAX
		if err := w.WriteHeader(&m.Header); err != nil {
			return nil, err
		}
		if _, err := w.Write(m.text); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
}

// testRegistry looks at a module whose image came from a registry: its files are what the layers make together, and its
// sandbox is the manifest's.
func (p probes) testRegistry(t *testing.T) {
	for path, want := range map[string]string{"/etc/who": "foreign", "/srv/seen": "y"} {
		if got := strings.TrimSpace(p.mustWork(t, "foreign", order{What: "read", Args: []string{path}})); got != want {
			t.Errorf("%s holds %q, want %q", path, got, want)
		}
	}
	p.mustFail(t, "foreign", order{What: "read", Args: []string{"/srv/hidden"}}, "ENOENT")
	if got := p.mustWork(t, "foreign", order{What: "ids"}); got != "1000 1000" {
		t.Errorf("it runs as %s, want the manifest's user, 1000 1000", got)
	}
	if got := p.mustWork(t, "foreign", order{What: "run", Args: []string{"/usr/bin/setuid", "try", "ids"}}); !strings.Contains(got, "1000 1000") {
		t.Errorf("a set-user-id program of the image runs as %s", got)
	}
	if got := p.mustWork(t, "foreign", order{What: "get-xattr", Args: []string{"/usr/bin/probe", "user.note"}}); got != "kept" {
		t.Errorf("the attribute of the linked file is %q", got)
	}
	p.mustFail(t, "foreign", order{What: "mount"}, "EPERM")
	p.mustFail(t, "foreign", order{What: "create", Args: []string{"/srv/x"}}, "EROFS", "EACCES")
	p.mustWork(t, "foreign", order{What: "create", Args: []string{"/data/x"}})
}

// close ends the registry.
func (f *foreign) close() error {
	if err := f.server.Close(); err != nil {
		return fmt.Errorf("cannot end the registry: %w", err)
	}
	return nil
}
