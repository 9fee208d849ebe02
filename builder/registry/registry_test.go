package registry

import (
	"archive/tar"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"allotment/builder/registry/registrytest"
	"allotment/builder/rootfs"
	"allotment/builder/tools"
	"allotment/image"
	"allotment/internal/cache"
	"allotment/internal/progress"
	"allotment/internal/run"
)

func TestMain(m *testing.M) {
	tools.EnterIfAsked()
	os.Exit(m.Run())
}

// world is a registry in memory with one image, a tool root with skopeo, and a key that signs.
type world struct {
	*registrytest.Registry
	ref   string // of the image, unsigned
	tools *tools.Root
	dir   string // with the keys
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{Registry: registrytest.New(), dir: t.TempDir()}
	t.Cleanup(w.Close)
	dir, err := cache.Default()
	if err != nil {
		t.Fatal(err)
	}
	if w.tools, err = registrytest.Skopeo(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	w.ref = w.push(t, "app", testImage(t))
	return w
}

// push puts an image into the registry and returns its reference by digest.
func (w *world) push(t *testing.T, repository string, img v1.Image) string {
	t.Helper()
	digest, err := w.Push(t.Context(), repository, img)
	if err != nil {
		t.Fatal(err)
	}
	return w.Host + "/" + repository + "@" + digest.String()
}

// sign makes a key called key and signs the image with it, as its publisher would.
func (w *world) sign(t *testing.T, key, ref string) {
	t.Helper()
	write(t, filepath.Join(w.dir, "pass"), "secret\n")
	open := w.policy(t, `{"default": [{"type": "insecureAcceptAnything"}]}`)
	repository, _, _ := strings.Cut(ref, "@")
	for _, args := range [][]string{
		{"generate-sigstore-key", "--output-prefix", filepath.Join(w.dir, key), "--passphrase-file", filepath.Join(w.dir, "pass")},
		{"--policy", "policy.json", "--registries.d", "registries.d", "copy", "--src-tls-verify=false", "--dest-tls-verify=false",
			"--preserve-digests", "--sign-by-sigstore-private-key", filepath.Join(w.dir, key+".private"),
			"--sign-passphrase-file", filepath.Join(w.dir, "pass"), "docker://" + ref, "docker://" + repository + ":latest"},
	} {
		if err := w.tools.Run(t.Context(), run.Command{Name: "skopeo", Args: args, Dir: open}); err != nil {
			t.Fatal(err)
		}
	}
}

// policy makes a policy folder.
func (w *world) policy(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "policy.json"), text)
	write(t, filepath.Join(dir, "registries.conf"), "[[registry]]\nlocation = \""+w.Host+"\"\ninsecure = true\n")
	write(t, filepath.Join(dir, "registries.d", "sigstore.yaml"), "default-docker:\n  use-sigstore-attachments: true\n")
	return dir
}

// signedBy is the policy that admits what the key has signed, under whatever name of the same repository.
func (w *world) signedBy(t *testing.T, key string) string {
	t.Helper()
	dir := w.policy(t, `{"default": [{"type": "reject"}], "transports": {"docker": {"`+w.Host+
		`": [{"type": "sigstoreSigned", "keyPath": "key.pub", "signedIdentity": {"type": "matchRepository"}}]}}}`)
	public, err := os.ReadFile(filepath.Join(w.dir, key+".pub"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "key.pub"), string(public))
	return dir
}

func (w *world) source(t *testing.T, policy string) *Source {
	return &Source{Cache: cache.Dir(t.TempDir()), Tools: w.tools, Policy: policy, Report: progress.Silent{}}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// testImage has three layers with all that makes flattening hard.
func testImage(t *testing.T) v1.Image {
	t.Helper()
	type members = []registrytest.Member
	file := func(name, text string) registrytest.Member { return registrytest.File(name, 0o755, text, nil) }
	link := registrytest.Link
	img, err := registrytest.Image(image.AMD64, v1.Config{User: "33:33"},
		members{
			file("etc/passwd", "root:x:0:0::/:\n"),
			registrytest.File("usr/bin/app", 0o755, "one", map[string]string{
				"security.capability": registrytest.NetBind, "user.note": "kept"}),
			link(tar.TypeLink, "usr/bin/alias", "usr/bin/app"), file("srv/a", "a"), file("srv/deep/b", "b"),
			file("opt/old/c", "c"), link(tar.TypeSymlink, "lib", "usr/lib"), file("usr/lib/x", "x"), link(tar.TypeChar, "dev/null", ""),
		},
		members{ // the whiteout hides c, not its neighbour
			file("opt/old/new", "new"), file("opt/old/.wh..wh..opq", ""), file("srv/.wh.deep", ""), file("usr/bin/alias", "two"),
			file("lib/y", "y"),
		},
		members{file("srv/deep/d", "d"), file("srv/.wh.a", ""), link(tar.TypeLink, "srv/hard", "usr/bin/app")})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestSignedImageIsFetchedAndFlattened(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the tool root")
	}
	w := newWorld(t)
	w.sign(t, "good", w.ref)
	s := w.source(t, w.signedBy(t, "good"))
	img, err := s.Fetch(t.Context(), w.ref, image.AMD64)
	if err != nil {
		t.Fatal(err)
	}
	if img.Config.User != "33:33" || len(img.Layers) != 3 {
		t.Errorf("image: %+v", img)
	}
	tree, err := rootfs.ReadImage(t.Context(), img.Layers...)
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{
		"/usr/bin/app": "one", "/usr/bin/alias": "two", "/srv/hard": "one", "/srv/deep/d": "d", "/opt/old/new": "new",
		"/usr/lib/y": "y", "/lib/x": "x", "/srv/a": "", "/srv/deep/b": "", "/opt/old/c": "", "/dev/null": "",
	} {
		got, err := tree.ReadFile(p)
		if want == "" != (err != nil) || string(got) != want {
			t.Errorf("%s holds %q (%v), not %q", p, got, err, want)
		}
	}
	app := tree.Lookup("/usr/bin/app")
	if app != tree.Lookup("/srv/hard") || app == tree.Lookup("/usr/bin/alias") {
		t.Error("hard links are not as the layers made them")
	}
	if app.Xattrs["security.capability"] != registrytest.NetBind || app.Xattrs["user.note"] != "kept" {
		t.Errorf("extended attributes: %q", app.Xattrs)
	}

	// Guards: what was changed in the cache is not used.
	dir := filepath.Dir(img.Layers[1])
	for name, want := range map[string]string{
		layerName(1): "its digest is", pinnedFile: "the digest of pinned.json is", manifestFile: "the digest of manifest.json is",
		configFile: "the digest of config.json is",
	} {
		before, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), " "+string(before))
		if _, err := s.Fetch(t.Context(), w.ref, image.AMD64); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a changed %s: %v", name, err)
		}
		write(t, filepath.Join(dir, name), string(before))
	}
	if _, err := s.Fetch(t.Context(), w.ref, image.AMD64); err != nil {
		t.Errorf("what is as it was: %v", err)
	}
}

// An index leads to the image of each architecture.
func TestIndex(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the tool root")
	}
	w := newWorld(t)
	img := testImage(t)
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: empty.Image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}},
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}})
	all, err := w.PushIndex(t.Context(), "many", index)
	if err != nil {
		t.Fatal(err)
	}
	own, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	s := w.source(t, w.policy(t, `{"default": [{"type": "insecureAcceptAnything"}]}`))
	got, err := s.Fetch(t.Context(), w.Host+"/many@"+all.String(), image.AMD64)
	if err != nil || string(got.Manifest) != own.String() || len(got.Layers) != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := s.Fetch(t.Context(), w.Host+"/many@"+all.String(), image.ARM64); err == nil {
		t.Error("there is an image for an architecture that the index does not have")
	}
}

func TestRefusals(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the tool root")
	}
	w := newWorld(t)
	w.sign(t, "good", w.ref)
	w.sign(t, "other", w.push(t, "foreign", testImage(t))) // another repository with a key of its own
	unsigned := w.push(t, "unsigned", testImage(t))
	reject := w.policy(t, `{"default": [{"type": "reject"}]}`)
	for _, c := range []struct{ name, ref, policy, want string }{
		{"by default", w.ref, reject, "policy.json does not admit it"},
		{"unsigned", unsigned, w.signedBy(t, "good"), "policy.json does not admit it"},
		{"another key", w.ref, w.signedBy(t, "other"), "cannot use image"},
		{"another digest", strings.Replace(w.ref, "@sha256:", "@sha256:0", 1)[:len(w.ref)], w.signedBy(t, "good"), "cannot use image"},
		{"a tag", w.Host + "/app:latest", w.signedBy(t, "good"), "want HOST/NAME@sha256:DIGEST"},
		{"no host", "library/app" + w.ref[strings.Index(w.ref, "@"):], reject, "is not the host of a registry"},
		{"another architecture", w.ref, w.signedBy(t, "good"), "linux/arm64"},
		{"no policy", w.ref, t.TempDir(), "no policy.json"},
	} {
		arch := image.AMD64
		if c.name == "another architecture" {
			arch = image.ARM64
		}
		_, err := w.source(t, c.policy).Fetch(t.Context(), c.ref, arch)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestChangedBlob has a registry that gives other bytes than it was asked for.
func TestChangedBlob(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the tool root")
	}
	w := newWorld(t)
	w.sign(t, "good", w.ref)
	backend, anything := w.Host, `{"default": [{"type": "insecureAcceptAnything"}]}`
	if _, err := w.source(t, w.policy(t, anything)).Fetch(t.Context(), w.ref, image.AMD64); err != nil {
		t.Fatalf("what nobody changed is refused: %v", err)
	}
	liar := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		resp, err := http.Get("http://" + backend + r.URL.Path)
		if err != nil {
			rw.WriteHeader(http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		if strings.Contains(r.URL.Path, "/blobs/") && len(b) > 0 && b[0] == 0x1f { // a compressed layer
			b[len(b)/2] ^= 1
		}
		for k, v := range resp.Header {
			rw.Header()[k] = v
		}
		rw.WriteHeader(resp.StatusCode)
		rw.Write(b)
	}))
	defer liar.Close()
	w.Host = strings.TrimPrefix(liar.URL, "http://")
	ref := w.Host + w.ref[strings.Index(w.ref, "/"):]
	if _, err := w.source(t, w.policy(t, anything)).Fetch(t.Context(), ref, image.AMD64); err == nil {
		t.Error("a changed layer was taken")
	}
}
