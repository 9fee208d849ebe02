package registry

import (
	"archive/tar"
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
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
	host  string // of the registry
	ref   string // of the image, unsigned
	tools *tools.Root
	dir   string // with the keys
}

func newWorld(t *testing.T) *world {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	w := &world{host: strings.TrimPrefix(server.URL, "http://"), dir: t.TempDir()}
	dir, err := cache.Default()
	if err != nil {
		t.Fatal(err)
	}
	l, err := tools.Lock()
	if err != nil {
		t.Fatal(err)
	}
	w.tools, err = tools.OpenRegistry(t.Context(), dir, apt.New(dir, profile.Debian{}, l.Epoch), progress.Silent{})
	if err != nil {
		t.Fatal(err)
	}
	w.ref = w.push(t, "app", testImage(t))
	return w
}

// push puts an image into the registry and returns its reference by digest.
func (w *world) push(t *testing.T, repository string, img v1.Image) string {
	t.Helper()
	tag, err := name.NewTag(w.host+"/"+repository+":latest", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img); err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return w.host + "/" + repository + "@" + digest.String()
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
	write(t, filepath.Join(dir, "registries.conf"), "[[registry]]\nlocation = \""+w.host+"\"\ninsecure = true\n")
	write(t, filepath.Join(dir, "registries.d", "sigstore.yaml"), "default-docker:\n  use-sigstore-attachments: true\n")
	return dir
}

// signedBy is the policy that admits what the key has signed, under whatever name of the same repository.
func (w *world) signedBy(t *testing.T, key string) string {
	t.Helper()
	dir := w.policy(t, `{"default": [{"type": "reject"}], "transports": {"docker": {"`+w.host+
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

// file is a member of a layer.
type file struct {
	name, text, link string
	kind             byte
	xattrs           map[string]string
}

// capability is the value of security.capability for cap_net_bind_service=ep (linux/capability.h, revision 2).
const capability = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// testImage has three layers with all that makes flattening hard.
func testImage(t *testing.T) v1.Image {
	t.Helper()
	var layers []v1.Layer
	for _, files := range [][]file{
		{
			{name: "etc/passwd", text: "root:x:0:0::/:\n"}, {name: "usr/bin/app", text: "one", xattrs: map[string]string{
				"security.capability": capability, "user.note": "kept"}},
			{name: "usr/bin/alias", link: "usr/bin/app", kind: tar.TypeLink}, {name: "srv/a", text: "a"},
			{name: "srv/deep/b", text: "b"}, {name: "opt/old/c", text: "c"}, {name: "lib", link: "usr/lib", kind: tar.TypeSymlink},
			{name: "usr/lib/x", text: "x"}, {name: "dev/null", kind: tar.TypeChar},
		},
		{
			{name: "opt/old/new", text: "new"}, {name: "opt/old/.wh..wh..opq"}, // the whiteout hides c, not its neighbour
			{name: "srv/.wh.deep"}, {name: "usr/bin/alias", text: "two"}, {name: "lib/y", text: "y"},
		},
		{{name: "srv/deep/d", text: "d"}, {name: "srv/.wh.a"}, {name: "srv/hard", link: "usr/bin/app", kind: tar.TypeLink}},
	} {
		layers = append(layers, testLayer(t, files))
	}
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture, c.Config.User = "linux", "amd64", "33:33"
	if img, err = mutate.ConfigFile(img, c); err != nil {
		t.Fatal(err)
	}
	return img
}

func testLayer(t *testing.T, files []file) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Typeflag: f.kind, Linkname: f.link, Mode: 0o755, Size: int64(len(f.text)), Format: tar.FormatPAX}
		if f.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		for k, v := range f.xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, f.text)
	}
	w.Close()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
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
	if app.Xattrs["security.capability"] != capability || app.Xattrs["user.note"] != "kept" {
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
	tag, err := name.NewTag(w.host+"/many:latest", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(tag, index); err != nil {
		t.Fatal(err)
	}
	all, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	own, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	s := w.source(t, w.policy(t, `{"default": [{"type": "insecureAcceptAnything"}]}`))
	got, err := s.Fetch(t.Context(), w.host+"/many@"+all.String(), image.AMD64)
	if err != nil || string(got.Manifest) != own.String() || len(got.Layers) != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := s.Fetch(t.Context(), w.host+"/many@"+all.String(), image.ARM64); err == nil {
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
		{"a tag", w.host + "/app:latest", w.signedBy(t, "good"), "want HOST/NAME@sha256:DIGEST"},
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
	backend, anything := w.host, `{"default": [{"type": "insecureAcceptAnything"}]}`
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
	w.host = strings.TrimPrefix(liar.URL, "http://")
	ref := w.host + w.ref[strings.Index(w.ref, "/"):]
	if _, err := w.source(t, w.policy(t, anything)).Fetch(t.Context(), ref, image.AMD64); err == nil {
		t.Error("a changed layer was taken")
	}
}
