package qemutests

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"allotment/builder/registry/registrytest"
	"allotment/image"
	"allotment/internal/cache"
	"allotment/internal/run"
)

// foreignHost is the registry in the reference of the module foreign. Its policy sends who asks for it to our own.
const (
	foreignHost = "registry.example.org"
	foreignName = "probe/app"
)

// foreign is a registry in memory that has the image of the module foreign, and the policy that admits it.
type foreign struct {
	*registrytest.Registry
	policy string // folder
}

// serveForeign pushes the image into a registry, signs it, and writes its digest into the module in the source folder.
func serveForeign(ctx context.Context, dir cache.Dir, source, program string) (*foreign, error) {
	f := &foreign{registrytest.New(), filepath.Join(scratch, "registry")}
	img, err := foreignImage(program)
	if err != nil {
		return nil, err
	}
	digest, err := f.Push(ctx, foreignName, img)
	if err != nil {
		return nil, err
	}
	if err := f.sign(ctx, dir, digest); err != nil {
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
func (f *foreign) sign(ctx context.Context, dir cache.Dir, digest v1.Hash) error {
	root, err := registrytest.Skopeo(ctx, dir)
	if err != nil {
		return err
	}
	skopeo := func(args ...string) error {
		return root.With(f.policy).Run(ctx, run.Command{Name: "skopeo", Args: args, Dir: f.policy})
	}
	text := map[string]string{
		"policy.json": `{"default": [{"type": "reject"}], "transports": {"docker": {"` + foreignHost + `/probe": [` +
			`{"type": "sigstoreSigned", "keyPath": "app.pub", "signedIdentity": {"type": "matchRepository"}}]}}}`,
		"registries.conf":     "[[registry]]\nprefix = \"" + foreignHost + "\"\nlocation = \"" + f.Host + "\"\ninsecure = true\n",
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
	repository := "docker://" + f.Host + "/" + foreignName
	return skopeo("--insecure-policy", "--registries.d", "registries.d", "copy", "--quiet", "--preserve-digests",
		"--src-tls-verify=false", "--dest-tls-verify=false", "--sign-identity", foreignHost+"/"+foreignName+":signed",
		"--sign-by-sigstore-private-key", filepath.Join(key, "app.private"), "--sign-passphrase-file", password,
		repository+"@"+digest.String(), repository+":signed")
}

// foreignImage has two layers: the second hides a file of the first, links to one, and changes another.
func foreignImage(program string) (v1.Image, error) {
	probe, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	type members = []registrytest.Member
	file := func(name string, mode int64, text string) registrytest.Member {
		return registrytest.File(name, mode, text, nil)
	}
	saysOfItself := v1.Config{User: "0:0", Entrypoint: []string{"/usr/bin/probe", "sleep"}} // which counts for nothing
	return registrytest.Image(image.AMD64, saysOfItself,
		members{
			registrytest.File("usr/bin/original", 0o755, string(probe), map[string]string{
				"security.capability": registrytest.NetBind, "user.note": "kept"}),
			file("etc/who", 0o644, "nobody\n"), file("srv/hidden", 0o644, "x"), file("srv/seen", 0o644, "y"),
			registrytest.Link(tar.TypeSymlink, "bin", "usr/bin"), file("usr/bin/setuid", 0o4755, string(probe)),
		},
		members{
			registrytest.Link(tar.TypeLink, "usr/bin/probe", "usr/bin/original"), file("etc/who", 0o644, "foreign\n"),
			file("srv/.wh.hidden", 0, ""),
		})
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
