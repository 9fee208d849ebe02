package qemutests

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"allotment/builder"
	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/builder/release"
	"allotment/image"
	"allotment/image/disk"
	"allotment/image/validate"
	"allotment/internal/cache"
	"allotment/internal/progress"
)

// publisher makes releases of one profile and gives them to boxes by a web server, as a hosting provider does.
type publisher struct {
	arch    image.Arch
	modules []string
	cache   cache.Dir
	keys    string         // folder of the boot keys
	repo    string         // folder that is served
	url     string         // as boxes reach it
	source  builder.Source // what is built; empty: our own source code
	asked   atomic.Int64
	spoil   atomic.Pointer[http.HandlerFunc] // answers in place of the server; nil: nobody does
}

// publisherPort is where the repository is served if it is free, so that images that know its address can come from the
// cache; and hostAddress is how QEMU's own network calls this machine.
const (
	publisherPort = "28417"
	hostAddress   = "10.0.2.2"
)

// newPublisher makes an empty repository and serves it.
func newPublisher(t *testing.T, arch image.Arch, modules ...string) *publisher {
	t.Helper()
	needMachines(t)
	p := &publisher{arch: arch, modules: modules, repo: filepath.Join(t.TempDir(), "repository")}
	var err error
	if p.cache, err = cache.Default(); err != nil {
		t.Fatal(err)
	}
	if p.keys, err = testKeys(t.Context(), p.cache, "keys"); err != nil {
		t.Fatal(err)
	}
	// The first root is in every image: it is made once for all runs of a month.
	now := time.Now().UTC()
	month := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	first, err := p.cache.Make(t.Context(), "qemu-tests", "repository-"+month.Format("2006-01"), func(tmp string) error {
		return release.Init(t.Context(), release.Options{Dir: tmp, Keys: namedKeys{}, Now: month, Progress: progress.Silent{}})
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(p.repo, os.DirFS(first)); err != nil {
		t.Fatal(err)
	}
	p.work(t, func(r *release.Repository) error { return r.Refresh(t.Context()) })
	p.serve(t)
	return p
}

func (p *publisher) serve(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:"+publisherPort)
	if err != nil {
		if listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	files := http.FileServer(http.Dir(p.repo))
	s := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		if f := p.spoil.Load(); f != nil {
			(*f)(w, r)
			return
		}
		files.ServeHTTP(w, r)
	})}}
	s.Start()
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p.url = "http://" + net.JoinHostPort(hostAddress, port) + "/"
}

// work opens the repository for one piece of work.
func (p *publisher) work(t *testing.T, do func(*release.Repository) error) {
	t.Helper()
	r, err := release.Open(t.Context(), release.Options{Dir: p.repo, Keys: namedKeys{}, Now: time.Now(), Progress: progress.Silent{}})
	if err == nil {
		err = do(r)
		r.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// build makes the developer image of a version whose modules were changed. The image of the first version is what a box is
// installed from.
func (p *publisher) build(t *testing.T, v image.Version, change func(*profile.Profile)) string {
	t.Helper()
	source := p.source
	if source == "" {
		var err error
		if source, err = builder.FindSource("."); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(string(source), "profiles", "garden-club.toml")
	c, err := profile.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	l, err := lock.Read(strings.TrimSuffix(file, ".toml") + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.ReadFile(filepath.Join(p.repo, "metadata", "1.root.json"))
	if err != nil {
		t.Fatal(err)
	}
	c.Name, c.Channel, c.Developer, c.Outputs = "garden-club-updates", "candidate", true, []string{"qcow2"}
	c.Version, c.ModuleNames = v, p.modules
	c.Modules = slices.DeleteFunc(c.Modules, func(m *profile.ModuleSpec) bool { return !slices.Contains(p.modules, m.Name) })
	c.Update = image.Update{URLs: []string{p.url}, Channel: c.Channel, Root: string(root)}
	if change != nil {
		change(c)
	}
	result, err := builder.Build(t.Context(), builder.Options{Profile: c, Lock: l, Source: source, Arch: p.arch,
		Keys: p.keys, Out: p.cache.Path("qemu-tests", "out"), Cache: p.cache, Progress: progress.Silent{}})
	if err != nil {
		t.Fatal(err)
	}
	path, err := result.Image("qcow2")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// publish builds a version and offers it to every box at once.
func (p *publisher) publish(t *testing.T, v image.Version, change func(*profile.Profile)) *image.Release {
	t.Helper()
	return p.offer(t, p.build(t, v, change))
}

// offer makes an image the newest release for every box.
func (p *publisher) offer(t *testing.T, path string) *image.Release {
	t.Helper()
	wave, err := release.NewWave("emergency", time.Now(), -1)
	if err != nil {
		t.Fatal(err)
	}
	var rel *image.Release
	p.work(t, func(r *release.Repository) error {
		f, err := disk.Open(t.Context(), toolRoot(t).With(filepath.Dir(path)), path)
		if err != nil {
			return err
		}
		defer f.Close()
		img, err := release.ReadImage(t.Context(), f, f.Size, validate.Options{})
		if err != nil {
			return err
		}
		rel, err = r.Add(t.Context(), img, release.AddOptions{Notes: "Made for a test.", Wave: wave, Deltas: 2})
		return err
	})
	return rel
}

// namedKeys are keys that follow from their names: what is signed with them is trusted by test images alone.
type namedKeys struct{}

func (namedKeys) key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("allotment qemu-tests " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// names are those that a keyring could have; release asks for one before it makes it.
func (namedKeys) names() []string {
	var all []string
	for _, role := range []string{"root", "targets", "stable", "candidate", "snapshot", "timestamp"} {
		for n := 1; n <= 5; n++ {
			all = append(all, fmt.Sprintf("%s-%d", role, n))
		}
		all = append(all, role)
	}
	return all
}

// Public implements release.Keys.
func (k namedKeys) Public(name string) (crypto.PublicKey, error) { return k.key(name).Public(), nil }

// New implements release.Keys.
func (k namedKeys) New(name string) (crypto.PublicKey, error) { return k.key(name).Public(), nil }

// Next implements release.Keys.
func (k namedKeys) Next(role string) (string, error) { return role + "-2", nil }

// Signer implements release.Keys.
func (k namedKeys) Signer(_ context.Context, public crypto.PublicKey) (crypto.Signer, error) {
	for _, name := range k.names() {
		if p := k.key(name); p.Public().(ed25519.PublicKey).Equal(public) {
			return p, nil
		}
	}
	return nil, fs.ErrNotExist
}
