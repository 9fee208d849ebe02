package trust_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"allotment/image"
	"allotment/updater/fetch"
	"allotment/updater/trust"
	"allotment/updater/trust/trusttest"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// world is a repository behind a web server, and a device.
type world struct {
	*testing.T
	repo   *trusttest.Repo
	now    time.Time
	dir    string
	server *httptest.Server
	urls   []string          // that the device asks
	root   []byte            // in the device's image
	old    map[string][]byte // files of an earlier time

	mu     sync.Mutex
	asked  []string                                                   // paths
	answer func(w http.ResponseWriter, path string, file []byte) bool // whether it has answered, for attacks
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, repo: trusttest.New(t, start), now: start, dir: t.TempDir()}
	w.root = w.repo.RootFile(1)
	w.server = httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(w.server.Close)
	w.urls = []string{w.server.URL}
	return w
}

func (w *world) serve(out http.ResponseWriter, r *http.Request) {
	p := strings.TrimPrefix(r.URL.Path, "/")
	w.mu.Lock()
	w.asked = append(w.asked, p)
	b, ok := w.repo.Files[p]
	answer := w.answer
	w.mu.Unlock()
	switch {
	case answer != nil && answer(out, p, b):
	case !ok:
		http.NotFound(out, r)
	default:
		out.Write(b)
	}
}

// client is the device's, as it is after a start.
func (w *world) client() *trust.Client {
	w.Helper()
	c, err := trust.New(trust.Config{
		Dir:    w.dir,
		Root:   w.root,
		Source: fetch.HTTP(w.urls, fetch.Options{Rounds: 1, Window: 300 * time.Millisecond, Speed: 1000}),
		Now:    func() time.Time { return w.now },
	})
	if err != nil {
		w.Fatal(err)
	}
	return c
}

func (w *world) refresh() error { return w.client().Refresh(context.Background()) }

// works wants a refresh to succeed, and returns the offer.
func (w *world) works() *trust.Offer {
	w.Helper()
	c := w.client()
	if err := c.Refresh(context.Background()); err != nil {
		w.Fatal(err)
	}
	o, err := c.Offer(context.Background(), "stable", "garden", image.AMD64)
	if err != nil {
		w.Fatal(err)
	}
	return o
}

// refuses wants a refresh to fail with an error that has the words.
func (w *world) refuses(words ...string) {
	w.Helper()
	err := w.refresh()
	if err == nil {
		w.Fatal("accepted")
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			w.Errorf("error %q does not say %q", err, word)
		}
	}
}

func TestOffer(t *testing.T) {
	w := newWorld(t)
	if o := w.works(); o != nil {
		t.Fatalf("an empty channel offers %v", o)
	}
	wave := image.Wave{Start: start.Unix(), Hours: 72, Kind: "default"}
	w.repo.AddRelease(trusttest.Release("garden", "2026.11.2"), wave)
	o := w.works()
	if o == nil || o.Release.Version != "2026.11.2" || o.Wave != wave || o.Digest == "" {
		t.Fatalf("offers %+v", o)
	}
	if !slices.ContainsFunc(w.asked, func(p string) bool { return strings.HasSuffix(p, "/amd64/"+o.Digest.Hex()+".release.json") }) {
		t.Errorf("asked for %q, not for the release's digest %s", w.asked, o.Digest)
	}
	if err := o.Newer("2026.11.1"); err != nil {
		t.Error(err)
	}
	if o.Newer("2026.11.2") == nil || o.Newer("2026.12.1") == nil {
		t.Error("calls an older release an update")
	}
}
